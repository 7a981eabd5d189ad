"""Files as other tools write them, one small data set for each; what is not understood is never read as "nothing"."""

import json

import pytest
from PIL import Image

from florence_lite.data import read_dataset
from tests.data.files import coco, kinds, picture, write

CAT = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 20]}
BOX = (10, 10, 40, 30)
LINE = "0 .5 .5 .2 .2\n"  # 40 32 60 48


def one(name="a.jpg", *annotations, categories=("cat",), **of_image):
    """A COCO file of one image of 100×80 pixels."""
    content = coco([(name, 100, 80)], annotations, categories)
    content["images"][0].update(of_image)
    return content


def voc(filename, label, **more):
    marks = "".join(f"<{tag}>{value}</{tag}>" for tag, value in more.items())
    corners = "<xmin>10</xmin><ymin>10</ymin><xmax>40</xmax><ymax>30</ymax>"
    item = f"<object><name>{label}</name>{marks}<bndbox>{corners}</bndbox></object>"
    return f"<annotation><filename>{filename}</filename>{item}</annotation>"


def labels_of(dataset):
    return {sample.name: [item.label for item in sample.annotation.objects] for sample in dataset}


def no_negatives(dataset):
    return dataset.summary()["negatives"] == {}


# ---- nothing known is not "nothing there" ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "labels"), [("Images", "Labels"), ("images", "labels"), ("IMAGES", "LABELS"), ("Images", "labels")]
)
def test_folders_of_labels_in_any_capitals(tmp_path, images, labels):
    picture(tmp_path / images / "train" / "a.jpg")
    write(tmp_path / labels / "train" / "a.txt", LINE)
    write(tmp_path / "data.yaml", f"train: {images}/train\nnames: [cat]\n")
    dataset = read_dataset(tmp_path, split="train")
    assert dataset[0].annotation.objects[0].box == pytest.approx((40, 32, 60, 48))
    assert (no_negatives(dataset), dataset.problems) == (True, ())


def test_images_of_which_none_has_a_label_file(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    picture(tmp_path / "runs" / "plot.jpg")
    picture(tmp_path / "masks" / "a.png")
    write(tmp_path / "labels" / "a.txt", LINE)
    write(tmp_path / "classes.txt", "cat\n")
    dataset = read_dataset(tmp_path)
    assert labels_of(dataset) == {"images/a.jpg": ["cat"]}
    assert kinds(dataset) == {"images without labels": 2} and no_negatives(dataset)
    assert "0 of 1 images have a label file in masks" in dataset.problems[0].what
    (tmp_path / "labels" / "a.txt").unlink()
    with pytest.raises(ValueError, match="no usable record.*\n.*0 of 1 images have a label file in labels or images"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    "line", ["0 .5 .5 .2 .2 .9", "0 .5 .5 .2", "cat .5 .5 .2 .2", "7 .5 .5 .2 .2", "0 40 32 20 16"]
)
def test_a_label_file_of_which_a_line_is_not_understood(tmp_path, line):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", line)
    write(tmp_path / "classes.txt", "cat\n")
    dataset = read_dataset(tmp_path)
    assert dataset[0].annotation.exhaustive == set() and no_negatives(dataset) and len(dataset.problems) == 1


SEGMENT = {"id": 3226956, "category_id": 1, "iscrowd": 0, "bbox": [10, 10, 30, 20], "area": 500}


def panoptic(*segments):
    record = {"image_id": 1, "file_name": "1.png", "segments_info": segments}
    content = {**one("1.jpg"), "annotations": [record]}
    content["categories"] = [{"id": 1, "name": "cat", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}]
    return content


@pytest.mark.parametrize(
    ("segments", "objects", "ignored", "complete"),
    [
        ([SEGMENT], 1, 0, True),
        ([SEGMENT, {**SEGMENT, "category_id": 2}], 1, 0, True),  # the sky is no object
        ([{**SEGMENT, "iscrowd": 1}], 0, 1, True),
        ([{**SEGMENT, "category_id": 9}], 0, 0, False),
        (["segment"], 0, 0, False),
    ],
)
def test_panoptic(tmp_path, segments, objects, ignored, complete):
    picture(tmp_path / "val2017" / "1.jpg")
    write(tmp_path / "annotations" / "panoptic_val2017.json", panoptic(*segments))
    annotation = read_dataset(tmp_path)[0].annotation
    assert (len(annotation.objects), len(annotation.ignored)) == (objects, ignored)
    assert ("objects" in annotation.exhaustive, annotation.is_negative) == (complete, False)
    assert [item.box for item in annotation.objects] == [BOX] * objects


@pytest.mark.parametrize(
    "content",
    [
        one("a.jpg", {"image_id": 1, "attributes": {"cat": True}}),  # a record of another kind
        one("a.jpg", {**CAT, "category_id": 5}),
        one("a.jpg", {**CAT, "bbox": [10, 10, 30, 20, 45]}),  # a rotated box
        one("a.jpg", {**CAT, "bbox": None}),
        one("a.jpg", {**CAT, "image_id": 7}),  # of an image that is not listed: it may be this one's
        {**one("a.jpg"), "annotations": [None]},
    ],
)
def test_coco_records_that_are_not_understood(tmp_path, content):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "instances.json", content)
    dataset = read_dataset(tmp_path)
    assert dataset[0].annotation.exhaustive == set() and no_negatives(dataset) and dataset.problems


