import base64
import io
import json
import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from florence_lite.answers import Answer, Instance
from florence_lite.geometry import box_iou, non_maximum_suppression
from florence_lite.results import Result

BOX = Instance("dog", box=(10, 20, 30, 60), score=0.75, tokens=(1, 6), coords_at=2)
QUAD = Instance("STOP", quad=(0, 0, 40, 10, 40, 30, 0, 20), score=0.5)
RING = Instance("cat", polygons=[[(0, 0), (10, 0), (10, 10), (0, 10)]])
HOLED = Instance("ring", polygons=[[(0, 0), (10, 0), (10, 10), (0, 10)], [(2, 2), (8, 2), (8, 8), (2, 8)]], score=1)
WORDS = Instance("a sentence")


def result(*instances: Instance, **fields) -> Result:
    return Result("<OD>", (64, 80), instances=instances, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size_wh": (0, 10)}, "size_wh is"),
        ({"size_wh": (10, 10, 3)}, "size_wh is"),
        ({"score": -0.1}, "score is -0.1"),
        ({"token_ids": (1, 2), "token_logprobs": (-0.1,)}, "1 numbers for 2 token_ids"),
    ],
)
def test_results_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        Result(**{"task": "<OD>", "size_wh": (64, 80), **fields})


def test_a_result_says_what_the_answer_says():
    answer = Answer("words", (BOX,), parse_errors=2, truncated=True)
    told = Result.from_answer("<OD>", (64, 80), answer, token_ids=[0, 5, 2], token_logprobs=np.array([-1, -2, -3]))
    assert (told.text, told.instances, told.parse_errors, told.truncated) == ("words", (BOX,), 2, True)
    assert (told.token_ids, told.token_logprobs) == ((0, 5, 2), (-1.0, -2.0, -3.0))


def test_arrays_have_a_row_for_each_instance():
    told = result(BOX, QUAD, HOLED, WORDS)
    assert told.labels == ["dog", "STOP", "ring", "a sentence"]
    assert told.scores == [0.75, 0.5, 1.0, None]
    nan = [np.nan] * 4
    np.testing.assert_array_equal(told.boxes_xyxy, [[10, 20, 30, 60], [0, 0, 40, 30], [0, 0, 10, 10], nan])
    np.testing.assert_array_equal(told.quads, [nan * 2, QUAD.quad, nan * 2, nan * 2])
    assert [[ring.shape for ring in rings] for rings in told.polygons] == [[], [], [(4, 2), (4, 2)], []]
    masks = np.stack(list(told.masks()))
    assert masks.shape == (4, 80, 64) and masks.dtype == bool
    assert masks.sum((1, 2)).tolist() == [20 * 40, 800, 100 - 36, 0]


# ---- a sequence that can be filtered


def test_a_result_is_a_sequence_of_its_instances():
    told = result(BOX, QUAD, RING)
    assert (len(told), list(told), told[0], told[-1]) == (3, [BOX, QUAD, RING], BOX, RING)
    assert told[np.int64(1)] == QUAD and QUAD in told
    part = told[1:]
    assert (part.instances, part.dropped, part.size_wh) == ((QUAD, RING), 1, told.size_wh)
    assert told[::2].labels == ["dog", "cat"] and told[:3] == told
    with pytest.raises(IndexError):
        told[3]
    with pytest.raises(TypeError):
        told["dog"]


def test_a_result_is_true_where_it_says_anything():
    assert result(BOX) and result(text="a dog") and not result()
    assert not result(BOX).filter(score=1)


@pytest.mark.parametrize(
    ("wanted", "labels"),
    [
        ({}, ["dog", "STOP", "cat", "ring", "a sentence"]),
        ({"score": 0.5}, ["dog", "STOP", "cat", "ring", "a sentence"]),
        ({"score": 0.6}, ["dog", "cat", "ring", "a sentence"]),
        ({"score": 1}, ["cat", "ring", "a sentence"]),  # cat and the sentence were not scored
        ({"label": "dog"}, ["dog"]),
        ({"label": ["ring", "dog", "bus"]}, ["dog", "ring"]),
        ({"label": {"cat"}, "score": 0.9}, ["cat"]),
        ({"label": "Dog"}, []),
        ({"label": "do"}, []),
        ({"label": []}, []),
    ],
)
def test_filter(wanted, labels):
    told = result(BOX, QUAD, RING, HOLED, WORDS, text="words", dropped=2, score=0.4, token_ids=(1, 2))
    kept = told.filter(**wanted)
    assert kept.labels == labels
    assert kept == replace(told, instances=kept.instances, dropped=2 + 5 - len(labels))


