"""Answers of a checkpoint, written as rows of parquet files, as annotations."""

import dataclasses
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from florence_lite.answers import Instance
from florence_lite.data import ReferringExpression, Region, read_dataset
from florence_lite.data.rows import AnswerRow, ImageSource, Query, int64_of, schema, to_record
from florence_lite.results import Result
from tests.data.annotated import rectangle
from tests.data.files import kinds, picture, turned

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SIZE = (100, 80)
CAT, DOG = (10.0, 10.0, 40.0, 30.0), (50.0, 20.0, 90.0, 70.0)
SCORED = (Instance("cat", box=CAT, score=0.75), Instance("dog", box=DOG, score=0.5))


def source_of(path, size=SIZE):
    content = path.read_bytes()
    return ImageSource(int64_of(content), str(path), size, len(content))


def answer(image, task, *instances, text="", checkpoint="nano", tag="", asked=None, phrases=None, region=None, **more):
    query = Query(task, checkpoint, checkpoint, asked, phrases, region, tag=tag)
    return AnswerRow(image, query, Result(task, image.size_wh, text, instances, **more))


def write_part(folder: Path, rows, name="0.parquet", without=()) -> Path:
    """A part of some rows, without some of the columns."""
    table = pa.Table.from_pylist([to_record(row) for row in rows], schema()).drop_columns(list(without))
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "parts" / name)
    return folder


@pytest.fixture
def image(tmp_path):
    return source_of(picture(tmp_path / "photos" / "a.jpg"))


def known(tmp_path, *rows):
    return read_dataset(write_part(tmp_path / "out", rows))[0].annotation


def test_all_answers_about_an_image_are_one_annotation(tmp_path, image):
    quad = (10, 10, 40, 10, 40, 20, 10, 20)
    near = (11.0, 10.0, 40.0, 30.0)  # the cat, placed a little differently
    rows = [
        answer(image, "<CAPTION>", text="a cat"),
        answer(image, "<MORE_DETAILED_CAPTION>", text="a cat and a dog"),
        answer(image, "<OPEN_VOCABULARY_DETECTION>", Instance("the pet", box=near), phrases=("the pet", "a bus"),
               presence={"the pet": 0.9, "a bus": 0.1}),
        answer(image, "<REFERRING_EXPRESSION_SEGMENTATION>", Instance(polygons=(rectangle(*DOG),)), asked="the dog"),
        answer(image, "<OCR_WITH_REGION>", Instance("STOP", quad=quad, score=0.25)),
        answer(image, "<DENSE_REGION_CAPTION>", Instance("grey cat", box=CAT), Instance("lawn", box=(0, 60, 100, 80))),
        answer(image, "<REGION_TO_DESCRIPTION>", text="a wet dog", region=DOG),
        answer(image, "<REGION_TO_SEGMENTATION>", Instance(polygons=(rectangle(*CAT),)), region=CAT),
        answer(image, "<VQA>", text="two", asked="how many pets?"),
        answer(image, "what is it?", text="a photo"),
        answer(image, "<IMAGE_TEXT_MATCHING>", text="no", asked="a bus"),
        answer(image, "<IMAGE_TEXT_MATCHING>", text="yes", asked="pets"),
        answer(image, "<OD>", *SCORED),
    ]  # fmt: skip
    dataset = read_dataset(write_part(tmp_path / "out", rows))
    found = dataset[0].annotation
    assert dataset.format == "annotated" and not dataset.problems and dataset[0].name == "a.jpg"
    assert dataset[0].image == Path(image.source) and dataset[0].load().size == SIZE
    assert [(o.label, o.box, o.phrase, o.score, bool(o.polygons)) for o in found.objects] == [
        ("cat", CAT, "grey cat", 0.75, True),
        ("dog", DOG, "a wet dog", 0.5, True),
    ]
    assert found.exhaustive == {"objects", "lines"}
    assert found.captions == ("a cat", "", "a cat and a dog") and found.more_captions == ("pets",)
    assert found.wrong_captions == ("a bus",)
    assert found.expressions == (
        ReferringExpression("a bus"),
        ReferringExpression("the pet", (0,)),
        ReferringExpression("the dog", (1,)),
    )
    assert [(line.text, line.quad, line.score) for line in found.lines] == [("STOP", quad, 0.25)]
    assert found.regions == (Region("lawn", (0, 60, 100, 80)),)
    assert [(q.question, q.answer) for q in found.questions] == [("how many pets?", "two"), ("what is it?", "a photo")]


