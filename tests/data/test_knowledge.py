"""What is known of an image: what is not understood is never read as "nothing there", and nothing counts twice."""

import ast
import json
from pathlib import Path

import pytest

import florence_lite.data.readers
from florence_lite.data import read_dataset
from florence_lite.data.samples import summary_lines
from tests.data.files import BOX, CAT, LINE, coco, kinds, labels_of, no_negatives, one, picture, voc, write

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


def test_stuff_is_not_looked_for_by_files_of_objects(tmp_path):
    picture(tmp_path / "1.jpg")
    write(tmp_path / "panoptic.json", panoptic())
    write(tmp_path / "instances.json", one("1.jpg", CAT))
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("cat",) and dataset[0].annotation.exhaustive == {"objects"}


@pytest.mark.parametrize(
    "content",
    [
        one("a.jpg", {"image_id": 1, "attributes": {"cat": True}}),  # a record of another kind
        one("a.jpg", {**CAT, "category_id": 5}),
        one("a.jpg", {**CAT, "bbox": [10, 10, 30, 20, 45]}),  # a rotated box
        one("a.jpg", {**CAT, "bbox": None}),
        one("a.jpg", {**CAT, "bbox": [500, 500, 30, 20]}),  # outside: of another image or in other units
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
        (voc("a.jpg", "cat").replace("<xmin>10", "<xmin>400").replace("<xmax>40", "<xmax>440"), "box left out"),
        ('<annotation><filename>a.jpg</filename><box label="cat" xtl="1" ytl="1" xbr="9" ybr="9"/></annotation>', None),
        ("<annotation><filename>a.jpg</filename><polygon><x1>1</x1></polygon></annotation>", None),
    ],
)
def test_voc_objects_that_are_not_understood(tmp_path, xml, kind):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.xml", xml)
    dataset = read_dataset(tmp_path)
    assert dataset[0].annotation.exhaustive == set() and no_negatives(dataset)
    assert kinds(dataset) == {kind or "object left out": 1}


@pytest.mark.parametrize("element", ["<rect x='1'/>", "<shapes><shape/></shapes>", "<box label='cat' xtl='1'/>"])
def test_voc_elements_that_may_be_objects(tmp_path, element):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.xml", f"<annotation><filename>a.jpg</filename><segmented>0</segmented>{element}</annotation>")
    assert no_negatives(read_dataset(tmp_path))


def test_null_is_not_none(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "data.jsonl", '{"image": "a.jpg", "objects": null}\n')
    assert read_dataset(tmp_path)[0].annotation.exhaustive == set()


@pytest.mark.parametrize("objects", ["{}", '""', "0", "false"])
def test_what_is_no_list_is_not_an_empty_one(tmp_path, objects):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "data.jsonl", f'{{"image": "a.jpg", "objects": {objects}}}\n')
    with pytest.raises(ValueError, match="its objects is no list of objects"):
        read_dataset(tmp_path)


def test_negatives_and_why(tmp_path):
    for name in "abc":
        picture(tmp_path / f"{name}.jpg")
    write(tmp_path / "a.txt", LINE)
    write(tmp_path / "b.txt", "\n")
    write(tmp_path / "classes.txt", "cat\n")
    reasons = {"its label file is empty": 1, "it has no label file, others of its folder have one": 1}
    assert read_dataset(tmp_path).summary()["negatives"] == reasons


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/a.jpg", "labels/train/A.txt"),
        ("images/train/a.jpg", "labels/train/a.TXT"),
        ("images/train/a.jpg", "labels/train/a.jpg.txt"),
        ("images/caf\u00e9.jpg", "labels/cafe\u0301.txt"),
        ("a.v2.jpg", "a.v2.txt"),
    ],
)
def test_names_of_label_files_in_any_spelling(tmp_path, image, label):
    picture(tmp_path / image)
    write(tmp_path / label, LINE)
    write(tmp_path / "classes.txt", "cat\n")
    dataset = read_dataset(tmp_path)
    assert (labels_of(dataset), dataset.problems) == ({image: ["cat"]}, ())


def test_label_files_that_belong_to_no_image(tmp_path):
    """One of them may be meant for the image that seems to have none."""
    for name in ("a", "b"):
        picture(tmp_path / "images" / f"{name}.jpg")
    for name in ("a", "image_b"):
        write(tmp_path / "labels" / f"{name}.txt", LINE)
    write(tmp_path / "classes.txt", "cat\n")
    dataset = read_dataset(tmp_path)
    assert no_negatives(dataset) and kinds(dataset) == {"label files without an image": 1}
    assert "1 label files belong to no image, such as image_b.txt" in dataset.problems[0].what