def test_labels_may_come_from_a_generator():
    assert result(BOX, QUAD, RING).filter(label=(each for each in ("dog", "cat"))).labels == ["dog", "cat"]


def boxed(label: str, x: float, score: float | None, width: float = 10) -> Instance:
    return Instance(label, box=(x, 0, x + width, 10), score=score)


def test_nms_leaves_the_surest_of_what_overlaps_with_the_same_label():
    items = [
        boxed("dog", 0, 0.5),
        boxed("dog", 1, 0.9),  # IoU 9/11 with the first
        boxed("cat", 1, 0.1),
        boxed("dog", 6, 0.4),  # IoU 1/3 with the second
        boxed("dog", 60, None),
        boxed("dog", 61, 0.0),
        WORDS,
        Instance("dog", polygons=[[(0, 0), (11, 0), (11, 10)]], score=0.2),  # bounds: IoU 10/11 with the first
    ]
    told = result(*items, dropped=1)
    assert told.nms(0.5).instances == tuple(items[place] for place in (1, 2, 3, 4, 6))
    assert told.nms(0.5).dropped == 1 + 3
    assert told.nms(0.3).instances == tuple(items[place] for place in (1, 2, 4, 6))
    assert told.nms(1) == told
    assert told.nms(0).nms(0).instances == told.nms(0).instances
    assert result().nms(0.5) == result()


def test_nms_is_no_clustering():
    """What a suppressed box overlaps remains."""
    told = result(boxed("dog", 0, 0.9), boxed("dog", 4, 0.8), boxed("dog", 8, 0.7))  # IoU 0.43 from one to the next
    assert told.nms(0.4).scores == [0.9, 0.7]


