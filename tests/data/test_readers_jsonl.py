"""Our own schema, read and written."""

import json

import pytest
from PIL import Image

from florence_lite.data import read_dataset
from florence_lite.data.annotation import Annotation, ObjectAnnotation, ReferringExpression, Region, TextLine
from florence_lite.data.samples import Sample
from florence_lite.data.writers import to_jsonl
from tests.data.annotated import ANNOTATED, SIZE, rectangle
from tests.data.files import kinds, picture, write

INSIDE = Annotation(  # all of the annotation that lies inside the image, with the rest of the schema
    SIZE,
    ANNOTATED.objects,
    ANNOTATED.lines[:1],
    ANNOTATED.captions,
    ANNOTATED.expressions,
    ANNOTATED.questions,
    (Region("a lawn in the sun", (1.5, 2.5, 30.0, 40.0)),),
    ("a sentence\u2028of two lines",),
    ignored=(ObjectAnnotation("dog", (1.0, 1.0, 9.0, 9.0), (rectangle(1, 1, 9, 9),)),),
    ignored_lines=(TextLine("", (1.0, 1.0, 9.0, 1.0, 9.0, 9.0, 1.0, 9.0)),),
)
PARTIAL = Annotation(SIZE, (ObjectAnnotation("", (5, 5, 10, 10)),), captions=("", "detailed"), exhaustive=frozenset())


@pytest.mark.parametrize(
    "annotation", [INSIDE, PARTIAL, Annotation(SIZE), Annotation(SIZE, exhaustive=frozenset({"lines"}))]
)
def test_round_trip(tmp_path, annotation):
    path = picture(tmp_path / "photos" / "ä 1.png", SIZE)
    (tmp_path / "lists").mkdir()
    file = to_jsonl(
        [Sample(path, annotation, "a"), Sample(Image.new("RGB", SIZE), annotation, "b")], tmp_path / "lists" / "x.jsonl"
    )
    dataset = read_dataset(file, outside=True)
    assert dataset.annotations == (annotation, annotation)
    assert dataset.problems == ()
    assert [s.image.resolve().relative_to(tmp_path).as_posix() for s in dataset] == [
        "photos/ä 1.png",
        "lists/x_images/000001.png",
    ]


def test_only_jsonl_is_written(tmp_path):
    with pytest.raises(ValueError, match="x.json must end in .jsonl"):
        to_jsonl([], tmp_path / "x.json")


def read_record(folder, **record):
    picture(folder / "a.png", SIZE)
    picture(folder / "b.png", SIZE)
    write(folder / "data.jsonl", '{"image": "b.png"}\n\n' + json.dumps({"image": "a.png", **record}))
    return read_dataset(folder)


def test_what_is_left_out_is_unknown_and_what_is_empty_is_none(tmp_path):
    assert read_record(tmp_path)[1].annotation.exhaustive == set()
    assert read_record(tmp_path, objects=[])[1].annotation.exhaustive == {"objects"}
    assert read_record(tmp_path, objects=[], lines=[], exhaustive=["lines"])[1].annotation.exhaustive == {"lines"}


def test_masks_and_polygons_give_the_box(tmp_path):
    square = {"label": "a", "polygons": [[[10, 10], [30, 10], [30, 30], [10, 30]]]}
    mask = {"label": "b", "mask": {"size": [80, 100], "counts": [10 * 80 + 10, 20, 60, 20, 80 * 100 - 910]}}
    objects = read_record(tmp_path, objects=[square, mask])[1].annotation.objects
    assert [item.box for item in objects] == [(10, 10, 30, 30), (10, 10, 12, 30)]
    assert len(objects[1].polygons) == 1


def test_coordinates_in_another_size(tmp_path):
    record = {"objects": [{"label": "a", "box": [20, 20, 60, 60]}], "size_wh": [200, 160]}
    dataset = read_record(tmp_path, **record)
    assert dataset[1].annotation.objects[0].box == (10, 10, 30, 30)
    assert kinds(dataset) == {"scaled to the image": 1}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"objects": [{"label": "a", "bbox": [1, 1, 5, 5]}]},
            "objects[0]: box left out: it has no \"box\", only 'label', 'bbox'",
        ),
        ({"regions": [{"text": "a"}]}, "regions[0]: box left out: it has no \"box\", only 'text'"),
        (
            {"lines": [{"text": "a", "box": [1, 1, 5, 5]}]},
            "lines[0]: quad left out: it has no \"quad\", only 'text', 'box'",
        ),
    ],
)
def test_a_place_under_another_key_is_named(tmp_path, record, message):
    dataset = read_record(tmp_path, **record)
    assert [str(problem).partition(", ")[2] for problem in dataset.problems] == [message]
    assert not dataset[1].annotation.exhaustive


def test_references_follow_the_objects_that_remain(tmp_path):
    boxes = [[5, 5, 5, 9], [10, 10, 30, 30]]
    dataset = read_record(
        tmp_path,
        objects=[{"label": "a", "box": box} for box in boxes],
        expressions=[{"phrase": "first", "objects": [0]}, {"phrase": "second", "objects": [1]}, {"phrase": "none"}],
    )
    assert dataset[1].annotation.expressions == (ReferringExpression("second", (0,)), ReferringExpression("none"))
    assert kinds(dataset) == {"box left out": 1, "phrase left out": 1}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"image": 5}, 'it has no "image"'),
        ({"size_wh": [0, 5]}, "its size_wh is [0, 5]"),
        ({"objects": {"label": "a"}}, "its objects is no list of objects"),
        ({"objects": [{"box": [1, 1, 5, 5]}]}, "objects[0] has neither label nor phrase"),
        ({"objects": [{"label": 5, "box": [1, 1, 5, 5]}]}, "objects[0]: its label is 5; it must be a text"),
        ({"objects": [{"label": "a", "polygons": [[1, 2, 3]]}]}, "objects[0]: its polygons are no lists"),
        ({"lines": [{"quad": [1, 1, 9, 1, 9, 9, 1, 9]}]}, "lines[0]: its text is None"),
        ({"captions": "a dog"}, "its captions is 'a dog'; it must be a list of texts"),
        ({"expressions": [{"phrase": "a", "objects": [0]}]}, "expressions[0]: objects is [0]"),
        ({"expressions": [{"phrase": "a", "objects": ["x"]}]}, "expressions[0]: objects is ['x']"),
        ({"questions": [{"question": "a?"}]}, "questions[0]: its answer is None"),
        ({"regions": [{"box": [1, 1, 5, 5]}]}, "regions[0]: its text is None"),
        ({"exhaustive": ["words"]}, "its exhaustive is ['words']"),
    ],
)
def test_records_that_are_left_out(tmp_path, record, message):
    dataset = read_record(tmp_path, **record)
    assert len(dataset) == 1
    assert dataset.problems[0].what.startswith(message)
    assert (dataset.problems[0].file, dataset.problems[0].record) == ("data.jsonl", "line 3")


def test_lines_that_are_no_json_and_keys_that_are_unknown(tmp_path):
    picture(tmp_path / "a.png", SIZE)
    write(tmp_path / "data.jsonl", '{"image": "a.png", "lables": []}\n{"image": "a.png",\n{"image": "none.png"}\n')
    dataset = read_dataset(tmp_path)
    assert [problem.kind for problem in dataset.problems] == ["unknown key", "record left out", "image missing"]
    assert "lables: known are image, size_wh" in dataset.problems[0].what
