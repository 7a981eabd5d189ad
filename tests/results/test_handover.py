"""Answers in the terms of COCO and of supervision."""

import json
import re
import sys
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from florence_lite.answers import Instance
from florence_lite.data import read_dataset
from florence_lite.results import Result
from florence_lite.results.handover import coco_place, label_id
from tests.results.test_result import BOX, HOLED, QUAD, RING, WORDS, fifty_outlines, result


def test_to_coco():
    rows = result(BOX, QUAD, RING, HOLED, WORDS).to_coco(image_id=7)
    assert [row["category_id"] for row in rows] == [label_id(name) for name in ("dog", "STOP", "cat", "ring")]
    assert {row["image_id"] for row in rows} == {7}
    assert rows[0] == {
        "image_id": 7,
        "category_id": label_id("dog"),
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
    with pytest.warns(UserWarning, match=r"left out, since the classes lack their label: 'cat' \(1\)"):
        rows = result(BOX, RING, BOX).to_coco(image_id=3, category_ids={"dog": 18})
    assert [row["category_id"] for row in rows] == [18, 18]


def test_a_class_has_one_id_in_all_images(supervision):
    """Whatever else is in the image and in which order, in every process."""
    images = [result(BOX, RING), result(RING, BOX), result(HOLED, RING)]
    for ids, numbers in [
        (None, {"dog": 19675519, "cat": 509494186, "ring": label_id("ring")}),
        ({"cat": 1, "dog": 2, "ring": 7}, {"cat": 1, "dog": 2, "ring": 7}),
    ]:
        rows = [row for image in images for row in image.to_coco(category_ids=ids)]
        assert all(row["category_id"] == numbers[row["category_name"]] for row in rows) and len(rows) == 6
        for image in images:
            assert image.to_supervision(ids).class_id.tolist() == [numbers[label] for label in image.labels]
    listed = [image.to_supervision(["ring", "cat", "dog"]).class_id.tolist() for image in images]
    assert listed == [[2, 1], [1, 2], [0, 1]]
    with pytest.warns(UserWarning, match=r"'dog' \(1\)"):
        assert result(BOX, RING).to_supervision({"cat": 4}).data["class_name"].tolist() == ["cat"]


def test_ids_of_labels_fit_and_differ():
    ids = {label_id(f"label {number}") for number in range(2000)} | {label_id(""), label_id("猫"), label_id("\udcff")}
    assert len(ids) == 2003 and min(ids) >= 1 and max(ids) < 2**31


@pytest.fixture
def supervision(monkeypatch):
    """A stand-in that keeps what it is given, so that the test runs without the package."""

    class Detections(types.SimpleNamespace):
        pass

    module = types.ModuleType("supervision")
    module.Detections = Detections
    monkeypatch.setitem(sys.modules, "supervision", module)


def test_to_supervision(supervision):
    told = result(BOX, WORDS, HOLED, BOX).to_supervision()
    assert told.xyxy.tolist() == [[10, 20, 30, 60], [0, 0, 10, 10], [10, 20, 30, 60]]
    assert told.class_id.tolist() == [label_id("dog"), label_id("ring"), label_id("dog")]
    assert "xyxyxyxy" not in told.data
    assert told.data["class_name"].tolist() == ["dog", "ring", "dog"]
    assert told.confidence.tolist() == [0.75, 1.0, 0.75]
    assert told.mask.sum((1, 2)).tolist() == [800, 64, 800]


def test_to_supervision_invents_no_confidence_and_no_masks(supervision):
    assert result(BOX, RING).to_supervision().confidence is None
    assert result(BOX, QUAD).to_supervision().mask is None


def test_to_supervision_has_masks_of_all_images_of_a_task_that_outlines(supervision):
    unreadable = Result("<REGION_TO_SEGMENTATION>", (64, 80), instances=[BOX])  # the box stays
    assert unreadable.to_supervision().mask.sum() == 800
    assert Result("<REGION_TO_SEGMENTATION>", (64, 80)).to_supervision().mask is None


def test_to_supervision_keeps_quads(supervision):
    corners = result(BOX, QUAD).to_supervision().data["xyxyxyxy"].tolist()
    assert corners == [[[10, 20], [30, 20], [30, 60], [10, 60]], [[0, 0], [40, 10], [40, 30], [0, 20]]]


@pytest.mark.parametrize("items", [(), (WORDS,)])
def test_to_supervision_of_nothing_has_all_fields(supervision, items):
    told = result(*items).to_supervision()
    assert told.xyxy.shape == (0, 4) and told.class_id.shape == told.confidence.shape == (0,)
    assert told.data["class_name"].shape == (0,) and told.data["class_name"].dtype.kind == "U"


def test_to_supervision_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r"florence-lite\[vis\]"):
        result(BOX).to_supervision()


