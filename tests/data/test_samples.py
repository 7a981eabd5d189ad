"""Data sets as sequences, and how their format and images are found."""

import pytest
from PIL import Image

from florence_lite.data import read_dataset
from florence_lite.data.annotation import Annotation, ObjectAnnotation, Region
from florence_lite.data.readers import READERS
from florence_lite.data.samples import Dataset, Problem, Sample
from tests.data.annotated import ANNOTATED, SIZE
from tests.data.files import coco, kinds, picture, turned, write

PICTURE = Image.new("RGB", SIZE)
BOXED = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]}


def test_a_data_set_is_a_sequence_of_samples():
    dataset = Dataset.of([Sample(PICTURE, ANNOTATED, f"image {n}") for n in range(5)], format="jsonl")
    assert [sample.name for sample in dataset] == [f"image {n}" for n in range(5)]
    assert (len(dataset[1:4]), dataset[1:4][-1].name, dataset[-1].name) == (3, "image 3", "image 4")
    assert dataset[::2][1:][0].name == "image 2"
    assert dataset[1:4].format == "jsonl"
    assert dataset.classes == ("dog", "door")


def test_images_are_read_when_asked_for():
    class Untouched(list):
        def __getitem__(self, index):
            raise RuntimeError("read")

    dataset = Dataset(Untouched([1, 2, 3]), (ANNOTATED,) * 3, ("a", "b", "c"))
    assert dataset[1:].summary()["objects"] == 6
    with pytest.raises(RuntimeError, match="read"):
        dataset[1:][0]


def test_summary_counts():
    problems = (Problem("a.json", "1", "x", "box clipped"), Problem("a.json", "2", "x", "box clipped"))
    annotations = ANNOTATED, Annotation(SIZE), Annotation(SIZE, exhaustive=frozenset())
    dataset = Dataset([PICTURE] * 3, annotations, ("a", "b", "c"), problems=problems)
    assert dataset.summary() == {
        "images": 3,
        "negatives": {"no objects": 1},
        "incomplete": 0,
        "unknown": 1,
        "objects": 3,
        "outlined": 3,
        "ignored": 0,
        "lines": 2,
        "captions": 3,
        "expressions": 4,
        "questions": 2,
        "regions": 0,
        "problems": {"box clipped": 2},
    }
    assert str(problems[0]) == "a.json: 1: box clipped: x"


def test_parts_of_different_length():
    with pytest.raises(ValueError, match="1 images, 2 annotations and 1 names"):
        Dataset([PICTURE], (ANNOTATED, ANNOTATED), ("a",))


def test_a_sample_loads_only_what_fits_its_annotation():
    assert Sample(PICTURE, ANNOTATED, "a").load().size == SIZE
    with pytest.raises(ValueError, match=r"image a is \(10, 10\), its annotation is for \(100, 80\)"):
        Sample(Image.new("RGB", (10, 10)), ANNOTATED, "a").load()


def test_masks_become_outlines():
    item = ObjectAnnotation.from_mask("dog", [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]], tolerance=0)
    assert item.box == (1.0, 1.0, 3.0, 3.0)
    assert set(item.polygons[0]) == {(1.0, 1.0), (3.0, 1.0), (3.0, 3.0), (1.0, 3.0)}
    with pytest.raises(ValueError, match="object 'dog': its mask is empty"):
        ObjectAnnotation.from_mask("dog", [[0, 0]])


def test_regions_and_lists_are_checked():
    with pytest.raises(ValueError, match="has no text"):
        Region(" ", (0, 0, 5, 5))
    with pytest.raises(ValueError, match="region 'a lawn': box .* must have"):
        Region("a lawn", (5, 0, 5, 5))
    with pytest.raises(ValueError, match=r"exhaustive holds \['words'\]; it may hold objects, lines"):
        Annotation(SIZE, exhaustive=frozenset({"words"}))


# ---- formats ---------------------------------------------------------------------------------------------------------