def test_a_coco_record_with_a_caption_and_a_box(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "instances.json", one("a.jpg", {**CAT, "caption": "a cat"}))
    annotation = read_dataset(tmp_path)[0].annotation
    assert (annotation.captions, [(item.label, item.phrase) for item in annotation.objects]) == ((), [("cat", "a cat")])


def test_images_of_which_nothing_was_understood_are_counted(tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.jpg")
    write(tmp_path / "a.txt", LINE)
    write(tmp_path / "b.txt", "7 0.5 0.5 0.2 0.2\n")
    write(tmp_path / "classes.txt", "cat\n")
    summary = read_dataset(tmp_path).summary()
    assert (summary["negatives"], summary["incomplete"], summary["unknown"]) == ({}, 0, 1)
    assert any(line.startswith("unknown, images") and line.endswith(": 1") for line in summary_lines(summary))


@pytest.mark.parametrize("key", ["annotations", "objects", "labels"])
def test_objects_inside_of_coco_s_images(tmp_path, key):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "instances.json", one("a.jpg", **{key: [CAT]}))
    dataset = read_dataset(tmp_path)
    assert no_negatives(dataset) and kinds(dataset) == {"annotation left out": 1}


def test_a_coco_file_of_images_without_any_annotation(tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.jpg")
    write(tmp_path / "instances.json", coco([("a.jpg", 100, 80), ("b.jpg", 100, 80)], []))
    dataset = read_dataset(tmp_path)
    assert no_negatives(dataset) and kinds(dataset) == {"not taken as empty": 1}
    assert dataset.problems[0].what == "2 images without objects; the file has no annotation at all"


@pytest.mark.parametrize("ending", ["json", "xml", "csv"])
def test_labels_of_another_format_beside_those_of_yolo(tmp_path, ending):
    for name in "ab":
        picture(tmp_path / "images" / f"{name}.jpg")
    write(tmp_path / "labels" / "a.txt", LINE)
    write(tmp_path / "labels" / f"b.{ending}", "cat")
    write(tmp_path / "classes.txt", "cat\n")
    dataset = read_dataset(tmp_path, "yolo")
    assert no_negatives(dataset) and kinds(dataset) == {"label file of another format": 1}


@pytest.mark.parametrize("line", ["0 .5 .5 .2 .2 1 2", "0 .5 .5 .2 .2 .45 .45 2 .55 .55 1"])
def test_keypoints_without_their_shape_are_no_outline(tmp_path, line):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", line)
    write(tmp_path / "classes.txt", "cat\n")
    dataset = read_dataset(tmp_path)
    assert dataset[0].annotation.exhaustive == set() and kinds(dataset) == {"object left out": 1}
    assert "keypoints need a kpt_shape" in dataset.problems[0].what


def test_a_key_that_stands_twice(tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.jpg")
    lines = (
        '{"image": "a.jpg", "objects": [{"label": "cat", "box": [1, 1, 9, 9]}], "objects": []}\n{"image": "b.jpg"}\n'
    )
    write(tmp_path / "data.jsonl", lines)
    dataset = read_dataset(tmp_path)
    assert [sample.name for sample in dataset] == ["b.jpg"] and kinds(dataset) == {"record left out": 1}


def test_text_outside_of_the_image(tmp_path):
    picture(tmp_path / "img_1.jpg")
    write(tmp_path / "gt_img_1.txt", "500,500,600,500,600,520,500,520,STOP\n")
    dataset = read_dataset(tmp_path)
    assert dataset[0].annotation.exhaustive == set() and kinds(dataset) == {"quad left out": 1}


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


def test_only_frames_make_annotations():
    """They know what was not understood; an annotation made elsewhere could not."""
    readers = Path(florence_lite.data.readers.__file__).parent
    made = {
        file.name
        for file in readers.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Annotation"
    }
    assert made == {"frames.py"}


# ---- what says more than was understood ------------------------------------------------------------------------------


def test_an_object_with_a_caption_is_an_object(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "instances.json", one("a.jpg", {**CAT, "caption": "a cat"}))
    (item,) = read_dataset(tmp_path)[0].annotation.objects
    assert (item.label, item.phrase) == ("cat", "a cat")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("i.json", one("a.jpg", {**CAT, "bbox": [1000, 1000, 300, 200]})),  # of the picture before it was made smaller
        ("i.jsonl", {"image": "a.jpg", "objects": [], "boxes": [[10, 10, 40, 30]]}),
        ("i.jsonl", {"image": "a.jpg", "prefix": "<OD> car", "suffix": ""}),
        ("a.xml", "<annotation><filename>a.jpg</filename><items><item><box>1 2 3 4</box></item></items></annotation>"),
    ],
)
def test_no_negative_that_says_more(tmp_path, file, content):
    picture(tmp_path / "a.jpg")
    write(tmp_path / file, content)
    assert no_negatives(read_dataset(tmp_path))