def test_the_real_supervision_takes_it():
    real = pytest.importorskip("supervision", reason="the package supervision is not installed (extra vis)")
    told = result(BOX, QUAD, HOLED).to_supervision()
    assert isinstance(told, real.Detections) and len(told) == 3
    assert told.data["xyxyxyxy"].shape == (3, 4, 2)
    empty = Result("<OD>", (100, 80)).to_supervision()
    assert len(empty) == 0 and empty["class_name"].tolist() == []
    assert len(real.Detections.merge([empty, result(BOX).to_supervision()])) == 1


def test_the_real_supervision_takes_many_masks_in_little_memory():
    real = pytest.importorskip("supervision", reason="the package supervision is not installed (extra vis)")
    if not hasattr(real, "CompactMask"):
        pytest.skip("this version of supervision has no compact masks")
    told = result(BOX, QUAD, HOLED, WORDS)
    handed = told.to_supervision().mask
    np.testing.assert_array_equal(np.asarray(handed), np.stack(list(told.masks()))[:3])
    many = fifty_outlines()
    tracemalloc.start()
    try:
        handed = many.to_supervision().mask
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()
    assert handed.shape == (50, 3000, 4000)
    for number, mask in enumerate(many.masks()):
        if number % 20 == 0:
            np.testing.assert_array_equal(handed[number], mask)


@pytest.mark.parametrize(
    ("instance", "masks", "area", "segmentation"),
    [
        (BOX, None, 800, None),
        (BOX, False, 800, None),
        (BOX, True, 800, dict),
        (QUAD, None, 800, list),
        (QUAD, False, 1200, None),  # of its bounds
        (QUAD, True, 800, dict),
        (HOLED, None, 64, dict),
        (HOLED, False, 100, None),
    ],
)
def test_places_as_they_are_as_boxes_and_as_masks(instance, masks, area, segmentation):
    place = coco_place(instance, (64, 80), masks)
    assert place["area"] == area
    x0, y0, x1, y1 = instance.bounds
    assert place["bbox"] == [x0, y0, x1 - x0, y1 - y0]
    assert isinstance(place.get("segmentation"), segmentation or type(None))


def test_words_have_no_place():
    with pytest.raises(ValueError, match="instance 'a sentence' has no coordinates"):
        coco_place(WORDS, (64, 80))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("dog", "classes is 'dog'; it must be a list of labels"),
        (["dog", "dog"], "holds 'dog' more than once"),
        ({0: "dog", 1: "dog"}, "holds 'dog' more than once"),
        ([1], r"classes is \[1\]; it must be"),
        ({"dog", "cat"}, "it must be a list of labels"),  # in another order in every process
        ({"dog": "first"}, "a mapping from label to number or number to label"),
        ({"dog": -1}, "classes is {'dog': -1}"),
        (3, "classes is 3"),
        (None, "a YOLO label file needs the labels of its data set"),
    ],
)
def test_wrong_classes_are_told(classes, message):
    with pytest.raises(ValueError, match=message):
        result(BOX).to_yolo(classes)


def test_to_yolo():
    assert result(BOX, BOX).to_yolo(["cat", "dog"]) == ["1 0.3125 0.5 0.3125 0.5"] * 2
    assert result(WORDS).to_yolo(["cat"]) == []
    [quad, ring] = result(QUAD, RING).to_yolo({"STOP": 5, "cat": 0})  # outlines, since all have one
    assert quad == "5 0 0 0.625 0.125 0.625 0.375 0 0.25" and ring == "0 0 0 0.15625 0 0.15625 0.125 0 0.125"
    assert result(HOLED).to_yolo(["ring"]) == [ring]  # the hole is filled
    [box, round_it] = result(BOX, RING).to_yolo(["dog", "cat"])  # boxes, since one has no outline
    assert box == "0 0.3125 0.5 0.3125 0.5" and round_it == "1 0.078125 0.0625 0.15625 0.125"
    with pytest.warns(UserWarning, match=r"'cat' \(2\), 'dog' \(1\)"):
        assert result(RING, BOX, RING).to_yolo(["bird"]) == []
    assert result(BOX).to_yolo({0: "cat", 1: "dog"}) == result(BOX).to_yolo(["cat", "dog"])  # names of a data.yaml
    with pytest.warns(UserWarning, match=r"outside of the image: 'cat' at \(70.0, 0.0, 90.0, 10.0\)"):
        rows = result(Instance("cat", box=(70, 0, 90, 10)), Instance("cat", box=(-32, 0, 32, 160))).to_yolo(["cat"])
    assert rows == ["0 0.25 0.5 0.5 1"]
    merged = result(BOX, RING).to_yolo({"cat": 0, "dog": 0})
    assert [row[0] for row in merged] == ["0", "0"]