def test_phrases_that_were_asked_for_are_labels(tmp_path, image):
    row = answer(image, "<OPEN_VOCABULARY_DETECTION>", *SCORED, phrases=("dog", "bus", "cat"))
    dataset = read_dataset(write_part(tmp_path / "out", [row]))
    found = dataset[0].annotation
    assert dataset.classes == ("dog", "bus", "cat")
    assert [(o.label, o.score) for o in found.objects] == [("cat", 0.75), ("dog", 0.5)]
    assert found.exhaustive == set() and [e.objects for e in found.expressions] == [(0,), (1,)]


def test_what_lists_all_objects(tmp_path, image):
    assert known(tmp_path, answer(image, "<OD>", *SCORED)).exhaustive == {"objects"}
    assert known(tmp_path, answer(image, "<OD>", *SCORED, truncated=True)).exhaustive == set()
    assert known(tmp_path, answer(image, "<OD>", *SCORED, parse_errors=1)).exhaustive == set()
    assert known(tmp_path, answer(image, "<OD>")).exhaustive == set()
    dense = known(tmp_path, answer(image, "<DENSE_REGION_CAPTION>", Instance("a grey cat", box=CAT)))
    assert (dense.objects[0].phrase, dense.exhaustive) == ("a grey cat", {"objects"})
    flat = known(tmp_path, answer(image, "<OD>", SCORED[0], Instance("dog", box=(5, 5, 5, 9))))
    assert flat.exhaustive == set() and len(flat.objects) == 1


def test_an_object_beyond_the_list_makes_it_incomplete(tmp_path, image):
    rows = [
        answer(image, "<OD>", SCORED[0]),
        answer(image, "<OPEN_VOCABULARY_DETECTION>", SCORED[1], phrases=("dog",)),
    ]
    dataset = read_dataset(write_part(tmp_path / "out", rows))
    assert dataset[0].annotation.exhaustive == set() and len(dataset[0].annotation.objects) == 2
    assert kinds(dataset) == {"object beyond the list": 1}


def test_an_empty_answer_is_a_negative_only_where_it_is_verified(tmp_path, image):
    row = answer(image, "<OD>")
    assert known(tmp_path, dataclasses.replace(row, verified=True)).is_negative
    assert not known(tmp_path, row).is_negative
    write_part(tmp_path / "out", [row], without=["verified"])  # as before there was the column
    assert not read_dataset(tmp_path / "out")[0].annotation.is_negative


ORDER = [{"checkpoint": "first", "tag": ""}, {"checkpoint": "second", "tag": ""}]


@pytest.mark.parametrize("run", [{"opinions": ORDER}, {"asked": [{"checkpoints": ORDER}]}])
def test_of_two_opinions_one_counts(tmp_path, image, run):
    rows = [
        answer(image, "<OD>", *SCORED, checkpoint="first"),
        answer(image, "<OD>", Instance("bus", box=CAT, score=0.9), checkpoint="second"),
    ]
    folder = write_part(tmp_path / "out", rows)
    dataset = read_dataset(folder)
    assert [o.label for o in dataset[0].annotation.objects] == ["bus"]  # the surer, where no run says another order
    assert kinds(dataset) == {"another opinion left out": 1}
    (folder / "run.json").write_text(json.dumps(run))
    assert [o.label for o in read_dataset(folder)[0].annotation.objects] == ["cat", "dog"]
    (folder / "run.json").write_text('{"opinions": [5]}')
    with pytest.raises(ValueError, match="run.json does not tell which checkpoints were asked"):
        read_dataset(folder)


def test_errors_and_lost_images_are_reported(tmp_path, image):
    lost = dataclasses.replace(image, image_id=5, source=str(tmp_path / "photos" / "lost.jpg"))
    broken = AnswerRow(ImageSource(6, str(tmp_path / "x.jpg"), (0, 0), 3), Query("<OD>", "c", "r"), None, error="bad")
    rows = [answer(image, "<OD>", *SCORED), answer(lost, "<OD>", *SCORED), broken, answer(image, "<INFILLING>")]
    dataset = read_dataset(write_part(tmp_path / "out", rows))
    assert len(dataset) == 1
    assert kinds(dataset) == {"no answer": 1, "image missing": 1, "task without a place in annotations": 1}


