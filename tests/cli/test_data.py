"""`florence-lite data`: what `check` prints steers no terminal and survives every encoding; what `convert` writes."""

import json
import shlex

import pytest
from PIL import Image

from florence_lite.data import read_dataset


@pytest.fixture
def photos(tmp_path):
    """A data set whose classes are no plain ASCII."""
    names = ["猫", "red\x1b[31m\u202edog"]
    annotations = [
        {"id": n, "image_id": 1, "category_id": n, "bbox": [10 * n, 10, 30, 20], "area": 600, "iscrowd": 0}
        for n in (1, 2)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 80}],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
    }
    Image.new("RGB", (100, 80)).save(tmp_path / "a.png")
    (tmp_path / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def test_labels_of_data_steer_no_terminal(command, photos, tiny):
    code, out, err = command("data", "check", photos, "--checkpoint", tiny)
    assert (code, err) == (0, "")
    assert "猫" in out and r"red\x1b[31m\u202edog" in out
    assert all(character.isprintable() or character == "\n" for character in out)


def test_json_is_ascii_whatever_the_terminal(command, photos, tiny):
    code, out, _ = command("data", "check", photos, "--checkpoint", tiny, "--json")
    assert code == 0 and out.isascii()
    assert "猫" in json.dumps(json.loads(out), ensure_ascii=False)


def test_convert_tells_what_was_written_and_what_is_lost(command, photos, tmp_path):
    code, out, err = command("data", "convert", photos, "--to", "yolo", "--output", tmp_path / "out")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"1 of 1 images in {tmp_path}/out; images are links; --copy-images copies them",
        "left out: 1 × spelling of categories",
        "data.yaml names images as val too; put other images there to measure on",
    ]
    assert [item.label for item in read_dataset(tmp_path / "out")[0].annotation.objects] == ["猫", "red[31mdog"]


def test_convert_says_nothing_of_links_where_there_are_none(command, photos, tmp_path):
    code, out, _ = command("data", "convert", photos, "--to", "coco", "--output", tmp_path / "out", "--copy-images")
    assert code == 0 and out.splitlines()[0] == f"1 of 1 images in {tmp_path}/out"


@pytest.mark.parametrize("format", ["huggingface", "datasets"])
def test_convert_prints_a_command_that_reads_tables(command, photos, tmp_path, tiny, format):
    folder = tmp_path / "my tables"
    code, out, _ = command("data", "convert", photos, "--to", format, "--output", folder)
    said, _, printed = out.splitlines()[-1].partition(": ")
    assert (code, said) == (0, "read with") and printed.startswith("florence-lite data check ")
    words = shlex.split(printed)[1:]
    assert command(*words, "--checkpoint", tiny)[:1] == (0,)
    again = ("data", "convert", *words[2:], "--to", "coco", "--output", tmp_path / "coco")
    assert command(*again)[0] == 0
    code, _, err = command("data", "check", folder, "--checkpoint", tiny)
    assert code == 2 and "read it with --format huggingface and --column image=… that say which" in err


def test_captions_with_a_prefix(command, tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    (tmp_path / "data.jsonl").write_text('{"image": "a.png", "captions": ["a cat"]}\n')
    asked = (
        "data",
        "convert",
        tmp_path / "data.jsonl",
        "--to",
        "captions",
        "--prefix",
        "mytoken, ",
        "--output",
        tmp_path,
    )
    assert command(*asked)[0] == 0 and (tmp_path / "a.txt").read_text() == "mytoken, a cat\n"
    code, _, err = command(*asked)
    assert code == 2 and f"error: {tmp_path}/a.txt would be overwritten" in err


def test_captions_beside_images_of_which_one_lies_elsewhere(command, tmp_path):
    records = []
    for place in ("here/a.png", "there/b.png"):
        (tmp_path / place).parent.mkdir()
        Image.new("RGB", (20, 10)).save(tmp_path / place)
        records.append(json.dumps({"image": place, "captions": ["a cat"]}))
    (tmp_path / "data.jsonl").write_text("\n".join(records))
    asked = ("data", "convert", tmp_path / "data.jsonl", "--to", "captions", "--output")
    code, _, err = command(*asked, tmp_path / "here")
    assert code == 2 and f"for the image {tmp_path}/there/b.png lies elsewhere; give the folder that holds all" in err
    assert not list(tmp_path.rglob("*.txt"))
    assert command(*asked, tmp_path / "new")[0] == 0 and len(list((tmp_path / "new").glob("*.txt"))) == 2


CONVERT_MISTAKES = [
    (("--to", "voc2"), "choose one of coco, voc"),
    (("--to", "captions"), "nothing of the data can be written as captions"),
    (("--to", "coco", "--prefix", "x"), "prefix is 'x', which only the format 'captions' has"),
    (("--to", "coco", "--split", "val"), "no annotation file of the split 'val'"),
]


@pytest.mark.parametrize("options, message", CONVERT_MISTAKES)
def test_mistakes_of_convert(command, photos, tmp_path, options, message):
    code, out, err = command("data", "convert", photos, *options, "--output", tmp_path / "out")
    assert (code, out) == (2, "") and message in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["coco", "captions"])
def test_a_name_that_is_too_long_is_told(command, photos, tmp_path, tiny, format):
    code, _, err = command("data", "convert", photos, "--to", format, "--output", tmp_path / (250 * "x"))
    assert code == 2 and f"error: the output {tmp_path}"[:40] in err and "give a shorter one" in err
    code, _, err = command("data", "check", photos, "--checkpoint", tiny, "--sheet", tmp_path / (255 * "x" + ".png"))
    assert code == 2 and "error: --sheet /" in err and "give a shorter one" in err


def test_convert_refuses_a_folder_with_something_in_it(command, photos):
    code, _, err = command("data", "convert", photos, "--to", "coco", "--output", photos)
    assert code == 2 and "is there already; give an empty folder or a new name" in err
