"""Objects found in boxes and outlined one by one: what is asked, what becomes of answers, and refined outlines."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from florence_lite import Instance, Result
from florence_lite.geometry import rasterize
from florence_lite.inference import EncodedImage
from florence_lite.inference.encoded import Maker
from florence_lite.inference.outlining import outline_prompts, outlined
from tests.tiny import noise_image
from tests.tokens.spelling import SEP, spell

SIZE = (100, 80)
SQUARE = ((20, 20), (60, 20), (60, 60), (20, 60))
HOLE = ((30, 30), (50, 30), (50, 50), (30, 50))
LINE = ((20, 20), (60, 20), (40, 20))
BOW = ((20, 20), (60, 60), (60, 20), (20, 60))  # crosses itself; its halves cancel in the shoelace formula


def found(*instances: Instance, **more) -> Result:
    return Result("<OD>", SIZE, instances=instances, **more)


def outline(*rings, score: float | None = 0.5, **more) -> Result:
    instances = (Instance(polygons=rings, score=score),) if rings else ()
    return Result("<REGION_TO_SEGMENTATION>", SIZE, instances=instances, **more)


def image(picture: Image.Image | None = None, size_wh=SIZE) -> EncodedImage:
    return EncodedImage(size_wh, torch.zeros(1, 4), None, Maker("test", ""), picture)


DOG = Instance("dog", box=(10, 10, 70, 70), score=0.8)


def test_an_outline_takes_the_place_of_its_box():
    cat = Instance("cat", box=(50, 10, 90, 40), score=0.6)
    result = outlined(found(DOG, cat), [outline(SQUARE, HOLE), outline(SQUARE, score=0.1)], image())
    assert result.task == "<REGION_TO_SEGMENTATION>" and result.labels == ["dog", "cat"]
    assert result.scores == pytest.approx([0.8 * 0.5, 0.6 * 0.1])
    mask, _ = result.masks()
    assert mask[25, 25] and not mask[40, 40] and mask.sum() == 40 * 40 - 20 * 20  # the hole is one
    assert (result.parse_errors, result.truncated) == (0, False)


@pytest.mark.parametrize(
    ("answer", "kind", "parse_errors", "truncated"),
    [
        (outline(), "box", 1, False),
        (outline(parse_errors=3), "box", 3, False),
        (outline(truncated=True), "box", 1, True),
        (outline(LINE), "box", 1, False),
        (outline(SQUARE, LINE), "polygons", 1, False),
        (outline(LINE, SQUARE), "polygons", 1, False),
        (outline(BOW), "polygons", 0, False),
        (outline(SQUARE, truncated=True, parse_errors=1), "polygons", 1, True),
    ],
)
def test_what_cannot_be_read_is_counted_and_keeps_its_box(answer, kind, parse_errors, truncated):
    result = outlined(found(DOG), [answer], image())
    [instance] = result.instances
    assert instance.kind == kind and instance.label == "dog"
    assert (result.parse_errors, result.truncated) == (parse_errors, truncated)
    assert instance == DOG if kind == "box" else len(instance.polygons) == 1


def test_boxes_without_area_are_not_asked_about():
    thin = Instance("pole", box=(10, 10, 10, 70), score=0.7)
    result = outlined(found(thin, DOG, parse_errors=2, truncated=True), [outline(SQUARE)], image())
    assert [prompt.region for prompt in outline_prompts(found(thin, DOG))] == [DOG.box]
    assert [item.kind for item in result.instances] == ["box", "polygons"]
    assert (result.parse_errors, result.truncated) == (3, True)


@pytest.mark.parametrize(("box", "shape"), [(None, 0.5), (0.8, None)])
def test_unmeasured_scores_stay_unmeasured(box, shape):
    item = Instance("dog", box=DOG.box, score=box)
    assert outlined(found(item), [outline(SQUARE, score=shape)], image()).scores == [None]


# ---- refine


def test_refine_gets_picture_box_and_outline_and_its_mask_is_the_outline():
    picture, calls = noise_image(0, SIZE), []
    ring = rasterize([SQUARE, HOLE], SIZE)

    def refine(given, box, polygons):
        calls.append((given.mode, given.size, box, [each.tolist() for each in polygons]))
        given.paste((0, 0, 0), (0, 0, *SIZE))  # what becomes of the copy is of no matter
        return ring

    before = picture.tobytes()
    result = outlined(found(DOG, DOG), [outline(BOW), outline()], image(picture), refine)
    assert picture.tobytes() == before
    assert calls[0] == ("RGB", SIZE, DOG.box, [[list(map(float, point)) for point in BOW]])
    assert calls[1][3] == []
    assert all((mask == ring).all() for mask in result.masks())
    assert result.scores == pytest.approx([0.4, 0.8]) and result.parse_errors == 1


def test_refine_of_a_large_image_works_on_its_smaller_picture():
    picture = noise_image(0, (50, 40))
    boxes = []

    def refine(given, box, polygons):
        boxes.append((box, polygons[0].max()))
        return rasterize([np.array(SQUARE) / 2], given.size)

    [mask] = outlined(found(DOG), [outline(SQUARE)], image(picture), refine).masks()
    assert boxes == [((5, 5, 35, 35), 30)]
    assert (mask == rasterize([SQUARE], SIZE)).all()


def test_an_empty_mask_changes_nothing_and_is_counted():
    result = outlined(found(DOG), [outline(SQUARE)], image(noise_image(0, SIZE)), lambda *_: np.zeros((80, 100), bool))
    assert result.polygons[0][0].tolist() == np.array(SQUARE).tolist() and result.parse_errors == 1


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((100, 80), bool), r"refine returned bool\[100, 80\]; it must return a mask bool\[80, 100\]"),
        (np.ones((80, 100), np.uint8), r"refine returned uint8\[80, 100\]"),
        (np.ones((1, 80, 100), bool), r"refine returned bool\[1, 80, 100\]"),
        (None, r"refine returned object\[\]"),
        ("mask", "refine returned <U4"),
    ],
)
def test_nonsense_of_refine_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        outlined(found(DOG), [outline(SQUARE)], image(noise_image(0, SIZE)), lambda *_: mask)


def test_refine_needs_a_picture():
    with pytest.raises(ValueError, match="refine needs the picture.*keep_image=False"):
        outlined(found(DOG), [outline(SQUARE)], image(), lambda *_: None)


# ---- Florence.segment


RING = [100, 100, 400, 100, 400, 500]
INNER = [200, 150, 300, 150, 300, 300]


def test_every_detected_object_is_outlined(florence, scripted, toy_tokenizer):
    known, calls = scripted
    known["Locate the objects"] = spell(toy_tokenizer, "dog", [50, 60, 500, 600], "cat", [500, 60, 900, 700])
    known["polygon mask"] = spell(toy_tokenizer, RING, SEP, INNER)
    both = florence.segment([noise_image(0), noise_image(1)])
    assert [each.labels for each in both] == [["dog", "cat"]] * 2
    assert all(item.kind == "polygons" and len(item.polygons) == 2 for each in both for item in each.instances)
    assert all(0 < score < 1 for score in both[0].scores)
    asked = [sentence for call in calls for sentence in call if "polygon mask" in sentence]
    regions = sorted([int(number) for number in re.findall(r"<loc_(\d+)>", sentence)] for sentence in asked)
    written = [[50, 60, 500, 600]] * 2 + [[500, 60, 900, 700]] * 2  # boxes lie at means near what was written
    assert np.abs(np.array(regions) - written).max() <= 25
    if florence.model.config.prompt_side == "encoder":  # boxes of both images in one batch
        assert [len(call) for call in calls] == [2, 4]
    alone = florence.segment(noise_image(0))
    assert alone.token_ids == both[0].token_ids and alone.polygons[0][0].tolist() == both[0].polygons[0][0].tolist()
    assert alone.scores == pytest.approx(both[0].scores, rel=1e-4) and both[0].image is not None
    assert florence.segment([]) == []


def test_a_threshold_holds_for_the_score_of_the_outline(florence, scripted, toy_tokenizer):
    known, _ = scripted
    known["Locate the objects"] = spell(toy_tokenizer, "dog", [50, 60, 500, 600], "cat", [500, 60, 900, 700])
    known["polygon mask"] = spell(toy_tokenizer, RING)
    picture = noise_image(0)
    every, boxes = florence.segment(picture), florence.detect(picture)
    low, high = sorted(every.scores)
    limit = (low + high) / 2
    assert low < limit < min(boxes.scores)  # by its box alone, either would stay
    kept = florence.segment(picture, threshold=limit)
    assert kept.scores == [pytest.approx(high)] and kept.dropped == 1
    region = {"region": (10, 10, 60, 50), "refine": lambda given, *_: np.ones(given.size[::-1], bool)}
    assert len(florence.segment(picture, **region)) == 1
    assert florence.segment(picture, **region, threshold=1.0).dropped == 1
    assert len(florence.segment(picture, "dog", threshold=0.0)) == len(florence.detect(picture, ["dog"], threshold=0.0))


def test_phrases_bring_none_one_or_many(florence, scripted, toy_tokenizer):
    known, calls = scripted
    known["a unicorn"] = []
    known["a dog"] = spell(toy_tokenizer, "a dog", [50, 60, 500, 600], [500, 60, 900, 700])
    known["a cat"] = spell(toy_tokenizer, "a cat", [10, 60, 200, 600])
    known["polygon mask"] = spell(toy_tokenizer, RING)
    result = florence.segment(noise_image(0), phrases=["a dog", "a unicorn", "a cat"])
    assert result.labels == ["a dog", "a dog", "a cat"]
    assert all(item.kind == "polygons" for item in result.instances)
    assert florence.segment(noise_image(0), "a cat").labels == ["a cat"]
    assert florence.segment(noise_image(0), "a unicorn").instances == ()
    assert result.presence.keys() == {"a dog", "a unicorn", "a cat"}
    assert florence.segment(noise_image(0), labels=["dog", "cat"]).instances == ()


def test_a_given_region_may_be_refined(florence, scripted, toy_tokenizer):
    known, _ = scripted
    known["polygon mask"] = spell(toy_tokenizer, RING)
    picture, region = noise_image(0, (100, 80)), (10, 10, 60, 50)
    plain = florence.segment(picture, region=region)
    seen = []

    def refine(given, box, polygons):
        seen.append((box, len(polygons)))
        return rasterize([SQUARE], given.size)

    refined = florence.segment(picture, region=region, refine=refine, keep_image=False)
    assert seen == [(region, 1)] and refined.image is None
    assert refined.scores == pytest.approx(plain.scores)
    assert (next(refined.masks()) == rasterize([SQUARE], (100, 80))).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"phrase": "dog", "region": (1, 1, 9, 9)}, "takes one of phrase, phrases and region"),
        ({"phrase": "dog", "phrases": ["dog"]}, "takes one of phrase, phrases and region"),
        ({"phrase": ["dog"]}, r"phrases\[0\]=\['dog'\] must be a string"),
        ({"phrase": " "}, r"phrases\[0\]=' ' must be a string with something in it"),
        ({"phrases": []}, r"phrases=\[\] is empty"),
        ({"phrases": "dog"}, "phrases='dog' must be a list"),
        ({"region": (9, 9, 1, 1)}, "must have 0 <= x0 < x1"),
        ({"refine": "sam"}, "refine is 'sam'; it must be a function"),
        ({"keep_image": 1}, "keep_image is 1; it must be True or False"),
        ({"max_tokens": 1}, "unknown option 'max_tokens'"),
    ],
)
def test_bad_input_is_told_before_an_image_is_read(florence, given, message):
    with pytest.raises(ValueError, match=message):
        florence.segment("no-such-file.png", **given)