@pytest.mark.parametrize("number", ["1", 1.0, " 1"])
def test_ids_as_other_types(tmp_path, number):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "instances.json", one("a.jpg", {**CAT, "image_id": number, "category_id": number}))
    dataset = read_dataset(tmp_path)
    assert (labels_of(dataset), dataset.problems) == ({"a.jpg": ["cat"]}, ())


def test_an_image_that_was_searched_for_some_categories_only(tmp_path):
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    write(tmp_path / "all.json", one("a.jpg", categories=("person", "cat")))
    write(tmp_path / "persons.json", one("b.jpg", categories=("person",)))
    dataset = read_dataset(tmp_path)
    assert [a.is_negative for a in dataset.annotations] == [True, False]
    assert kinds(dataset) == {"some categories not looked for": 1}


@pytest.mark.parametrize(
    ("xml", "kind"),
    [
        (voc("a.jpg", ""), "object left out"),
        (
            voc("a.jpg", "cat").replace("<object>", "<objects><object>").replace("</object>", "</object></objects>"),
            None,
        ),
        (voc("a.jpg", "cat").replace("object>", "Object>"), "object left out"),
        (voc("a.jpg", "cat").replace("bndbox", "polygon"), "box left out"),
    ],
)
def test_voc_objects_that_are_not_understood(tmp_path, xml, kind):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.xml", xml)
    dataset = read_dataset(tmp_path)
    assert dataset[0].annotation.exhaustive == set() and no_negatives(dataset)
    assert kinds(dataset) == {kind or "object left out": 1}


def test_null_is_not_none(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "data.jsonl", '{"image": "a.jpg", "objects": null}\n')
    assert read_dataset(tmp_path)[0].annotation.exhaustive == set()


def test_negatives_and_why(tmp_path):
    for name in "abc":
        picture(tmp_path / f"{name}.jpg")
    write(tmp_path / "a.txt", LINE)
    write(tmp_path / "b.txt", "\n")
    write(tmp_path / "classes.txt", "cat\n")
    reasons = {"its label file is empty": 1, "it has no label file, others of its folder have one": 1}
    assert read_dataset(tmp_path).summary()["negatives"] == reasons


# ---- ignored objects -------------------------------------------------------------------------------------------------

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


# ---- the same thing in two files -------------------------------------------------------------------------------------