FILES = {  # a smallest data set of each format
    "coco": ("instances.json", coco([("a.jpg", 100, 80)], [BOXED])),
    "voc": (
        "Annotations/a.xml",
        "<annotation><filename>a.jpg</filename><size><width>100</width><height>80</height></size></annotation>",
    ),
    "yolo": ("classes.txt", "cat\ndog\n"),
    "jsonl": ("data.jsonl", '{"image": "a.jpg"}\n'),
    "refcoco": ("refs.json", [{"image_id": 1, "caption": "the cat", "bbox_xyxy": None}]),
    "icdar": ("gt_a.txt", "1,1,30,1,30,9,1,9,STOP\n"),
    "paddleocr": ("Label.txt", 'a.jpg\t[{"transcription": "GO", "points": [[1, 1], [30, 1], [30, 9], [1, 9]]}]\n'),
    "labelstudio": ("tasks.json", [{"data": {"image": "/data/local-files/?d=a.jpg"}, "annotations": [{"result": []}]}]),
    "captions": ("a.txt", "a cat\n"),
}


@pytest.mark.parametrize("format", FILES)
def test_formats_are_recognised(tmp_path, format):
    picture(tmp_path / "a.jpg")
    write(tmp_path / FILES[format][0], FILES[format][1])
    if format == "refcoco":
        write(tmp_path / FILES["coco"][0], FILES["coco"][1])
    if format == "yolo":
        write(tmp_path / "a.txt", "0 .5 .5 .2 .2\n")
    found = read_dataset(tmp_path)
    assert (found.format, len(found), found[0].load().size) == (format, 1, (100, 80))
    assert any(FILES[format][0].split("/")[0] in line for line in found.files) or format in ("icdar", "captions")
    assert read_dataset(tmp_path, format).annotations == found.annotations
    if format != "yolo":  # whose images are not in its file
        assert read_dataset(tmp_path / FILES[format][0]).annotations == found.annotations


def test_every_format_is_among_them():
    binary = {"annotated", "webdataset"}  # whose files are no texts, and who have tests of their own
    assert FILES.keys() | binary == READERS.keys()


def test_formats_that_cannot_be_told(tmp_path):
    picture(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="is of no known format. Looked for coco: .*voc: .*format="):
        read_dataset(tmp_path)
    write(tmp_path / "data.jsonl", FILES["jsonl"][1])
    write(tmp_path / "instances.json", FILES["coco"][1])
    with pytest.raises(ValueError, match=r"several formats: coco \(instances.json\); jsonl \(data.jsonl\). Say which"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, "jsonl").format == "jsonl"
    (tmp_path / "conv" / "data").mkdir(parents=True)
    (table := tmp_path / "conv" / "data" / "train.parquet").write_bytes(b"PAR1")
    for path in (tmp_path / "conv", table):
        with pytest.raises(ValueError, match=f'^{path} holds tables, .* format="huggingface" and columns='):
            read_dataset(path)
    (tmp_path / "saved" / "train").mkdir(parents=True)
    (tmp_path / "saved" / "train" / "state.json").write_text("{}")
    with pytest.raises(ValueError, match=f'^{tmp_path}/saved/train holds tables, .* format="huggingface"'):
        read_dataset(tmp_path / "saved")
    with pytest.raises(ValueError, match="holds no files of the format 'voc': .xml"):
        read_dataset(tmp_path, "voc")
    with pytest.raises(ValueError, match="format is 'COCO'; choose auto or one of coco, voc"):
        read_dataset(tmp_path, "COCO")
    with pytest.raises(FileNotFoundError, match=r"nowhere \(looked in .*\)$"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="columns are for the format 'huggingface'"):
        read_dataset(tmp_path, "jsonl", columns={"image": "image"})


def test_nothing_usable_is_an_error(tmp_path):
    write(tmp_path / "instances.json", FILES["coco"][1])
    with pytest.raises(ValueError, match=r"no usable record of the format 'coco'\n.*a.jpg: image missing: there is no"):
        read_dataset(tmp_path)


# ---- images and coordinates, the same for all formats ----------------------------------------------------------------


def read_coco(folder, images, annotations):
    write(folder / "annotations" / "instances_train.json", coco(images, annotations))
    return read_dataset(folder)


