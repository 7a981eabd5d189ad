import dataclasses
import json
import sys
import types

import numpy as np
import pytest
from PIL import Image

from florence_lite.results import Answer, Instance, Result

BOX = Instance("dog", box=(10, 20, 30, 60), score=0.75, tokens=(1, 6), coords_at=2)
QUAD = Instance("STOP", quad=(0, 0, 40, 10, 40, 30, 0, 20), score=0.5)
RING = Instance("cat", rings=[[(0, 0), (10, 0), (10, 10), (0, 10)]])
HOLED = Instance("ring", rings=[[(0, 0), (10, 0), (10, 10), (0, 10)], [(2, 2), (8, 2), (8, 8), (2, 8)]], score=1)
WORDS = Instance("a sentence")


def result(*instances: Instance, **fields) -> Result:
    return Result("<OD>", (64, 80), instances=instances, **fields)


@pytest.mark.parametrize(
    ("instance", "kind", "bounds", "outlines"),
    [
        (BOX, "box", (10, 20, 30, 60), 1),
        (QUAD, "quad", (0, 0, 40, 30), 1),
        (HOLED, "rings", (0, 0, 10, 10), 2),
        (WORDS, "label", None, 0),
    ],
)
def test_instances_know_their_shape(instance, kind, bounds, outlines):
    assert (instance.kind, instance.bounds, len(instance.outlines)) == (kind, bounds, outlines)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"box": (3, 0, 1, 1)}, "x0 <= x1"),
        ({"box": (0, 3, 1, 1)}, "y0 <= y1"),
        ({"box": (0, 1, 2)}, "box .* must be 4 finite numbers"),
        ({"box": (0, 0, 1, float("nan"))}, "must be 4 finite numbers"),
        ({"quad": (0, 1, 2, 3)}, "quad .* must be 8 finite numbers"),
        ({"rings": [[(0, 0), (1, 1)]]}, "a ring has 2 points"),
        ({"rings": [[(0, 0, 0), (1, 1, 1), (2, 2, 2)]]}, "point .* must be 2 finite numbers"),
        ({"box": (0, 0, 1, 1), "rings": [[(0, 0), (1, 1), (0, 1)]]}, "one of box, quad and rings"),
        ({"score": 1.5}, "score is 1.5"),
        ({"score": float("nan")}, "score is nan"),
    ],
)
def test_instances_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        Instance("dog", **fields)


def test_arrays_become_plain_numbers():
    instance = Instance("dog", box=np.array([1, 2, 3, 4]), score=np.float32(0.5))
    assert instance == Instance("dog", box=(1.0, 2.0, 3.0, 4.0), score=0.5)
    assert all(type(number) is float for number in (*instance.box, instance.score))
    ring = np.array([[0, 0], [4, 0], [4, 4]])
    assert Instance(rings=[ring]) == Instance(rings=(((0, 0), (4, 0), (4, 4)),))
    assert Instance(rings=[]) == Instance()


def test_where_an_instance_comes_from_does_not_count():
    assert dataclasses.replace(BOX, tokens=None, coords_at=None) == BOX
    assert dataclasses.replace(BOX, score=0.1) != BOX


def test_answers_are_checked():
    assert Answer(instances=[BOX]).instances == (BOX,)
    with pytest.raises(ValueError, match="malformed is -1"):
        Answer(malformed=-1)


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
    answer = Answer("words", (BOX,), malformed=2, truncated=True)
    told = Result.from_answer("<OD>", (64, 80), answer, token_ids=[0, 5, 2], token_logprobs=np.array([-1, -2, -3]))
    assert (told.text, told.instances, told.malformed, told.truncated) == ("words", (BOX,), 2, True)
    assert (told.token_ids, told.token_logprobs) == ((0, 5, 2), (-1.0, -2.0, -3.0))


def test_arrays_have_a_row_for_each_instance():
    told = result(BOX, QUAD, HOLED, WORDS)
    assert told.labels == ["dog", "STOP", "ring", "a sentence"]
    assert told.scores == [0.75, 0.5, 1.0, None]
    nan = [np.nan] * 4
    np.testing.assert_array_equal(told.boxes_xyxy, [[10, 20, 30, 60], [0, 0, 40, 30], [0, 0, 10, 10], nan])
    np.testing.assert_array_equal(told.quads, [nan * 2, QUAD.quad, nan * 2, nan * 2])
    assert [[ring.shape for ring in rings] for rings in told.polygons] == [[], [], [(4, 2), (4, 2)], []]
    masks = told.masks()
    assert masks.shape == (4, 80, 64) and masks.dtype == bool
    assert masks.sum((1, 2)).tolist() == [20 * 40, 800, 100 - 36, 0]


def test_an_empty_result():
    told = result()
    assert (told.boxes_xyxy.shape, told.quads.shape, told.masks().shape) == ((0, 4), (0, 8), (0, 80, 64))
    assert (told.labels, told.scores, told.polygons, told.to_coco()) == ([], [], [], [])


