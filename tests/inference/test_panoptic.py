"""Things and stuff put into one map, by hand and by way of written answers."""

import tracemalloc

import numpy as np
import pytest

from florence_lite import Instance
from florence_lite.geometry import rasterize
from florence_lite.inference.panoptic import assemble
from tests.tiny import noise_image
from tests.tokens.spelling import SEP, spell

SIZE = (20, 10)


def block(label: str, x0: int, x1: int, score: float | None, y0: int = 0, y1: int = 10) -> Instance:
    return Instance(label, polygons=[[(x0, y0), (x1, y0), (x1, y1), (x0, y1)]], score=score)


def rows(result) -> list[tuple]:
    return [(s.id, s.label, s.score, s.is_thing, s.area) for s in result.segments]


def test_the_surest_lies_on_top_and_things_on_stuff():
    things = [block("dog", 0, 8, 0.3), block("cat", 6, 12, 0.9)]
    stuff = [block("the sky", 0, 20, 0.95), block("the grass", 10, 20, 0.99)]
    result = assemble(SIZE, things, stuff)
    assert result.id_map[0].tolist() == [2] * 6 + [1] * 6 + [3] * 8
    assert rows(result) == [
        (1, "cat", 0.9, True, 60),
        (2, "dog", 0.3, True, 60),
        (3, "the grass", 0.99, False, 80),
    ]
    assert result.dropped == 1  # the sky, of which nothing is left
    assert result.id_map.dtype == np.int32 and result.id_map.shape == (10, 20)


def test_what_keeps_too_little_is_dropped_and_hides_nothing():
    things = [block("dog", 0, 8, 0.9), block("cat", 3, 9, 0.8), block("fox", 5, 15, 0.7)]
    result = assemble(SIZE, things, [])
    assert result.id_map[0].tolist() == [1] * 8 + [2] * 7 + [0] * 5  # the fox gets what the cat would have hidden
    assert ([segment.area for segment in result.segments], result.dropped) == ([80, 70], 1)
    kept = assemble(SIZE, [block("dog", 0, 8, 0.9), block("cat", 4, 12, 0.8)], [])
    assert kept.dropped == 0  # half of it is just enough


def test_stuff_may_be_mostly_hidden():
    result = assemble(SIZE, [block("dog", 0, 18, 0.5)], [block("the sky", 0, 20, 0.1)])
    assert rows(result)[1] == (2, "the sky", 0.1, False, 20) and result.dropped == 0


def test_all_stuff_of_a_label_is_one_segment_but_things_are_not():
    parts = [block("the sky", 0, 4, 0.2), block("the sea", 0, 20, None), block("the sky", 3, 6, 0.6)]
    result = assemble(SIZE, [block("dog", 10, 12, 0.5), block("dog", 14, 16, None)], parts)
    assert rows(result) == [
        (1, "dog", 0.5, True, 20),
        (2, "dog", None, True, 20),
        (3, "the sky", 0.6, False, 60),
        (4, "the sea", None, False, 100),
    ]


def test_holes_and_shapes_without_pixels():
    ring = Instance(
        "tyre", polygons=[[(0, 0), (10, 0), (10, 10), (0, 10)], [(3, 3), (7, 3), (7, 7), (3, 7)]], score=0.9
    )
    line = Instance("pole", polygons=[[(0, 0), (9, 0), (5, 0)]], score=0.99)
    result = assemble(SIZE, [ring, line], [block("the road", 0, 20, 0.5)])
    assert result.id_map[5, :10].tolist() == [1] * 3 + [2] * 4 + [1] * 3
    assert result.dropped == 1
    empty = assemble(SIZE, [], [])
    assert not empty.id_map.any() and empty.segments == () and empty.semantic_map().shape == (10, 20)