def test_rows_of_yolo_are_read_back(tmp_path):
    labels = tmp_path / "labels"
    for folder in (labels, tmp_path / "images"):
        folder.mkdir()
    Image.new("RGB", (64, 80)).save(tmp_path / "images" / "a.png")
    (labels / "a.txt").write_text("\n".join(result(BOX, BOX).to_yolo(["cat", "dog"])))
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [cat, dog]\n")
    [sample] = read_dataset(tmp_path, "yolo", "train")
    assert {(item.label, item.box) for item in sample.annotation.objects} == {("dog", BOX.box)}


TWO_PARTS = Instance("dogs", polygons=[[(0, 0), (10, 0), (10, 10)], [(20, 20), (50, 20), (50, 50)]])


def test_to_labelme():
    content = result(BOX, QUAD, WORDS, HOLED, TWO_PARTS).to_labelme(Path("photo.jpg"))
    assert (content["imagePath"], content["imageWidth"], content["imageHeight"]) == ("photo.jpg", 64, 80)
    box, quad, ring, *dogs = content["shapes"]
    assert (box["label"], box["shape_type"], box["points"], box["score"]) == (
        "dog",
        "rectangle",
        [[10, 20], [30, 60]],
        0.75,
    )
    assert (quad["shape_type"], quad["points"]) == ("polygon", [[0, 0], [40, 10], [40, 30], [0, 20]])
    assert len(ring["points"]) == 4 and ring["group_id"] is None  # the hole is filled
    assert [len(each["points"]) for each in dogs] == [3, 3] and [each["group_id"] for each in dogs] == [1, 1]
    assert "score" not in dogs[0]
    assert json.loads(json.dumps(content)) == content


@pytest.fixture
def fiftyone(monkeypatch):
    """A stand-in that keeps what it is given, by the package's names of its classes and fields."""

    class Label(types.SimpleNamespace):
        pass

    module = types.ModuleType("fiftyone")
    for name in ("Classification", "Detection", "Detections", "Polyline", "Polylines"):
        setattr(module, name, type(name, (Label,), {}))
    monkeypatch.setitem(sys.modules, "fiftyone", module)
    return module


def check_fiftyone(module):
    [dog, other] = result(BOX, WORDS, Instance("cat", box=(0, 0, 64, 80))).to_fiftyone().detections
    assert (dog.label, dog.confidence, list(dog.bounding_box)) == ("dog", 0.75, [10 / 64, 20 / 80, 20 / 64, 40 / 80])
    assert other.confidence is None and list(other.bounding_box) == [0, 0, 1, 1]
    lines = result(BOX, QUAD, HOLED).to_fiftyone()
    assert isinstance(lines, module.Polylines)
    assert [len(line.points) for line in lines.polylines] == [1, 1, 2]
    assert [tuple(point) for point in lines.polylines[1].points[0]][1] == (40 / 64, 10 / 80)
    assert [line.filled for line in lines.polylines] == [False, False, True]
    told = Result("<CAPTION>", (64, 80), text="a dog", score=0.5).to_fiftyone()
    assert isinstance(told, module.Classification) and (told.label, told.confidence) == ("a dog", 0.5)
    # A field takes one kind of label, so a task has one, also of images in which there is nothing.
    kinds = {"<OD>": "detections", "<OCR_WITH_REGION>": "polylines", "<REGION_TO_SEGMENTATION>": "polylines"}
    for task, kind in kinds.items():
        assert getattr(Result(task, (64, 80)).to_fiftyone(), kind) == []
    unreadable = Result("<REGION_TO_SEGMENTATION>", (64, 80), instances=[BOX]).to_fiftyone()  # the box stays
    assert len(unreadable.polylines) == 1 and not unreadable.polylines[0].filled
    assert Result("<OCR>", (64, 80)).to_fiftyone() is None
    assert Result("<NOT_REGISTERED>", (64, 80)).to_fiftyone().detections == []


def test_to_fiftyone(fiftyone):
    check_fiftyone(fiftyone)


def test_the_real_fiftyone_takes_it():
    check_fiftyone(pytest.importorskip("fiftyone", reason="the package fiftyone is not installed"))


def test_to_fiftyone_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(ImportError, match=re.escape("pip install fiftyone")):
        result(BOX).to_fiftyone()
