"""Crowds, objects that are marked as difficult or to be ignored, and categories that were not searched for."""

import pytest

from florence_lite.data import read_dataset
from tests.data.files import BOX, CAT, coco, one, picture, voc, write

MASK = {"size": [8, 10], "counts": [18, 3, 5, 3, 5, 3, 43]}


def test_an_exporter_that_marks_every_mask_as_a_crowd(tmp_path):
    picture(tmp_path / "images" / "a.png", (10, 8))
    record = {**CAT, "bbox": [2, 2, 3, 3], "iscrowd": 1, "area": 9, "segmentation": MASK}
    write(tmp_path / "annotations" / "instances_default.json", {**coco([("a.png", 10, 8)], [record], ["cat"])})
    annotation = read_dataset(tmp_path)[0].annotation
    (item,) = annotation.ignored
    assert (item.label, item.box, len(item.polygons)) == ("cat", (2, 2, 5, 5), 1)
    assert not annotation.is_negative and not annotation.has_all_objects


@pytest.mark.parametrize("mark", [{"iscrowd": 1}, {"ignore": 1, "iscrowd": 0}, {"iscrowd": "1"}, {"iscrowd": True}])
def test_coco_ignores(tmp_path, mark):
    picture(tmp_path / "a.jpg")
    second = {**CAT, "bbox": [50, 10, 30, 20], "ignore": 0, "iscrowd": "0"}
    write(tmp_path / "instances.json", one("a.jpg", {**CAT, **mark}, second))
    annotation = read_dataset(tmp_path)[0].annotation
    assert [item.box for item in annotation.ignored] == [BOX]
    assert [item.box for item in annotation.objects] == [(50, 10, 80, 30)]


@pytest.mark.parametrize(("difficult", "ignored"), [("1", 1), ("0", 0), ("", 0)])
def test_difficult_objects(tmp_path, difficult, ignored):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.xml", voc("a.jpg", "cat", difficult=difficult, truncated=1))
    annotation = read_dataset(tmp_path)[0].annotation
    assert (len(annotation.ignored), len(annotation.objects)) == (ignored, 1 - ignored)


def test_lvis(tmp_path):
    """Images are named by their address; of each category it is known whether the image was searched for it."""
    picture(tmp_path / "val2017" / "1.jpg")
    content = one("", CAT, {**CAT, "category_id": 2, "bbox": [50, 10, 30, 20]}, categories=("cat", "dog", "yak"))
    content["images"][0] |= {
        "coco_url": "http://images.example.org/val2017/1.jpg",
        "neg_category_ids": [3],
        "not_exhaustive_category_ids": [2],
    }
    del content["images"][0]["file_name"]
    write(tmp_path / "lvis_v1_val.json", content)
    annotation = read_dataset(tmp_path)[0].annotation
    assert [item.label for item in annotation.objects] == ["cat", "dog"] and annotation.exhaustive == set()
    assert {e.phrase: e.objects for e in annotation.expressions} == {"cat": (0,), "yak": ()}