def test_objects_that_two_files_tell(tmp_path):
    picture(tmp_path / "val2017" / "1.jpg")
    person = {**CAT, "id": 7, "iscrowd": 0, "area": 600}
    outlined = {**person, "segmentation": [[10, 10, 40, 10, 40, 30]]}
    pose = {**outlined, "keypoints": [0] * 51, "num_keypoints": 0}
    for name, record in (("instances", person), ("person_keypoints", pose)):
        write(tmp_path / "annotations" / f"{name}_val2017.json", one("1.jpg", record, categories=("person",)))
    dataset = read_dataset(tmp_path, split="val")
    assert labels_of(dataset) == {"val2017/1.jpg": ["person"]}
    assert dataset[0].annotation.objects[0].polygons and kinds(dataset) == {"objects told by two files": 1}


def test_lines_that_say_the_same(tmp_path):
    picture(tmp_path / "a.jpg")
    record = {"image": "a.jpg", "objects": [{"label": "cat", "box": BOX}]}
    other = {"image": "a.jpg", "objects": []}
    write(tmp_path / "one.jsonl", json.dumps(record))
    write(tmp_path / "two.jsonl", json.dumps(record))
    assert len(read_dataset(tmp_path)) == 1
    write(tmp_path / "two.jsonl", json.dumps(other))
    dataset = read_dataset(tmp_path)
    assert len(dataset) == 2 and no_negatives(dataset) and kinds(dataset) == {"duplicate image": 1}