def test_twelve_megapixels_take_little_more_than_their_map():
    width, height = 4000, 3000
    things = [Instance("dog", box=(100 * k, 50 * k, 100 * k + 300, 50 * k + 300), score=k / 50) for k in range(30)]
    tracemalloc.start()
    assemble((width, height), things, [Instance("the sky", box=(0, 0, width, height), score=0.5)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * 4 * width * height  # the map itself is 4 bytes a pixel


# ---- Florence.panoptic


def test_detected_things_lie_on_the_stuff_that_is_asked_for(florence, scripted, toy_tokenizer):
    known, calls = scripted
    known["Locate the objects"] = spell(toy_tokenizer, "dog", [100, 100, 500, 500])
    known["polygon mask"] = spell(toy_tokenizer, [100, 100, 499, 100, 499, 499, 100, 499])
    sky = [0, 0, 999, 0, 999, 499, 0, 499]
    known["Locate the sky in"] = spell(toy_tokenizer, sky, SEP, [600, 100, 800, 100, 800, 300, 600, 300])
    picture = noise_image(0, (1000, 1000))
    result = florence.panoptic(picture, stuff=["the sky", "the sea"])
    assert [(s.label, s.is_thing) for s in result.segments] == [("dog", True), ("the sky", False)]
    assert result.presence.keys() == {"the sky", "the sea"}
    assert result.image.size == (1000, 1000)
    dog = rasterize([[(100.5, 100.5), (499.5, 100.5), (499.5, 499.5), (100.5, 499.5)]], (1000, 1000))
    assert (result.mask(1) == dog).all() and result.id_map[200, 700] == 0  # a hole of the sky stays one
    assert result.id_map[50, 50] == 2
    both = florence.panoptic([picture, picture], stuff=["the sky", "the sea"], keep_image=False)
    for each in both:
        assert each.image is None and (each.id_map == result.id_map).all()
        for one, other in zip(each.segments, result.segments, strict=True):
            assert one.label == other.label and one.score == pytest.approx(other.score, rel=1e-4)
    only_stuff = florence.panoptic(picture, things=[], stuff=["the sky"])
    assert [segment.label for segment in only_stuff.segments] == ["the sky"]


def test_things_may_be_phrases_and_faults_are_summed(florence, scripted, toy_tokenizer):
    known, _ = scripted
    known["a dog"] = spell(toy_tokenizer, "a dog", [100, 100, 500, 500])
    known["the sky"] = spell(toy_tokenizer, [0, 0, 999, 0, 999, 499, 0])
    result = florence.panoptic(noise_image(0), things=["a dog", "a cat"], stuff=["the sky"])
    assert result.labels == ["a dog", "the sky"]
    assert result.parse_errors == 2  # no outline of the dog, an odd coordinate of the sky
    assert (result.id_map == 1).sum() == result.segments[0].area > 0  # the dog keeps its box


def test_absent_phrases_of_things_and_stuff_are_told(florence):
    result = florence.panoptic(noise_image(0), things=["a dog"], stuff=["the sky"], threshold=1.0)
    assert result.absent == ("a dog", "the sky") == tuple(result.presence) and not result.segments
    assert florence.panoptic(noise_image(0)).absent == ()


def test_things_of_a_large_image_may_be_looked_for_in_tiles(florence, scripted, toy_tokenizer):
    known, calls = scripted
    known["Locate the objects"] = spell(toy_tokenizer, "dog", [100, 100, 500, 500])
    known["polygon mask"] = spell(toy_tokenizer, [100, 100, 499, 100, 499, 499, 100, 499])
    known["the sky"] = spell(toy_tokenizer, [0, 0, 999, 0, 999, 499, 0, 499])
    result = florence.panoptic(noise_image(0, (200, 100)), stuff=["the sky"], tile=(100, 0))
    dogs = [segment for segment in result.segments if segment.is_thing]
    assert len(dogs) >= 2 and result.size_wh == (200, 100)
    sentences = [sentence for call in calls for sentence in call]
    assert sum("the sky" in sentence for sentence in sentences) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"things": []}, "things and stuff are both empty"),
        ({"things": [], "stuff": []}, "things and stuff are both empty"),
        ({"things": "dog"}, "things='dog' must be a list of strings"),
        ({"stuff": "the sky"}, "stuff='the sky' must be a list of strings"),
        ({"stuff": None}, "stuff=None must be a list"),
        ({"stuff": ["the sky", ""]}, r"stuff\[1\]='' must be a string with something in it"),
        ({"things": [5]}, r"things\[0\]=5 must be a string"),
        ({"stuff": ["the sky", "the sky "]}, "'the sky' is given twice"),
        ({"things": ["dog"], "stuff": ["dog"]}, "'dog' is given twice"),
        ({"tile": (10, 20)}, "the overlap must be smaller"),
        ({"refine": 5}, "refine is 5; it must be a function"),
        ({"stuff": ["the sky"], "max_tokens": 3}, "unknown option 'max_tokens'"),
    ],
)
def test_bad_input_is_told(florence, given, message):
    with pytest.raises(ValueError, match=message):
        florence.panoptic(noise_image(0), **given)
