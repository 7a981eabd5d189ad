"""Which image a name means, and which files belong to a split."""

import pytest

from florence_lite.data import read_dataset
from tests.data.files import CAT, LINE, coco, kinds, labels_of, one, picture, voc, write

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


@pytest.mark.parametrize(
    "folder", ["obj_train_data", "train2017", "train", "images_train", "training-images", "TrainSet"]
)
def test_folders_that_play_the_part_of_a_split(tmp_path, folder):
    picture(tmp_path / folder / "a.jpg")
    write(tmp_path / folder / "a.txt", LINE)
    write(tmp_path / "obj.names", "cat\n")
    assert len(read_dataset(tmp_path, split="train")) == 1