def test_two_files_of_an_image_that_differ(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.xml", "<annotation><filename>a.jpg</filename></annotation>")
    write(tmp_path / "b.xml", voc("a.jpg", "cat"))
    dataset = read_dataset(tmp_path)
    assert no_negatives(dataset) and kinds(dataset) == {"duplicate image": 1}


# ---- which image a name means ----------------------------------------------------------------------------------------


def test_a_missing_image_is_not_that_of_another_split(tmp_path):
    picture(tmp_path / "train" / "frame_000000.jpg")
    picture(tmp_path / "val" / "frame_000001.jpg")
    names = [("frame_000000.jpg", 100, 80), ("frame_000001.jpg", 100, 80)]
    write(tmp_path / "train" / "_annotations.coco.json", coco(names, [{**CAT, "image_id": 2}], ["cat"]))
    dataset = read_dataset(tmp_path, split="train")
    assert [sample.name for sample in dataset] == ["train/frame_000000.jpg"]
    assert kinds(dataset) == {"image missing": 1}


def test_a_missing_image_is_not_that_of_another_file(tmp_path):
    for folder in ("north", "south"):
        picture(tmp_path / folder / f"{folder}.jpg")
        write(tmp_path / folder / "labels.json", one(f"{folder}.jpg", CAT))
    write(tmp_path / "north" / "labels.json", coco([("north.jpg", 100, 80), ("south.jpg", 100, 80)], [CAT], ["cat"]))
    dataset = read_dataset(tmp_path)
    assert len(dataset) == 2 and kinds(dataset) == {"image missing": 1}


def test_voc_files_that_name_each_other(tmp_path):
    for number, other, label in ((1, 2, "cat"), (2, 1, "dog")):
        picture(tmp_path / f"000{number}.jpg")
        write(tmp_path / f"000{number}.xml", voc(f"000{other}.jpg", label))
    dataset = read_dataset(tmp_path)
    assert labels_of(dataset) == {"0002.jpg": ["cat"], "0001.jpg": ["dog"]}
    assert kinds(dataset) == {"name of another file": 2}


def test_names_with_backslashes(tmp_path):
    picture(tmp_path / "train" / "img1.jpg")
    picture(tmp_path / "val" / "img1.jpg")
    write(tmp_path / "all.json", coco([(r"train\img1.jpg", 100, 80), (r"val\img1.jpg", 100, 80)], [CAT], ["cat"]))
    dataset = read_dataset(tmp_path)
    assert labels_of(dataset) == {"train/img1.jpg": ["cat"], "val/img1.jpg": []} and dataset.problems == ()


@pytest.mark.parametrize(
    ("file", "name", "reported"),
    [
        ("cafe\u0301.jpg", "caf\u00e9.jpg", False),
        ("caf\u00e9.jpg", "cafe\u0301.jpg", False),
        ("IMG_1.JPG", "img_1.jpg", False),
        ("a b.jpg", "a%20b.jpg", False),
        ("100%.jpg", "100%.jpg", False),
        ("photos/a.jpg", r".\photos\a.jpg", False),
        ("photos/a.jpg", r"C:\Users\me\photos\a.jpg", True),
        ("photos/a.jpg", "/home/me/set/photos/a.jpg", True),
        ("photos/a.jpg", "file:///home/me/photos/a.jpg", True),
        ("train2017/1.jpg", "http://images.example.org/train2017/1.jpg", False),
        ("photos/a.png", "photos/a.jpg", True),
    ],
)
def test_a_name_that_means_exactly_one_file(tmp_path, file, name, reported):
    picture(tmp_path / file)
    write(tmp_path / "instances.json", one(name, CAT))
    dataset = read_dataset(tmp_path)
    assert labels_of(dataset) == {file: ["cat"]}
    assert kinds(dataset) == ({"image found elsewhere": 1} if reported else {})


@pytest.mark.parametrize("name", ["", "\0", "a\0.jpg", "/", "..", "x" * 5000, "none.jpg", "%00.jpg"])
def test_names_of_nothing(tmp_path, name):
    picture(tmp_path / "a.jpg")
    content = coco([("a.jpg", 100, 80), (name, 100, 80)], [CAT], ["cat"])
    write(tmp_path / "instances.json", content)
    dataset = read_dataset(tmp_path)
    assert len(dataset) == 1 and sum(kinds(dataset).values()) == 1


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_folder_of_a_file_s_subset(tmp_path, split):
    for subset in ("Train", "Validation"):
        picture(tmp_path / "images" / subset / "Data" / "0001.bmp")
        write(tmp_path / "annotations" / f"instances_{subset}.json", one("Data/0001.bmp", CAT))
    folder = {"train": "Train", "val": "Validation"}[split]
    dataset = read_dataset(tmp_path, split=split)
    assert labels_of(dataset) == {f"images/{folder}/Data/0001.bmp": ["cat"]} and dataset.problems == ()


def test_names_outside_of_the_folder_only_when_asked_for(tmp_path):
    outside = picture(tmp_path / "elsewhere" / "a.jpg")
    folder = tmp_path / "set"
    names = [(str(outside), 100, 80), ("../elsewhere/a.jpg", 100, 80)]
    for name in names:
        write(folder / "instances.json", coco([name], [CAT], ["cat"]))
        with pytest.raises(ValueError, match=r"lies outside of .*; names outside of the folder are read with outside="):
            read_dataset(folder)
        assert len(read_dataset(folder, outside=True)) == 1
    (folder / "instances.json").unlink()
    write(outside.with_suffix(".txt"), LINE)
    write(folder / "train.txt", f"{outside}\n")
    for place in ("../elsewhere", str(outside.parent), "train.txt"):
        write(folder / "data.yaml", f"train: {place}\nnames: [cat]\n")
        with pytest.raises(ValueError, match="outside of .*; names outside of the folder are read with outside="):
            read_dataset(folder)
        assert len(read_dataset(folder, outside=True)) == 1


# ---- what numbers and words mean -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "points", "kind"),
    [
        ([2, 2], ".45 .45 .55 .55", None),
        ([2, 3], ".45 .45 2 .55 .55 1", None),
        ([2, 3], ".45 .45 .55 .55", "object left out"),
        ([3, 2], ".45 .45 .55 .55", "object left out"),
    ],
)
def test_keypoints_of_yolo(tmp_path, shape, points, kind):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", f"0 .5 .5 .2 .2 {points}\n")
    write(tmp_path / "data.yaml", f"names: [person]\nkpt_shape: {shape}\n")
    dataset = read_dataset(tmp_path)
    assert kinds(dataset) == ({kind: 1} if kind else {})
    if kind is None:
        (item,) = dataset[0].annotation.objects
        assert (item.box, item.polygons) == (pytest.approx((40, 32, 60, 48)), ())


