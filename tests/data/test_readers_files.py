"""Formats with a file of annotations for each image: Pascal VOC, YOLO and ICDAR."""

import pytest

from florence_lite.data import read_dataset
from tests.data.files import kinds, picture, write

# ---- Pascal VOC ------------------------------------------------------------------------------------------------------


def voc_xml(objects: str = "", filename: str = "a.jpg", size_wh: tuple[int, int] = (100, 80)) -> str:
    size = f"<size><width>{size_wh[0]}</width><height>{size_wh[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{size}{objects}</annotation>"


def voc_object(name: str, *corners: object) -> str:
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    return f"<object><name>{name}</name><bndbox>{''.join(f'<{t}>{v}</{t}>' for t, v in tags)}</bndbox></object>"


@pytest.fixture
def voc(tmp_path):
    for name in ("a", "b", "c"):
        picture(tmp_path / "VOC" / "JPEGImages" / f"{name}.jpg")
        write(
            tmp_path / "VOC" / "Annotations" / f"{name}.xml", voc_xml(voc_object("cat", 10, 10, 30, 30), f"{name}.jpg")
        )
    write(tmp_path / "VOC" / "ImageSets" / "Main" / "train.txt", "a\nb\n")
    write(tmp_path / "VOC" / "ImageSets" / "Main" / "val.txt", "c -1\nmissing\n")
    write(tmp_path / "VOC" / "ImageSets" / "Segmentation" / "train.txt", "c\n")
    return tmp_path


def test_voc(voc):
    dataset = read_dataset(voc)
    assert [sample.name for sample in dataset] == [f"VOC/JPEGImages/{name}.jpg" for name in "abc"]
    item = dataset[0].annotation.objects[0]
    assert (item.label, item.box, dataset[0].annotation.exhaustive) == ("cat", (10, 10, 30, 30), {"objects"})
    assert (dataset.problems, dataset.classes) == ((), ("cat",))


def test_voc_splits(voc):
    assert [s.name[-5] for s in read_dataset(voc, split="train")] == ["a", "b"]
    validation = read_dataset(voc, split="val")
    assert [s.name[-5] for s in validation] == ["c"]
    assert str(validation.problems[0]).endswith("val.txt: line 2: record left out: there is no missing.xml")
    with pytest.raises(ValueError, match="no list of the split 'test', only VOC/ImageSets/Main/train.txt"):
        read_dataset(voc, split="test")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (voc_xml(voc_object("cat", 10, 10, 10, 30)), "box left out"),
        (voc_xml(voc_object("cat", 10, 10, "", 30)), "box left out"),
        (voc_xml("<object><name>cat</name></object>"), "box left out"),
        (voc_xml(voc_object("cat", 90, 10, 101, 30)), "box clipped"),
        (voc_xml(voc_object("", 10, 10, 30, 30)), "object left out"),
        (voc_xml(filename="none.jpg"), "image found elsewhere"),  # the image is called like the file
        (voc_xml(filename="none.jpg").replace("none.jpg", ""), None),
        (voc_xml(size_wh=(0, 0)), None),
        (voc_xml(size_wh=(50, 80)), "size contradicts the image"),
        ("<annotation><object></annotation>", "record left out"),
    ],
)
def test_voc_files(voc, content, kind):
    write(voc / "VOC" / "Annotations" / "a.xml", content)
    assert kinds(read_dataset(voc)) == ({} if kind is None else {kind: 1})


def test_shared_bccd(shared_data):
    counts = {split: read_dataset(shared_data / "bccd", split=split).summary() for split in ("train", "val", "test")}
    assert [counts[split]["images"] for split in counts] == [205, 87, 72]
    assert sum(counts[split]["objects"] for split in counts) == 4886
    assert [counts[split]["problems"] for split in counts] == [{"box left out": 1}, {"box left out": 1}, {}]