def test_an_image_in_a_tar(tmp_path):
    file = picture(tmp_path / "a.jpg")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(file, "photos/a.jpg")
    image = dataclasses.replace(source_of(file), source=f"{tmp_path}/shard.tar!photos/a.jpg")
    file.unlink()
    (sample,) = read_dataset(write_part(tmp_path / "out", [answer(image, "<OD>", *SCORED)]))
    assert isinstance(sample.image, bytes) and sample.load().size == SIZE and sample.name == "a.jpg"
    (tmp_path / "shard.tar").unlink()
    with pytest.raises(ValueError, match="image missing: there is no file .*shard.tar"):
        read_dataset(tmp_path / "out")


def test_objects_that_are_told_one_by_one_may_lie_on_each_other(tmp_path, image):
    near = (11.0, 10.0, 40.0, 30.0)
    rows = [answer(image, "<REGION_TO_CATEGORY>", text=text, region=box) for text, box in (("cat", CAT), ("rug", near))]
    assert [o.label for o in known(tmp_path, *rows).objects] == ["cat", "rug"]


def test_an_image_of_another_size_since(tmp_path, image):
    Image.new("RGB", (50, 40)).save(image.source)
    dataset = read_dataset(write_part(tmp_path / "out", [answer(image, "<OD>", *SCORED)]))
    assert dataset[0].annotation.objects[0].box == (5, 5, 20, 15) and kinds(dataset) == {"scaled to the image": 1}


def test_a_file_that_was_changed_and_asked_about_again(tmp_path, image):
    Image.new("RGB", SIZE, "red").save(image.source)
    now = source_of(Path(image.source))
    rows = [answer(image, "<OD>", *SCORED), answer(now, "<OD>", SCORED[0])]
    dataset = read_dataset(write_part(tmp_path / "out", rows))
    assert [[o.label for o in sample.annotation.objects] for sample in dataset] == [["cat"]]
    assert kinds(dataset) == {"image changed": 1}


def test_a_file_that_was_changed_since_is_told(tmp_path, image):
    Image.new("RGB", SIZE, "red").save(image.source)
    dataset = read_dataset(write_part(tmp_path / "out", [answer(image, "<OD>", *SCORED)]))
    assert len(dataset) == 1 and kinds(dataset) == {"image changed": 1}


def test_splits_are_folders_of_the_images(tmp_path):
    files = [picture(tmp_path / "photos" / "train" / "a.jpg"), turned(tmp_path / "photos" / "val" / "a.jpg", (80, 100))]
    images = [source_of(file) for file in files]
    folder = write_part(tmp_path / "out", [answer(image, "<OD>", *SCORED) for image in images])
    assert [sample.name for sample in read_dataset(folder)] == ["train/a.jpg", "val/a.jpg"]
    assert [sample.name for sample in read_dataset(folder, split="val")] == ["val/a.jpg"]
    with pytest.raises(ValueError, match="no image of the split 'test'"):
        read_dataset(folder, split="test")


def test_the_same_row_in_two_parts_counts_once(tmp_path, image):
    rows = [answer(image, "<OD>", *SCORED)]
    write_part(tmp_path / "out", rows, "1.parquet")
    dataset = read_dataset(write_part(tmp_path / "out", rows))
    assert len(dataset) == 1 and not dataset.problems


def test_files_that_are_no_parts(tmp_path, image):
    folder = write_part(tmp_path / "out", [answer(image, "<OD>", *SCORED)])
    (folder / "parts" / "1.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="1.parquet is no part of annotate or refine"):
        read_dataset(folder)
    pq.write_table(pa.table({"id": [1]}), folder / "parts" / "1.parquet")
    with pytest.raises(ValueError, match="it has no columns .*task"):
        read_dataset(folder)


def test_files_beside_the_parts_do_not_confuse(tmp_path, image):
    folder = write_part(tmp_path / "out", [answer(image, "<OD>", *SCORED)])
    (folder / "corrections.jsonl").write_text('{"image": "a.jpg", "objects": []}\n')
    (folder / "report.json").write_text('{"images": 1, "annotations": 2}')
    (folder / "dropped").mkdir()
    (folder / "dropped" / "0.parquet").write_bytes(b"")
    dataset = read_dataset(folder)
    assert dataset.format == "annotated" and not dataset.problems