@pytest.mark.parametrize("shape", ["5", "[17]", "[17, 4]", "[0, 2]", "[a, b]"])
def test_keypoints_that_are_none(tmp_path, shape):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "data.yaml", f"names: [person]\nkpt_shape: {shape}\n")
    with pytest.raises(ValueError, match=r"kpt_shape is .*; it must be \[keypoints, 2 or 3 numbers each\]"):
        read_dataset(tmp_path)


def test_text_with_more_corners_than_four(tmp_path):
    picture(tmp_path / "img_1.jpg")
    write(tmp_path / "gt_img_1.txt", "10,10,30,8,60,10,60,30,30,28,10,30,CURVED\n10,10,60,10,60,30,10,30,GO\n")
    dataset = read_dataset(tmp_path)
    annotation = dataset[0].annotation
    assert [line.text for line in annotation.lines] == ["GO"] and annotation.exhaustive == set()
    assert kinds(dataset) == {"line left out": 1}


def test_text_that_is_all_numbers(tmp_path):
    picture(tmp_path / "img_1.jpg")
    write(tmp_path / "gt_img_1.txt", "10,10,60,10,60,30,10,30,1,200\n10,40,60,40,60,60,10,60,42\n")
    assert [line.text for line in read_dataset(tmp_path)[0].annotation.lines] == ["1,200", "42"]


@pytest.mark.parametrize("bbox", [[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1], [0.25, 0.25, 0.0625, 0.5]])
def test_shares_where_pixels_should_be(tmp_path, bbox):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "instances.json", one("a.jpg", {**CAT, "bbox": bbox, "area": 0.3}))
    dataset = read_dataset(tmp_path)
    assert dataset[0].annotation.exhaustive == set() and "shares of the image's sides" in dataset.problems[0].what


def test_sizes_given_as_text(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "instances.json", one("a.jpg", {**CAT, "bbox": [20, 20, 60, 40]}, width="200", height="160"))
    assert read_dataset(tmp_path)[0].annotation.objects[0].box == BOX


def test_names_of_classes_as_they_are_written(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", LINE)
    write(tmp_path / "data.yaml", "names: {0: 01, 1: 08, 2: 010, 3: no, 4: 1e3, 5: 12:30, 6: ' x '}\n")
    assert read_dataset(tmp_path).classes == ("01", "08", "010", "no", "1e3", "12:30", "x")


@pytest.mark.parametrize("names", ["[cat, null]", "[cat, ~]", "{0: cat, 1: }", "{a: cat}", "[]", "[[cat]]"])
def test_names_of_classes_that_are_none(tmp_path, names):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "data.yaml", f"names: {names}\n")
    with pytest.raises(ValueError, match="it must be a list of class names"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(("name", "label"), [(" cat ", "cat"), (7, "7"), ("no", "no")])
def test_names_of_categories(tmp_path, name, label):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "instances.json", one("a.jpg", CAT, categories=(name,)))
    assert labels_of(read_dataset(tmp_path)) == {"a.jpg": [label]}


@pytest.mark.parametrize("name", [None, "", True, ["cat"]])
def test_names_of_categories_that_are_none(tmp_path, name):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "instances.json", one("a.jpg", CAT, categories=(name,)))
    dataset = read_dataset(tmp_path)
    assert kinds(dataset) == {"category left out": 1, "unknown category": 1} and no_negatives(dataset)


def test_an_empty_line_among_the_names_of_classes(tmp_path):
    write(tmp_path / "classes.txt", "cat\n\ndog\n")
    with pytest.raises(ValueError, match="classes.txt: line 2 is empty"):
        read_dataset(tmp_path)


# ---- splits ----------------------------------------------------------------------------------------------------------


