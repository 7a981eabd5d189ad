"""`florence-lite calibrate`."""

import json
import shutil

import pytest
from PIL import Image

from florence_lite.cards import Calibration
from florence_lite.scenes import Scenes
from florence_lite.train.calibrating import Fitted, Judged

pytest.importorskip("torchmetrics", reason="the extra eval is not installed")
FITTED = Fitted(
    Calibration(0.25, 2.0, 0.4, "scenes"), 0.2, 0.1, 30, 20, (Judged(1.0, True), Judged(-1.0, False)), ("image 3: no",)
)


@pytest.fixture
def fitted(monkeypatch) -> list:
    """What is asked of the fit, which is replaced."""
    calls = []
    monkeypatch.setattr(
        "florence_lite.train.calibrating.calibrate", lambda *arguments: calls.append(arguments[1:]) or FITTED
    )
    monkeypatch.setattr(Scenes, "__init__", lambda self, split: setattr(self, "seeds", range(1000)))
    return calls


def test_a_local_checkpoint_gets_a_file(command, tiny, fitted, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra vis is not installed")
    checkpoint = shutil.copytree(tiny, tmp_path / "checkpoint")
    picture = tmp_path / "reliability.png"
    code, out, err = command("calibrate", "--checkpoint", checkpoint, "--picture", picture)
    assert code == 0 and "left out: image 3: no" in err
    assert "0.2000 before, 0.1000 after" in out and "fitted on 30 phrases that mean something and 20" in out
    assert Calibration.read(checkpoint) == FITTED.calibration and "[calibration]" not in out
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 400
    [(samples, count, about)] = fitted
    assert count == 200 and about == "generated scenes (validation), every other of 200 images"


def test_the_embedded_one_gets_lines_for_its_card(command, fitted, tmp_path):
    code, out, _ = command("calibrate", "--count", 7, "--output", tmp_path / "mine.json")
    assert code == 0 and "[calibration]\nbeta = 0.25\ntemperature = 2\nthreshold = 0.4\n" in out
    assert Calibration.read(tmp_path / "mine.json") == FITTED.calibration and fitted[0][1] == 7
    assert command("calibrate", "--output", tmp_path)[0] == 0
    assert Calibration.read(tmp_path) == FITTED.calibration
    told = json.loads(command("calibrate", "--json")[1])
    assert told["calibration"]["beta"] == 0.25 and told["held_out"] == 2 and told["file"] is None


def test_data_of_ones_own(command, tiny, fitted, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    record = {"image": "a.png", "objects": [{"label": "dog", "box": [1, 1, 9, 9]}]}
    (tmp_path / "data.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    code, out, err = command("calibrate", "--data", tmp_path, "--output", tmp_path / "mine.json")
    assert code == 0, err
    [(samples, count, about)] = fitted
    assert len(samples) == 1 and count is None and about.endswith("every other of 1 images")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "no-such-folder/a.json"], "there is no folder"),
        (["--output", "c.txt"], "--output c.txt: the name must end in .json, or be that of a folder"),
        (["--output", 255 * "c" + ".json"], "is too long for the file system; give a shorter one"),
        (["--picture", "a.txt"], "--picture a.txt: the name must end in an image format"),
        (["--format", "coco"], "belong to annotated images"),
        (["--split", "tset"], "unknown split 'tset'"),
    ],
)
def test_mistakes(command, options, message):
    code, _, err = command("calibrate", *options)
    assert code == 2 and message in err


@pytest.mark.parametrize(
    ("options", "message"), [(["--checkpoint", "nope"], "nope"), (["--output", "c.txt"], "--output c.txt")]
)
def test_mistakes_are_told_before_artwork_is_looked_for(command, monkeypatch, options, message):
    monkeypatch.setattr(Scenes, "__init__", lambda *_: pytest.fail("looked for"))
    code, _, err = command("calibrate", *options)
    assert code == 2 and message in err