# ---- YOLO ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def yolo(tmp_path):
    for split, name in (("train", "a"), ("val", "b"), ("val", "empty")):
        picture(tmp_path / "images" / split / f"{name}.jpg")
    write(tmp_path / "labels" / "train" / "a.txt", "0 0.2 0.25 0.2 0.25\n1 0.5 0.25 0.9 0.25 0.9 0.75\n")
    write(tmp_path / "labels" / "val" / "b.txt", "1 .5 .5 1 1\n")
    write(tmp_path / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n")
    return tmp_path


def test_yolo(yolo):
    dataset = read_dataset(yolo)
    cat, dog = dataset[0].annotation.objects
    assert (cat.label, cat.box, cat.polygons) == ("cat", pytest.approx((10, 10, 30, 30)), ())
    assert (dog.label, dog.box) == ("dog", pytest.approx((50, 20, 90, 60)))
    assert dog.polygons == (((50, 20), (90, 20), (90, 60)),)
    assert dataset[1].annotation.objects[0].box == (0, 0, 100, 80)
    why = "it has no label file, others of its folder have one"
    assert dataset[2].annotation.objects == () and dataset.summary()["negatives"] == {why: 1}
    assert dataset.files == ("data.yaml: 2 classes", "3 images, 2 with a label file")
    assert (dataset.classes, dataset.problems) == (("cat", "dog"), ())


def test_yolo_splits(yolo):
    assert [s.name[-5] for s in read_dataset(yolo, split="train")] == ["a"]
    assert len(read_dataset(yolo, split="valid")) == 2
    with pytest.raises(ValueError, match="data.yaml has no split 'test', only train, val"):
        read_dataset(yolo, split="test")


@pytest.mark.parametrize(
    "content",
    [
        "names: [cat, dog]\ntrain: ../images/train\nval: [images/val]\n",  # as Roboflow has it
        "names: [cat, dog]\ntrain: train.txt\nval: images/val\n",
        "names: [cat, dog]\n",
    ],
)
def test_yolo_places(yolo, content):
    write(yolo / "data.yaml", content)
    write(yolo / "train.txt", "./images/train/a.jpg\n\n")
    assert len(read_dataset(yolo)) == 3
    assert [s.name for s in read_dataset(yolo, split="train")] == ["images/train/a.jpg"]
    assert len(read_dataset(yolo, split="val")) == 2


def test_yolo_with_a_list_of_names(yolo):
    (yolo / "data.yaml").unlink()
    write(yolo / "classes.txt", "cat\ndog\n")
    picture(yolo / "beside.jpg")
    write(yolo / "beside.txt", "1 0.5 0.5 0.2 0.2")
    dataset = read_dataset(yolo)
    assert len(dataset) == 4 and dataset[0].annotation.objects[0].label == "dog"
    assert [s.name for s in read_dataset(yolo, split="train")] == ["images/train/a.jpg"]
    with pytest.raises(ValueError, match="no folder of images of the split 'test'"):
        read_dataset(yolo, split="test")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("2 .5 .5 .2 .2", "unknown category"),
        ("0.5 .5 .5 .2 .2", "unknown category"),
        ("0 .5 .5 .2", "object left out"),
        ("0 .5 .5 .2 .2 .9", "object left out"),
        ("0 50 40 20 20", "object left out"),  # pixels
        ("cat .5 .5 .2 .2", "object left out"),
        ("0 .95 .5 .2 .2", "box clipped"),
        ("0 .5 .5 0 .2", "box left out"),
        ("1 .5 .5 1 1\n1 .5 .5 1 1", "duplicate object"),
    ],
)
def test_yolo_lines(yolo, line, kind):
    write(yolo / "labels" / "val" / "b.txt", line)
    dataset = read_dataset(yolo, split="val")
    assert kinds(dataset) == {kind: 1}
    assert dataset.problems[0].file == "labels/val/b.txt"


def test_yolo_lists_that_are_none(yolo):
    write(yolo / "data.yaml", "names: 5\n")
    with pytest.raises(ValueError, match="data.yaml: names is '5'; it must be a list of class names"):
        read_dataset(yolo)
    write(yolo / "data.yaml", "names: [cat\n")
    with pytest.raises(ValueError, match="data.yaml is no YAML"):
        read_dataset(yolo)


def test_yolo_folders_that_are_missing_are_told(yolo):
    write(yolo / "data.yaml", "names: [cat, dog]\ntrain: nowhere\nval: images/val\n")
    dataset = read_dataset(yolo)
    assert len(dataset) == 2 and kinds(dataset) == {"folder missing": 1}


# ---- ICDAR -----------------------------------------------------------------------------------------------------------


def read_text(folder, content, name="gt_a.txt"):
    picture(folder / "images" / "a.jpg")
    write(folder / "gt" / name, content)
    return read_dataset(folder)


@pytest.mark.parametrize("name", ["gt_a.txt", "a.txt", "a_gt.txt"])
def test_icdar(tmp_path, name):
    content = "\ufeff10,10,50,10,50,20,10,20,STOP, please\n\n 5,30,60,30,60,45,5,45,###\n9,50,30,50,30,60,9,60,1984\n"
    dataset = read_text(tmp_path, content, name)
    lines = dataset[0].annotation.lines
    assert [line.text for line in lines] == ["STOP, please", "1984"]
    assert lines[0].quad == (10, 10, 50, 10, 50, 20, 10, 20)
    assert dataset[0].annotation.exhaustive == {"lines"}
    assert dataset[0].annotation.ignored_lines[0].quad == (5, 30, 60, 30, 60, 45, 5, 45)
    assert kinds(dataset) == {}


def test_icdar_variants(tmp_path):
    dataset = read_text(tmp_path, '10, 10, 50, 20, "say ""hi"""\n')
    line = dataset[0].annotation.lines[0]
    assert (line.text, line.quad) == ('say "hi"', (10, 10, 50, 10, 50, 20, 10, 20))
    dataset = read_text(tmp_path, "10,10,50,10,50,20,10,20,Latin,STOP\n5,30,60,30,60,45,5,45,Korean,정지\n")
    assert [line.text for line in dataset[0].annotation.lines] == ["STOP", "정지"]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("-9,10,50,10,50,20,-9,20,STOP", "quad clipped"),
        ("10,20,50,20,50,10,10,10,STOP", "quad turned"),
        ("200,10,250,10,250,20,200,20,STOP", "quad left out"),
        ("10,10,10,10,10,10,10,10,STOP", "quad left out"),
        ("nan,10,50,10,50,20,10,20,STOP", "quad left out"),
        ("10,10,50,10,50,20,10,20, ", "line left out"),
        ("10,10,STOP", "line left out"),
    ],
)
def test_icdar_lines(tmp_path, line, kind):
    dataset = read_text(tmp_path, f"1,1,9,1,9,9,1,9,GO\n{line}\n")
    assert kinds(dataset) == {kind: 1}
    assert len(dataset[0].annotation.lines) == (2 if kind in ("quad clipped", "quad turned") else 1)


def test_icdar_without_its_image(tmp_path):
    write(tmp_path / "gt_b.txt", "1,1,9,1,9,9,1,9,GO\n")
    dataset = read_text(tmp_path, "1,1,9,1,9,9,1,9,GO\n")
    assert len(dataset) == 1 and kinds(dataset) == {"image missing": 1}