def test_a_word_in_the_name_of_a_project_is_no_split(tmp_path):
    for split in ("train", "val"):
        picture(tmp_path / "my_test_project" / split / f"{split}.jpg")
        write(tmp_path / "my_test_project" / split / "labels.json", one(f"{split}.jpg", CAT))
    with pytest.raises(ValueError, match="no annotation file of the split 'test', only my_test_project/train"):
        read_dataset(tmp_path, split="test")
    assert list(labels_of(read_dataset(tmp_path, split="train"))) == ["my_test_project/train/train.jpg"]


def test_yolo_s_splits_are_folders(tmp_path):
    for split in ("train", "val"):
        picture(tmp_path / "train_project" / "images" / split / "test_1.jpg")
        write(tmp_path / "train_project" / "labels" / split / "test_1.txt", LINE)
    write(tmp_path / "classes.txt", "cat\n")
    with pytest.raises(ValueError, match="no folder of images of the split 'test'"):
        read_dataset(tmp_path, split="test")
    assert len(read_dataset(tmp_path, split="train")) == len(read_dataset(tmp_path, split="val")) == 1


# ---- files that are damaged, or of other kinds -----------------------------------------------------------------------


def test_xml_in_other_encodings(tmp_path):
    for name in "abc":
        picture(tmp_path / f"{name}.jpg")
    head = '<?xml version="1.0" encoding="{}"?>'
    (tmp_path / "a.xml").write_bytes((head.format("gb2312") + voc("a.jpg", "猫")).encode("gb2312"))
    (tmp_path / "b.xml").write_bytes((head.format("klingon") + voc("b.jpg", "cat")).encode())
    write(tmp_path / "c.xml", voc("c.jpg", "dog"))
    dataset = read_dataset(tmp_path)
    assert labels_of(dataset) == {"a.jpg": ["猫"], "c.jpg": ["dog"]}
    assert [(problem.file, problem.kind) for problem in dataset.problems] == [("b.xml", "record left out")]


@pytest.mark.parametrize(
    "xml",
    [
        '<!DOCTYPE a [<!ENTITY x "xx"><!ENTITY y "&x;&x;">]>' + voc("a.jpg", "&y;"),
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>' + voc("a.jpg", "&x;"),
        voc("a.jpg", "cat")[:-20],
        "<annotation>" * 100_000,
        "\0" * 50 + "<annotation",
    ],
)
def test_xml_that_is_hostile(tmp_path, xml):
    for name in "ab":
        picture(tmp_path / f"{name}.jpg")
    write(tmp_path / "a.xml", xml)
    write(tmp_path / "b.xml", voc("b.jpg", "cat"))
    dataset = read_dataset(tmp_path)
    assert labels_of(dataset) == {"b.jpg": ["cat"]} and len(dataset.problems) == 1


@pytest.mark.parametrize(
    "content",
    [
        "a: &a [x, x]\nnames: *a\n",
        "names: [cat]\nb: &b {c: d}\ne: *b\n",
        "names: " + "[" * 20_000,
    ],
)
def test_yaml_that_grows(tmp_path, content):
    write(tmp_path / "data.yaml", content)
    with pytest.raises(ValueError, match="data.yaml is no YAML"):
        read_dataset(tmp_path)


def test_masks_are_not_unpacked_before_their_size_is_known(tmp_path):
    picture(tmp_path / "a.jpg")
    mask = {"size": [20_000, 25_000], "counts": [500_000_000]}
    record = {"image": "a.jpg", "objects": [{"label": "cat", "box": BOX, "mask": mask}, {"label": "dog", "mask": mask}]}
    write(tmp_path / "data.jsonl", json.dumps(record))
    dataset = read_dataset(tmp_path)
    assert labels_of(dataset) == {"a.jpg": ["cat"]} and dataset[0].annotation.exhaustive == set()
    assert "its run lengths are for 25000×20000 pixels, not 100×80" in dataset.problems[0].what
    counts = {"size": [80, 100], "counts": "o" * 10_000}
    write(tmp_path / "data.jsonl", json.dumps({**record, "objects": [{"label": "cat", "box": BOX, "mask": counts}]}))
    assert "too many characters" in read_dataset(tmp_path).problems[0].what


