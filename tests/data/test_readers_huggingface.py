"""Data sets of the package `datasets`, read by a mapping of columns."""

import io

import pytest
from PIL import Image

from florence_lite.data import read_dataset
from florence_lite.data.annotation import Question, ReferringExpression
from florence_lite.data.readers import from_columns
from tests.data.files import kinds, picture

datasets = pytest.importorskip("datasets")

SIZE = (100, 80)
PICTURE = Image.new("RGB", SIZE, (90, 120, 200))
BOX = [10.0, 10.0, 30.0, 30.0]


def rows(**columns) -> datasets.Dataset:
    """One row for each of the values, beside an image."""
    count = len(next(iter(columns.values())))
    table = datasets.Dataset.from_dict({"photo": [PICTURE] * count, **columns})
    return table.cast_column("photo", datasets.Image())


def read(table, **columns):
    return from_columns(table, {"image": "photo", **columns})


@pytest.mark.parametrize(
    ("kind", "box"),
    [
        ("boxes_xyxy", [10, 10, 30, 40]),
        ("boxes_xywh", [10, 10, 20, 30]),
        ("boxes_cxcywh", [20, 25, 20, 30]),
    ],
)
def test_boxes(kind, box):
    dataset = read(rows(boxes=[[box], []], names=[["cat"], []]), labels="names", **{kind: "boxes"})
    item = dataset[0].annotation.objects[0]
    assert (item.label, item.box) == ("cat", (10, 10, 30, 40))
    assert dataset[1].annotation.objects == () and dataset[1].annotation.exhaustive == {"objects"}
    assert dataset[0].load().size == SIZE
    assert (dataset.format, dataset.problems, dataset[0].name) == ("huggingface", (), "row 0")


@pytest.mark.parametrize("nested", ["struct of lists", "list of structs"])
def test_nested_columns_and_class_numbers(nested):
    labels = datasets.ClassLabel(names=["cat", "dog"])
    if nested == "struct of lists":
        feature = {"bbox": datasets.List(datasets.List(datasets.Value("float32"))), "kind": datasets.List(labels)}
        values = [{"bbox": [BOX, BOX], "kind": [1, 0]}]
    else:
        feature = datasets.List({"bbox": datasets.List(datasets.Value("float32")), "kind": labels})
        values = [[{"bbox": BOX, "kind": 1}, {"bbox": BOX, "kind": 0}]]
    features = datasets.Features({"photo": datasets.Image(), "objects": feature})
    table = datasets.Dataset.from_dict({"photo": [PICTURE], "objects": values}, features=features)
    dataset = read(table, boxes_xyxy="objects.bbox", labels="objects.kind")
    assert [item.label for item in dataset[0].annotation.objects] == ["dog", "cat"]
    assert dataset.classes == ("cat", "dog")


def test_phrases():
    both = read(rows(boxes=[[BOX, BOX]], said=[["one", "two"]]), boxes_xyxy="boxes", phrases="said")[0].annotation
    assert both.expressions == (ReferringExpression("one", (0,)), ReferringExpression("two", (1,)))
    assert [item.phrase for item in both.objects] == ["one", "two"] and both.exhaustive == set()
    single = read(rows(box=[BOX], said=[["one", "two"]]), boxes_xyxy="box", phrases="said")[0].annotation
    assert single.expressions == (ReferringExpression("one", (0,)), ReferringExpression("two", (0,)))


def test_words():
    table = rows(
        captions=[["a cat", "one cat"]],
        long=["A cat sits."],
        asked=["how many?"],
        answers=[["2", "1", "1"]],
        corners=[[[1.0, 1, 9, 1, 9, 9, 1, 9]]],
        texts=[["STOP"]],
    )
    columns = {"caption": "captions", "paragraph": "long", "question": "asked", "answer": "answers"}
    annotation = read(table, **columns, quads="corners", texts="texts")[0].annotation
    assert annotation.captions == ("a cat", "", "A cat sits.") and annotation.more_captions == ("one cat",)
    assert annotation.questions == (Question("how many?", "1"),)
    assert annotation.lines[0].text == "STOP" and annotation.exhaustive == {"lines"}


def test_polygons():
    table = rows(boxes=[[BOX]], names=[["cat"]], outlines=[[[[10.0, 10, 30, 10, 30, 30]]]])
    dataset = read(table, boxes_xyxy="boxes", labels="names", polygons="outlines")
    assert dataset[0].annotation.objects[0].polygons == (((10, 10), (30, 10), (30, 30)),)


def test_images_are_turned_upright_and_decoded_late():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, damaged = io.BytesIO(), io.BytesIO()
    PICTURE.save(turned, "jpeg", exif=exif)
    PICTURE.save(damaged, "png")
    content = [{"bytes": turned.getvalue()}, {"bytes": b"none"}, {"bytes": damaged.getvalue()[:60]}]
    features = datasets.Features({"photo": datasets.Image(), "text": datasets.Value("string")})
    table = datasets.Dataset.from_dict({"photo": content, "text": ["x"] * 3}, features=features)
    dataset = read(table, caption="text")
    assert kinds(dataset) == {"record left out": 1} and dataset.problems[0].record == "row 1"
    assert dataset[0].annotation.size_wh == dataset[0].load().size == (80, 100)
    with pytest.raises(ValueError, match="damaged or cut short"):
        dataset[1:][0].load()