def test_to_dict_is_ready_for_json():
    told = result(BOX, QUAD, RING, WORDS, text="words", malformed=1, token_ids=np.array([1, 2]), score=np.float32(0.5))
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
        "malformed": 1,
        "truncated": False,
        "dropped": 0,
        "score": 0.5,
    }


def test_to_coco():
    rows = result(BOX, QUAD, RING, HOLED, WORDS).to_coco(image_id=7)
    assert [row["category_id"] for row in rows] == [1, 2, 3, 4]
    assert {row["image_id"] for row in rows} == {7}
    assert rows[0] == {
        "image_id": 7,
        "category_id": 1,
        "category_name": "dog",
        "bbox": [10, 20, 20, 40],
        "area": 800,
        "score": 0.75,
    }
    assert rows[1]["segmentation"] == [[0, 0, 40, 10, 40, 30, 0, 20]]
    assert (rows[1]["bbox"], rows[1]["area"]) == ([0, 0, 40, 30], 800)
    assert rows[2]["segmentation"] == [[0, 0, 10, 0, 10, 10, 0, 10]]
    assert "score" not in rows[2]  # nothing was measured
    assert rows[3]["segmentation"]["size"] == [80, 64]
    assert sum(rows[3]["segmentation"]["counts"][1::2]) == rows[3]["area"] == 64
    json.dumps(rows)


def test_to_coco_with_given_categories_leaves_other_labels_out():
    rows = result(BOX, RING, BOX).to_coco(image_id=3, category_ids={"dog": 18})
    assert [row["category_id"] for row in rows] == [18, 18]


@pytest.fixture
def supervision(monkeypatch):
    """A stand-in that keeps what it is given, so that the test runs without the package."""

    class Detections(types.SimpleNamespace):
        @classmethod
        def empty(cls):
            return cls(xyxy=np.zeros((0, 4)))

    module = types.ModuleType("supervision")
    module.Detections = Detections
    monkeypatch.setitem(sys.modules, "supervision", module)


def test_to_supervision(supervision):
    told = result(BOX, WORDS, HOLED, BOX).to_supervision()
    assert told.xyxy.tolist() == [[10, 20, 30, 60], [0, 0, 10, 10], [10, 20, 30, 60]]
    assert told.class_id.tolist() == [0, 1, 0]
    assert told.data["class_name"].tolist() == ["dog", "ring", "dog"]
    assert told.confidence.tolist() == [0.75, 1.0, 0.75]
    assert told.mask.sum((1, 2)).tolist() == [800, 64, 800]


def test_to_supervision_invents_no_confidence_and_no_masks(supervision):
    assert result(BOX, RING).to_supervision().confidence is None
    assert result(BOX, QUAD).to_supervision().mask is None
    assert result(WORDS).to_supervision().xyxy.shape == (0, 4)


def test_to_supervision_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r"florence-lite\[vis\]"):
        result(BOX).to_supervision()


def test_the_real_supervision_takes_it():
    real = pytest.importorskip("supervision", reason="the package supervision is not installed (extra vis)")
    told = result(BOX, QUAD, HOLED).to_supervision()
    assert isinstance(told, real.Detections) and len(told) == 3
    assert len(result().to_supervision()) == 0


@pytest.fixture
def display(monkeypatch):
    """A stand-in for the module that draws."""
    module = types.ModuleType("florence_lite.display")
    module.draw = lambda image, drawn: Image.new("RGB", image.size, "red")
    monkeypatch.setitem(sys.modules, "florence_lite.display", module)


def test_notebooks_see_the_picture_and_the_answer(display):
    told = result(BOX, WORDS, image=Image.new("RGB", (64, 80)), text="<b>bold</b>")
    assert told._repr_png_().startswith(b"\x89PNG")
    shown = told._repr_html_()
    assert "data:image/png;base64," in shown
    assert "&lt;b&gt;bold" in shown and "<b>bold" not in shown
    assert "10.0 20.0 30.0 60.0" in shown and "0.75" in shown and "&lt;OD&gt;" in shown


def test_without_an_image_there_is_only_the_answer():
    told = result(BOX)
    assert told._repr_png_() is None
    assert "<img" not in told._repr_html_() and "dog" in told._repr_html_()
    with pytest.raises(ValueError, match="<OD> result keeps no image"):
        told.show()


def test_show_opens_the_drawing(display, monkeypatch):
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda image: shown.append(image))
    result(BOX, image=Image.new("RGB", (64, 80))).show()
    assert shown[0].getpixel((0, 0)) == (255, 0, 0)


def test_the_image_does_not_count_in_comparisons():
    image = Image.new("RGB", (64, 80))
    assert result(BOX, image=image) == result(BOX)
    assert hash(result(BOX, image=image)) == hash(result(BOX))
    assert "image" not in repr(result(BOX, image=image))