def test_one_bad_record_does_not_stop_the_rest(tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.jpg")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xff 0 .5 .5 .2 .2")
    write(tmp_path / "b.txt", LINE)
    write(tmp_path / "classes.txt", "cat\n")
    dataset = read_dataset(tmp_path)
    assert labels_of(dataset) == {"b.jpg": ["cat"]} and kinds(dataset) == {"record left out": 1}


def test_images_of_every_ending(tmp_path):
    formats = {"a.jfif": "JPEG", "b.ppm": "PPM", "c.mpo": "JPEG", "d.JPG": "JPEG", "e.tga": "TGA", "f.jp2": "JPEG2000"}
    for name, kind in formats.items():
        picture(tmp_path / name, format=kind)
        write(tmp_path / f"{name[0]}.txt", LINE)
    write(tmp_path / "classes.txt", "cat\n")
    dataset = read_dataset(tmp_path)
    assert labels_of(dataset) == {name: ["cat"] for name in sorted(formats)} and dataset.problems == ()


def test_what_is_passed_over_is_told(tmp_path):
    for name in "abc":
        picture(tmp_path / f"{name}.jpg")
    write(tmp_path / "a.xml", "<!-- " + "a long comment " * 100 + "-->" + voc("a.jpg", "cat"))
    write(tmp_path / "b.xml", "")
    write(tmp_path / "c.xml", "<settings/>")
    dataset = read_dataset(tmp_path)
    assert labels_of(dataset) == {"a.jpg": ["cat"]}
    assert [(problem.file, problem.kind) for problem in dataset.problems] == [
        ("b.xml", "file passed over"),
        ("c.xml", "file passed over"),
    ]


def test_images_many_folders_down(tmp_path):
    picture(tmp_path / "images" / "1" / "2" / "3" / "4" / "5" / "6" / "a.jpg")
    write(tmp_path / "labels" / "1" / "2" / "3" / "4" / "5" / "6" / "a.txt", LINE)
    (tmp_path / "images" / "loop").symlink_to(tmp_path / "images", target_is_directory=True)
    write(tmp_path / "classes.txt", "cat\n")
    assert labels_of(read_dataset(tmp_path)) == {"images/1/2/3/4/5/6/a.jpg": ["cat"]}


# ---- turned images ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "kind"), [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tif", "TIFF")])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_images_have_the_size_that_is_decoded(tmp_path, ending, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = (100, 80)
    image = picture(tmp_path / f"a.{ending}", stored, format=kind, exif=exif)
    write(tmp_path / "a.txt", "0 .5 .5 .2 .9\n")
    write(tmp_path / "classes.txt", "cat\n")
    sample = read_dataset(tmp_path)[0]
    upright = stored if orientation < 5 else stored[::-1]
    assert sample.load().size == sample.annotation.size_wh == upright
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "a.txt").unlink()
    content = {**one(image.name, {**CAT, "bbox": [10, 10, 30, 65]})}
    content["images"][0] |= {"width": upright[0], "height": upright[1]}
    write(tmp_path / "instances.json", content)
    assert read_dataset(tmp_path)[0].annotation.objects[0].box == (10, 10, 40, 75)


# ---- formats of the trade --------------------------------------------------------------------------------------------


def answer(tmp_path, prefix, suffix):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "annotations.jsonl", json.dumps({"image": "a.jpg", "prefix": prefix, "suffix": suffix}))
    return read_dataset(tmp_path)[0].annotation