@pytest.mark.parametrize(
    ("bbox", "box", "kind"),
    [
        ([10, 10, 20, 20], (10, 10, 30, 30), None),
        ([-5, 70, 20, 20], (0, 70, 15, 80), "box clipped"),
        ([0, 0, 100.005, 80], (0, 0, 100, 80), None),  # rounding
        ([10, 10, 0, 20], None, "box left out"),
        ([10, 10, -3, 20], None, "box left out"),
        ([100, 10, 5, 5], None, "box left out"),  # outside
        ([1, 2, 3], None, "box left out"),
        ([1, 2, 3, "x"], None, "box left out"),
        ([1, 2, 3, float("nan")], None, "box left out"),
        (None, None, "box left out"),
    ],
)
def test_boxes(tmp_path, bbox, box, kind):
    picture(tmp_path / "a.jpg")
    dataset = read_coco(tmp_path, [("a.jpg", 100, 80)], [{**BOXED, "bbox": bbox}])
    assert [item.box for item in dataset[0].annotation.objects] == ([] if box is None else [pytest.approx(box)])
    assert kinds(dataset) == ({} if kind is None else {kind: 1})
    if kind:
        assert dataset.problems[0].file == "annotations/instances_train.json"
        assert dataset.problems[0].record == "image a.jpg, annotation 1"


@pytest.mark.parametrize(
    ("declared", "box", "kind"),
    [
        ((200, 160), (5, 5, 15, 15), "scaled to the image"),
        ((300, 241), (10 / 3, 800 / 241, 10, 2400 / 241), "scaled to the image"),  # 80.3 pixels, rounded
        ((200, 200), None, "size contradicts the image"),
        ((80, 100), None, "size contradicts the image"),
        ((0, 0), (10, 10, 30, 30), None),  # unknown
        ((None, None), (10, 10, 30, 30), None),
    ],
)
def test_sizes_that_contradict_the_image(tmp_path, declared, box, kind):
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    dataset = read_coco(tmp_path, [("a.jpg", *declared), ("b.jpg", 100, 80)], [BOXED])
    boxes = [item.box for a in dataset.annotations for item in a.objects]
    assert boxes == ([] if box is None else [pytest.approx(box)])
    assert len(dataset) == (1 if box is None else 2)
    assert kinds(dataset) == ({} if kind is None else {kind: 1})


def test_exif_orientation(tmp_path):
    turned(tmp_path / "upright.jpg", (80, 100))
    turned(tmp_path / "stored.jpg", (80, 100))
    dataset = read_coco(tmp_path, [("upright.jpg", 100, 80), ("stored.jpg", 80, 100)], [BOXED])
    assert [sample.name for sample in dataset] == ["upright.jpg"]
    assert dataset[0].load().size == dataset[0].annotation.size_wh == (100, 80)
    assert "annotated before its EXIF rotation" in dataset.problems[0].what


def test_images_are_found_by_name_wherever_they_are(tmp_path):
    picture(tmp_path / "photos" / "deep" / "a.jpg")
    picture(tmp_path / "photos" / "b.png")
    picture(tmp_path / "one" / "c.jpg")
    picture(tmp_path / "two" / "c.jpg")
    write(tmp_path / "photos" / "d.jpg", "no image")
    images = [(f"{name}.jpg", 100, 80) for name in "abcde"] + [("two/c.jpg", 100, 80)]
    dataset = read_coco(tmp_path, images, [])
    assert [sample.name for sample in dataset] == ["photos/deep/a.jpg", "photos/b.png", "two/c.jpg"]
    assert kinds(dataset) == {
        **{"image missing": 2, "image unreadable": 1, "image found elsewhere": 1},
        "not taken as empty": 1,  # the file has no annotation at all
    }
    assert "could be any of one/c.jpg, two/c.jpg" in dataset.problems[1].what
    assert (dataset.problems[0].record, dataset.problems[0].what) == ("b.jpg", "it is taken to be photos/b.png")


def test_splits_by_the_names_of_files(tmp_path):
    for name in ("a", "b", "c"):
        picture(tmp_path / "images" / f"{name}.jpg")
    for split, name in (("train2017", "a"), ("val2017", "b")):
        write(tmp_path / "annotations" / f"instances_{split}.json", coco([(f"{name}.jpg", 100, 80)], []))
    write(tmp_path / "test" / "_annotations.coco.json", coco([("c.jpg", 100, 80)], []))
    names = {split: [s.name[-5] for s in read_dataset(tmp_path, split=split)] for split in ("train", "valid", "test")}
    assert names == {"train": ["a"], "valid": ["b"], "test": ["c"]}
    assert len(read_dataset(tmp_path)) == 3
    with pytest.raises(
        ValueError, match="no annotation file of the split 'dev2', only annotations/instances_train2017"
    ):
        read_dataset(tmp_path, split="dev2")