@pytest.mark.parametrize(
    ("values", "columns", "message"),
    [
        ({"boxes": [[BOX]], "names": [["a", "b"]]}, {"labels": "names"}, "it has 1 boxes for 2 labels"),
        ({"boxes": [[BOX, BOX]], "names": [["a"]]}, {"phrases": "names"}, "it has 2 boxes for 1 phrases"),
        (
            {"boxes": [[BOX]], "names": [[3]]},
            {"labels": "names"},
            "its label 3 is no word, and the column has no class",
        ),
    ],
)
def test_rows_that_are_left_out(values, columns, message):
    with pytest.raises(ValueError, match=f"no usable record of the format 'huggingface'\n.*row 0.*{message}"):
        read(rows(**values), boxes_xyxy="boxes", **columns)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (None, r'needs columns=\{"image": …\} that say .*; its columns are photo, boxes'),
        ({"labels": "boxes"}, "needs columns="),
        ({"image": "photo", "box": "boxes"}, "columns has 'box'; known are image, boxes_xyxy"),
        ({"image": "picture"}, "columns says image = 'picture', but its columns are photo, boxes"),
        ({"image": "photo", "boxes_xyxy": "boxes"}, "give one kind of boxes, with labels or phrases"),
        ({"image": "photo", "labels": "boxes"}, "columns has labels but no boxes"),
        ({"image": "photo", "quads": "boxes"}, "both quads and texts, or neither"),
        ({"image": "photo", "answer": "boxes"}, "both question and answer, or neither"),
    ],
)
def test_mappings_that_do_not_fit(columns, message):
    with pytest.raises(ValueError, match=message):
        from_columns(rows(boxes=[[BOX]]), columns)


def test_saved_data_sets_and_splits(tmp_path):
    picture(tmp_path / "a.jpg", SIZE)
    parts = {name: rows(text=[name]) for name in ("train", "validation")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    columns = {"image": "photo", "caption": "text"}
    for split, captions in ((None, ["train", "validation"]), ("val", ["validation"])):
        dataset = read_dataset(tmp_path / "saved", "huggingface", split, columns)
        assert [sample.annotation.captions[0] for sample in dataset] == captions
        assert [sample.load().size for sample in dataset] == [SIZE] * len(captions)
    with pytest.raises(ValueError, match="has no split 'test', only train, validation"):
        read_dataset(tmp_path / "saved", "huggingface", "test", columns)
    with pytest.raises(ValueError, match='was saved by datasets: read it with format="huggingface" and columns'):
        read_dataset(tmp_path / "saved")


def test_a_box_that_is_none_is_left_out_alone():
    table = rows(boxes=[[[1, 1, 5, 5], None], [None, [1, 1, 5, 5]]], names=[["cat", "dog"], ["cat", "dog"]])
    dataset = read(table, boxes_xyxy="boxes", labels="names")
    assert [[item.label for item in a.objects] for a in dataset.annotations] == [["cat"], ["dog"]]
    assert all(a.exhaustive == set() for a in dataset.annotations) and kinds(dataset) == {"box left out": 2}


def test_crowds():
    table = rows(boxes=[[BOX, BOX]], names=[["cat", "dog"]], crowd=[[True, False]])
    annotation = read(table, boxes_xyxy="boxes", labels="names", ignored="crowd")[0].annotation
    assert ([o.label for o in annotation.ignored], [o.label for o in annotation.objects]) == (["cat"], ["dog"])


def test_null_is_not_none():
    dataset = read(rows(boxes=[[BOX], None], names=[["cat"], None]), boxes_xyxy="boxes", labels="names")
    assert [a.exhaustive for a in dataset.annotations] == [{"objects"}, set()]


def test_other_formats_than_images_are_not_opened():
    """PostScript would be handed to another program."""
    features = datasets.Features({"photo": datasets.Image(), "text": datasets.Value("string")})
    postscript = {"bytes": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 80\n"}
    table = datasets.Dataset.from_dict({"photo": [postscript], "text": ["x"]}, features=features)
    with pytest.raises(ValueError, match="row 0.*is of format EPS; convert it"):
        read(table, caption="text")


def test_paths_in_rows_stay_below_the_folder(tmp_path):
    picture(tmp_path / "outside.jpg", SIZE)
    folder = tmp_path / "set"
    picture(folder / "photos" / "a.jpg", SIZE)
    paths = ["photos/a.jpg", str(folder / "photos" / "a.jpg"), "../outside.jpg", str(tmp_path / "outside.jpg")]
    datasets.Dataset.from_dict({"photo": paths, "text": list("abcd")}).save_to_disk(folder)
    columns = {"image": "photo", "caption": "text"}
    dataset = read_dataset(folder, "huggingface", columns=columns)
    assert [s.load().size for s in dataset] == [SIZE] * 2 and kinds(dataset) == {"record left out": 2}
    assert "read with outside=True" in dataset.problems[0].what
    assert len(read_dataset(folder, "huggingface", columns=columns, outside=True)) == 4


@pytest.mark.parametrize("columns", [{"boxes_xyxy": "none", "labels": "empty"}, {"quads": "empty", "texts": "none"}])
def test_null_beside_an_empty_list_is_not_none(tmp_path, columns):
    Image.new("RGB", (100, 80)).save(tmp_path / "a.png")
    rows = datasets.Dataset.from_list([{"image": str(tmp_path / "a.png"), "none": None, "empty": []}])
    assert from_columns(rows, {"image": "image", **columns})[0].annotation.exhaustive == set()


def test_a_single_parquet_file(tmp_path):
    rows(words=["a dog"]).to_parquet(tmp_path / "one.parquet")
    columns = {"image": "photo", "caption": "words"}
    dataset = read_dataset(tmp_path / "one.parquet", "huggingface", columns=columns)
    assert len(dataset) == 1 and dataset[0].load().size == SIZE
    (tmp_path / "one.csv").write_text("photo,words")
    with pytest.raises(ValueError, match="one.csv is no parquet file; give one"):
        read_dataset(tmp_path / "one.csv", "huggingface", columns=columns)