def test_prompts_and_answers_as_lines(tmp_path):
    annotation = answer(tmp_path, "<OD>", "cat<loc_100><loc_125><loc_400><loc_375>dog<loc_0><loc_0><loc_9><loc_9>")
    assert [item.label for item in annotation.objects] == ["cat", "dog"] and annotation.exhaustive == {"objects"}
    assert annotation.objects[0].box == pytest.approx(BOX, abs=0.1)
    assert answer(tmp_path, "<OD>", "").is_negative
    quads = answer(tmp_path, "<OCR_WITH_REGION>", "GO" + "".join(f"<loc_{n}>" for n in (1, 1, 90, 1, 90, 9, 1, 9)))
    assert [line.text for line in quads.lines] == ["GO"]
    assert answer(tmp_path, "<DETAILED_CAPTION>", "a cat").captions == ("", "a cat")
    regions = answer(tmp_path, "<DENSE_REGION_CAPTION>", "a red cat<loc_1><loc_1><loc_90><loc_90>").objects
    assert (regions[0].label, regions[0].phrase) == ("", "a red cat")
    grounded = answer(tmp_path, "<CAPTION_TO_PHRASE_GROUNDING>a cat", "cat<loc_1><loc_1><loc_90><loc_90>" * 2)
    assert (grounded.captions, grounded.expressions[0].objects, grounded.exhaustive) == (("a cat",), (0, 1), set())
    for prefix in ("<VQA>how many?", "how many?"):
        assert answer(tmp_path, prefix, "two").questions[0].answer == "two"
    assert len(answer(tmp_path, "<REGION_PROPOSAL>", "<loc_1><loc_1><loc_90><loc_90>").objects) == 1


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [
        ("<OD>", "cat"),
        ("<OD>", "cat<loc_1><loc_2>"),
        ("<OD>", "cat<loc_1><loc_2><loc_3><loc_1000>"),
        ("<OD>", "<loc_1><loc_1><loc_9><loc_9>"),
        ("<REGION_TO_CATEGORY><loc_1><loc_1><loc_9><loc_9>", "cat"),
        ("<UNKNOWN>", "cat"),
        ("<CAPTION>", ""),
        ("<OD>", 5),
    ],
)
def test_answers_that_cannot_be_read(tmp_path, prefix, suffix):
    with pytest.raises(ValueError, match="line 1: record left out"):
        answer(tmp_path, prefix, suffix)


def test_paddleocr(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    square = [[10, 10], [60, 10], [60, 30], [10, 30]]
    curved = [[10, 10], [30, 8], [60, 10], [60, 30], [30, 28], [10, 30]]
    texts = [
        {"transcription": "GO", "points": square, "difficult": False},
        {"transcription": "CURVED", "points": curved},
        {"transcription": "###", "points": square},
        {"transcription": "hard", "points": square, "difficult": True},
    ]
    write(tmp_path / "Label.txt", f"images/a.jpg\t{json.dumps(texts)}\n")
    dataset = read_dataset(tmp_path)
    annotation = dataset[0].annotation
    assert [(line.text, line.quad) for line in annotation.lines] == [
        ("GO", (10, 10, 60, 10, 60, 30, 10, 30)),
        ("CURVED", (10, 10, 60, 10, 60, 30, 10, 30)),
    ]
    assert len(annotation.ignored_lines) == 2 and annotation.exhaustive == {"lines"}
    assert kinds(dataset) == {"outline made a quad": 1}
    write(tmp_path / "Label.txt", f"images/a.jpg\t{json.dumps([*texts, {'transcription': 'x', 'points': [[1, 2]]}])}\n")
    assert read_dataset(tmp_path)[0].annotation.exhaustive == set()


def test_rotated_boxes_of_voc(tmp_path):
    picture(tmp_path / "a.jpg")
    turned = "<robndbox><cx>50</cx><cy>40</cy><w>40</w><h>20</h><angle>1.5707963</angle></robndbox>"
    write(tmp_path / "a.xml", f"<annotation><object><name>ship</name>{turned}</object></annotation>")
    (item,) = read_dataset(tmp_path)[0].annotation.objects
    assert item.box == pytest.approx((40, 20, 60, 60), abs=1e-4) and len(item.polygons[0]) == 4