@pytest.mark.parametrize("value", [0, "", False, {}])
def test_what_is_no_list_is_no_empty_one(tmp_path, value):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "i.jsonl", json.dumps({"image": "a.jpg", "objects": value}))
    with pytest.raises(ValueError, match="its objects is no list"):
        read_dataset(tmp_path)


def test_places_of_another_model_are_no_answers_to_questions(tmp_path):
    picture(tmp_path / "a.jpg")
    answer = {"image": "a.jpg", "prefix": "detect cat", "suffix": "<loc0100><loc0125><loc0400><loc0375> cat"}
    write(tmp_path / "i.jsonl", json.dumps(answer))
    with pytest.raises(ValueError, match="cannot be read as an annotation"):
        read_dataset(tmp_path)


def test_two_tellings_of_the_text_of_an_image(tmp_path):
    picture(tmp_path / "img_1.jpg")
    write(tmp_path / "gt_img_1.txt", "")
    write(tmp_path / "img_1.txt", "10,10,60,10,60,30,10,30,GO\n")
    (annotation,) = read_dataset(tmp_path).annotations
    assert annotation.exhaustive == set()


def test_two_lines_of_a_label_file_about_an_image(tmp_path):
    picture(tmp_path / "a.jpg")
    text = json.dumps([{"transcription": "GO", "points": [[10, 10], [40, 10], [40, 30], [10, 30]]}])
    write(tmp_path / "Label.txt", f"a.jpg\t{text}\na.jpg\t[]\n")
    (annotation,) = read_dataset(tmp_path).annotations
    assert annotation.exhaustive == set()


@pytest.mark.parametrize("line", ["10,10,60,10,60,30,30,35,10,30,GO", "10,10,60,30,1,4,0,0"])  # five corners; no text
def test_numbers_that_may_be_no_text(tmp_path, line):
    picture(tmp_path / "img_1.jpg")
    write(tmp_path / "img_1.txt", f"{line}\n")
    annotation = read_dataset(tmp_path)[0].annotation
    assert (annotation.lines, annotation.exhaustive) == ((), set())


def test_expressions_about_images_of_the_same_name(tmp_path):
    names = ("a/1.jpg", "b/1.jpg")
    for name in names:
        picture(tmp_path / name)
    write(tmp_path / "i.json", coco([(name, 100, 80) for name in names], [CAT, {**CAT, "image_id": 2}]))
    write(tmp_path / "refs.json", [{"file_name": "a/1.jpg", "bbox": [10, 10, 30, 20], "caption": "it"}])
    dataset = read_dataset(tmp_path)
    assert {s.name: len(s.annotation.expressions) for s in dataset} == {"a/1.jpg": 1, "b/1.jpg": 0}


def test_an_expression_that_means_an_unknown_object(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "i.json", one("a.jpg"))
    write(tmp_path / "refs.json", [{"image_id": 1, "ann_id": 9, "caption": "it"}])
    assert no_negatives(read_dataset(tmp_path))


@pytest.mark.parametrize("key", ["neg_category_ids", "not_exhaustive_category_ids"])
@pytest.mark.parametrize("value", [None, "[2]", {}])
def test_lists_of_lvis_that_are_none(tmp_path, key, value):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "lvis.json", one("a.jpg", CAT, **{key: value}))
    assert read_dataset(tmp_path)[0].annotation.expressions == ()


def test_an_image_of_lvis_that_does_not_say_what_was_searched_for(tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.jpg")
    content = coco([("a.jpg", 100, 80), ("b.jpg", 100, 80)], [CAT], ["cat"])
    content["images"][0]["neg_category_ids"] = []
    write(tmp_path / "lvis.json", content)
    assert no_negatives(read_dataset(tmp_path))
