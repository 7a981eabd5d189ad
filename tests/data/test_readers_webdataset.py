"""Tars of pictures with texts, and texts beside pictures."""

import io
import json
import tarfile

import pytest

from florence_lite.data import read_dataset
from tests.data.files import kinds, picture, write


def shard(path, files, content=None):
    """A tar of files: name → content; None for a picture."""
    image = content or picture(path.parent / "x" / "p.jpg").read_bytes()
    with tarfile.open(path, "w") as tar:
        for name, text in files.items():
            data = image if text is None else text if isinstance(text, bytes) else text.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


OBJECTS = json.dumps({"objects": [{"label": "cat", "box": [10, 10, 40, 30], "score": 0.5}]})


def test_our_own_schema_and_captions_of_others(tmp_path):
    files = {
        "a/1.jpg": None,
        "a/1.json": OBJECTS,
        "a/1.txt": "ignored: the JSON says more",
        "a/2.jpg": None,
        "a/2.txt": "two",
    }
    files |= {
        "3.JPG": None,
        "3.json": json.dumps({"caption": "three", "url": "https://…"}),
        "4.caption": "four",
        "4.png": None,
    }
    dataset = read_dataset(shard(tmp_path / "00000.tar", files))
    assert (dataset.format, len(dataset), dataset.problems) == ("webdataset", 4, ())
    first, *others = dataset
    assert [(item.label, item.score) for item in first.annotation.objects] == [("cat", 0.5)]
    assert first.annotation.exhaustive == {"objects"} and not first.annotation.captions
    assert [(each.name, each.annotation.captions) for each in others] == [
        ("a/2", ("two",)),
        ("3", ("three",)),
        ("4", ("four",)),
    ]
    assert all(each.load().size == (100, 80) and isinstance(each.image, bytes) for each in dataset)


def test_what_cannot_be_used_is_reported(tmp_path):
    files = {"1.jpg": None, "1.json": OBJECTS, "1.mp3": b"x", "2.json": OBJECTS, "3.jpg": b"no image", "3.txt": "three"}
    files |= {"4.jpg": None, "4.json": "{", "5.jpg": None, "5.json": "[]", "6.jpg": None, "6.txt": b"\xff"}
    files |= {"7.jpg": None, "7.json": json.dumps({"size_wh": [80, 10], "objects": []})}
    dataset = read_dataset(shard(tmp_path / "00000.tar", files))
    assert len(dataset) == 1
    assert kinds(dataset) == {
        "file passed over": 1,
        "image missing": 1,
        "image unreadable": 1,
        "record left out": 3,
        "size contradicts the image": 1,
    }


def numbered(count):
    return {f"{n}.{ending}": None if ending == "jpg" else "words" for n in range(count) for ending in ("jpg", "txt")}


def test_a_tar_that_is_cut_short(tmp_path):
    path = shard(tmp_path / "00000.tar", numbered(9))
    path.write_bytes(path.read_bytes()[:6000])
    dataset = read_dataset(path)
    assert 0 < len(dataset) < 9 and kinds(dataset) == {"tar damaged or cut short": 1}


def test_a_tar_with_a_damaged_member(tmp_path):
    path = shard(tmp_path / "00000.tar", numbered(9))
    content = bytearray(path.read_bytes())
    content[content.index(b"4.txt") + 150] ^= 0xFF  # of its check sum
    path.write_bytes(content)
    dataset = read_dataset(path)
    assert 0 < len(dataset) < 9 and kinds(dataset) == {"tar damaged or cut short": 1}


def test_tars_of_something_else(tmp_path):
    shard(tmp_path / "code.tar", {"setup.py": "x", "README.txt": "y"})
    with pytest.raises(ValueError, match="no known format"):
        read_dataset(tmp_path)


def test_splits_are_names_of_tars(tmp_path):
    for split, count in (("train", 2), ("val", 1)):
        shard(tmp_path / f"{split}-000000.tar", numbered(count))
    assert [len(read_dataset(tmp_path, split=split)) for split in ("train", "val")] == [2, 1]


# ---- captions --------------------------------------------------------------------------------------------------------


def test_texts_beside_pictures(tmp_path):
    for name in ("a.jpg", "10_cat/b.c.png", "bare.jpg"):
        picture(tmp_path / name)
    write(tmp_path / "a.txt", "mytoken, a cat\non a lawn\n")
    write(tmp_path / "a.caption", "another")
    write(tmp_path / "10_cat" / "b.c.txt", "3 dogs, 2 cats")
    write(tmp_path / "README.txt", "about the pictures")
    dataset = read_dataset(tmp_path)
    found = {each.name: each.annotation.captions for each in dataset}
    assert dataset.format == "captions" and found == {"a.jpg": ("another",), "10_cat/b.c.png": ("3 dogs, 2 cats",)}
    assert kinds(dataset) == {"another opinion left out": 1, "images without captions": 1, "file passed over": 1}
    assert dataset[0].annotation.exhaustive == set()


@pytest.mark.parametrize("text", ["0 .5 .5 .2 .2\n", "1,1,30,1,30,9,1,9,STOP\n", '{"a": 1}', "[1]", "", "  \n"])
def test_texts_of_other_formats_are_no_captions(tmp_path, text):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", text)
    with pytest.raises(ValueError, match="holds no files of the format 'captions'"):
        read_dataset(tmp_path, "captions")


def test_another_format_counts_before_captions(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "a note")
    write(tmp_path / "data.jsonl", '{"image": "a.jpg", "objects": []}\n')
    assert read_dataset(tmp_path).format == "jsonl"
