"""`florence-lite data check`: what it prints steers no terminal and survives every encoding."""

import json

import pytest
from PIL import Image


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
