"""What numbers and words of files mean, also of damaged and hostile ones."""

import json

import pytest
from PIL import Image

from florence_lite.data import read_dataset
from tests.data.files import BOX, CAT, LINE, kinds, labels_of, no_negatives, one, picture, voc, write

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