def test_nms_equals_the_definition():
    """Whatever the boxes: none that remains overlaps another, and each that is left out overlaps a surer one."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        corners, sizes = rng.uniform(0, 40, (60, 2)), rng.uniform(1, 30, (60, 2))
        boxes, scores = np.concatenate([corners, corners + sizes], axis=1), rng.uniform(0, 1, 60).round(1)
        kept = non_maximum_suppression(boxes, scores, 0.3)
        overlaps = box_iou(boxes, boxes) > 0.3
        assert list(kept) == sorted(set(kept))
        assert overlaps[np.ix_(kept, kept)].sum() == len(kept)
        for row in set(range(60)) - set(kept):
            assert any(overlaps[row, other] and scores[other] >= scores[row] for other in kept)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "0.5", True, None])
def test_shares_lie_between_0_and_1(value):
    with pytest.raises(ValueError, match=f"iou is {value!r}; it must be a number from 0 to 1"):
        result(BOX).nms(value)
    if value is not None:
        with pytest.raises(ValueError, match=f"score is {value!r}; it must be a number from 0 to 1"):
            result(BOX).filter(score=value)


@pytest.mark.parametrize("label", [3, ["dog", 3], [None]])
def test_labels_are_texts(label):
    with pytest.raises(ValueError, match="it must be a label or a list of labels"):
        result(BOX).filter(label=label)


def fifty_outlines() -> Result:
    """On a photograph of 12 megapixels, in circles so that no mask is its box."""
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = 300 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    rings = [circle + (400 + 64 * number, 400 + 44 * number) for number in range(50)]
    return Result("<OD>", (4000, 3000), instances=[Instance("dog", polygons=[ring]) for ring in rings])


def test_masks_are_made_one_at_a_time():
    told = fifty_outlines()
    tracemalloc.start()
    try:
        areas = [int(np.count_nonzero(mask)) for mask in told.masks()]
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()
    assert areas == pytest.approx([np.pi * 300**2] * 50, rel=0.01)


def test_an_empty_result():
    told = result()
    assert (told.boxes_xyxy.shape, told.quads.shape, list(told.masks())) == ((0, 4), (0, 8), [])
    assert (told.labels, told.scores, told.polygons, told.to_coco()) == ([], [], [], [])


def test_to_dict_is_ready_for_json():
    told = result(
        BOX, QUAD, RING, WORDS, text="words", parse_errors=1, token_ids=np.array([1, 2]), score=np.float32(0.5)
    )
    read = json.loads(json.dumps(told.to_dict(), allow_nan=False))
    assert read == {
        "task": "<OD>",
        "size_wh": [64, 80],
        "text": "words",
        "instances": [
            {"label": "dog", "box": [10, 20, 30, 60], "score": 0.75},
            {"label": "STOP", "box": [0, 0, 40, 30], "score": 0.5, "quad": [0, 0, 40, 10, 40, 30, 0, 20]},
            {
                "label": "cat",
                "box": [0, 0, 10, 10],
                "score": None,
                "polygons": [[[0, 0], [10, 0], [10, 10], [0, 10]]],
            },
            {"label": "a sentence", "box": None, "score": None},
        ],
        "parse_errors": 1,
        "truncated": False,
        "dropped": 0,
        "foreign": False,
        "score": 0.5,
        "presence": {},
    }


def notebook_picture(shown: str) -> Image.Image:
    [data] = re.findall(r"data:image/jpeg;base64,([^\"]+)", shown)
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_notebooks_see_the_picture_and_the_answer():
    told = result(BOX, WORDS, image=Image.new("RGB", (64, 80)), text="<b>bold</b>")
    shown = told._repr_html_()
    assert max(notebook_picture(shown).size) >= 640
    assert "&lt;b&gt;bold" in shown and "<b>bold" not in shown
    assert "10.0 20.0 30.0 60.0" in shown and "0.75" in shown and "&lt;OD&gt;" in shown
    assert "unsure" not in shown and "unsure" in replace(told, foreign=True)._repr_html_()


@pytest.mark.parametrize(("size", "text"), [((4000, 3000), ""), ((3000, 4000), "words " * 400), ((9000, 30), "a")])
def test_a_cell_of_a_notebook_draws_once_and_small(monkeypatch, size, text):
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize(size)
    items = [Instance(f"a long label about thing {n}", box=(n, n, n + 20, n + 20), score=0.5) for n in range(80)]
    told = Result("<OD>", size, text=text, instances=items, image=image)
    ways = [name for name in dir(told) if name.startswith("_repr_") and name.endswith("_")]
    assert ways == ["_repr_html_"]  # a notebook calls all that it finds
    shown = told._repr_html_()
    assert max(notebook_picture(shown).size) <= 1000
    assert len(shown) < 1_000_000


def test_without_an_image_there_is_only_the_answer():
    told = result(BOX)
    assert "<img" not in told._repr_html_() and "dog" in told._repr_html_()
    with pytest.raises(ValueError, match="<OD> result keeps no image"):
        told.show()


def test_show_opens_the_drawing(monkeypatch):
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda image: shown.append(image))
    result(BOX, image=Image.new("RGB", (64, 80))).show()
    assert shown[0] == result(BOX).draw(Image.new("RGB", (64, 80)))


def test_the_image_does_not_count_in_comparisons():
    image = Image.new("RGB", (64, 80))
    assert result(BOX, image=image) == result(BOX)
    assert hash(result(BOX, image=image)) == hash(result(BOX))
    assert "image" not in repr(result(BOX, image=image))


def test_what_is_absent_says_so():
    """A phrase that was asked for and has no instance; an outline without words answers the one phrase there is."""
    asked = {"dog": 0.9, "a <b> cat": 0.1, "door": 0.4}
    told = result(BOX, presence=asked)
    assert told.absent == ("a <b> cat", "door") and told.to_dict()["presence"] == asked
    assert "not in the image: a &lt;b&gt; cat, door" in told._repr_html_()
    assert result(presence={"dog": 0.1}).absent == ("dog",)
    assert result(replace(BOX, label=""), presence={"dog": 0.9}).absent == ()
    with pytest.raises(ValueError, match="score is 1.5"):
        result(presence={"dog": 1.5})


def test_what_is_left_out_later_is_not_absent():
    told = result(BOX, RING, presence={"dog": 0.9, "cat": 0.8, "door": 0.1})
    for fewer in (told.filter(label="cat"), told.filter(score=1), told[:0], told.nms(0)):
        assert fewer.absent == ("door",) and "not in the image: door<" in fewer._repr_html_()
