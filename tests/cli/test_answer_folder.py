"""`run --out`: answers in a folder, Ctrl-C, and the same command again."""

import hashlib
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from florence_lite.florence import Florence


@pytest.fixture
def interrupted(monkeypatch):
    """Ctrl-C after two answers."""
    run_each = Florence.run_each

    def stopped(self, images, prompt, **how):
        yield from run_each(self, images[:2], prompt, **how)
        raise KeyboardInterrupt

    monkeypatch.setattr(Florence, "run_each", stopped)
    return lambda: monkeypatch.setattr(Florence, "run_each", run_each)


def test_answers_and_pictures_are_called_as_the_images(command, tiny, photos, tmp_path):
    out = tmp_path / "out"
    code, stdout, stderr = command("run", *photos[:4], "<OD>", "--checkpoint", tiny, "--out", out, "--json")
    assert code == 1 and "photo 3.png" in stderr
    names = {f"photo {number}.{ending}" for number in range(3) for ending in ("json", "jpg")}
    assert {path.name for path in out.iterdir()} == names
    told = [json.loads(line) for line in stdout.splitlines()]
    for number in range(3):
        record = json.loads((out / f"photo {number}.json").read_text())
        assert record.pop("picture") == f"photo {number}.jpg"
        asked, digest = record.pop("asked"), record.pop("sha256")
        assert digest == hashlib.sha256(Path(photos[number]).read_bytes()).hexdigest()
        assert (asked["prompt"], asked["checkpoint"], asked["threshold"]) == ("<OD>", tiny, None)
        assert record == told[number]
        Image.open(out / f"photo {number}.jpg").verify()
    assert told[3].keys() == {"image", "error"}


def test_the_listing_says_where_they_are(command, tiny, photos, tmp_path):
    code, stdout, _ = command("run", photos[0], "<CAPTION>", "--checkpoint", tiny, "--out", tmp_path / "a" / "b")
    assert code == 0 and f"  written to {tmp_path / 'a' / 'b' / 'photo 0.json'}\n" in stdout


def test_after_ctrl_c_the_same_command_goes_on(command, tiny, photos, tmp_path, interrupted):
    out = tmp_path / "out"
    good = [photos[number] for number in (0, 1, 2, 4)]
    arguments = ("run", *good, "<OD>", "--checkpoint", tiny, "--out", out, "--json")
    code, stdout, stderr = command(*arguments)
    assert code == 130 and [json.loads(line)["image"] for line in stdout.splitlines()] == good[:2]
    assert stderr.splitlines()[-1] == (
        f"stopped: 2 of 4 images are answered; the same command goes on, {out} has the answers"
    )
    before = (out / "photo 0.json").stat().st_mtime_ns
    interrupted()
    code, stdout, stderr = command(*arguments)
    assert code == 0 and [json.loads(line)["image"] for line in stdout.splitlines()] == good[2:]
    assert f"answered in {out} before: 2 of 4 images" in stderr
    assert (out / "photo 0.json").stat().st_mtime_ns == before
    assert len(list(out.glob("*.json"))) == 4
    assert command(*arguments)[:2] == (0, "")  # nothing is left to be asked


def test_an_image_that_is_broken_still_is_no_total_failure(command, tiny, photos, tmp_path):
    """Some answers are there, from before: exit code 1, not 2."""
    arguments = ("run", *photos[2:4], "<OD>", "--checkpoint", tiny, "--out", tmp_path / "out")
    assert [command(*arguments)[0] for _ in range(2)] == [1, 1]


def test_another_picture_of_the_same_name_gets_no_old_answer(command, tiny, photos, tmp_path):
    """A picture that has changed is asked about again; one from elsewhere is refused."""
    (tmp_path / "else").mkdir()
    other = tmp_path / "else" / "photo 0.png"
    Image.new("RGB", (30, 20)).save(other)
    ask = ("run", photos[0], "<OD>", "--checkpoint", tiny, "--out", tmp_path / "out")
    assert command(*ask)[0] == 0
    answer = json.loads((tmp_path / "out" / "photo 0.json").read_text())
    code, _, stderr = command("run", other, *ask[2:])
    assert code == 2 and "photo 0.json is about another image than" in stderr
    assert command(*ask)[1] == ""  # done
    other.replace(photos[0])
    assert command(*ask)[0] == 0
    again = json.loads((tmp_path / "out" / "photo 0.json").read_text())
    assert (answer["size_wh"], again["size_wh"]) == ([40, 50], [30, 20])


def test_another_picture_from_standard_input_is_refused(command, tiny, photos, tmp_path, monkeypatch):
    def ask(photo):
        given = SimpleNamespace(buffer=io.BytesIO(Path(photo).read_bytes()), isatty=lambda: False)
        monkeypatch.setattr("sys.stdin", given)
        return command("run", "-", "<OD>", "--checkpoint", tiny, "--out", tmp_path / "out")

    assert [ask(photos[0])[0] for _ in range(2)] == [0, 0]
    code, _, stderr = ask(photos[1])
    assert code == 2 and "stdin.json is about another image than -" in stderr


def test_without_a_folder_ctrl_c_says_what_would_help(command, tiny, photos, interrupted):
    code, stdout, stderr = command("run", *photos[:3], "<OD>", "--checkpoint", tiny, "--json")
    assert code == 130 and len(stdout.splitlines()) == 2
    assert "stopped: 2 of 3 images are answered; with --out FOLDER such a run can go on" in stderr


def test_ctrl_c_elsewhere(command, tiny, photos, monkeypatch):
    def stopped(*arguments, **how):
        raise KeyboardInterrupt

    monkeypatch.setattr(Florence, "segment", stopped)
    code, _, stderr = command("segment", *photos[:3], "--checkpoint", tiny)
    assert (code, stderr.splitlines()[-1]) == (130, "stopped: 0 of 3 images are answered")
    monkeypatch.setattr(Florence, "panoptic", stopped)
    code, _, stderr = command("panoptic", photos[0], "--checkpoint", tiny)
    assert (code, stderr.splitlines()[-1]) == (130, "stopped")


def test_mistakes_are_told_before_anything_is_written(command, tiny, photos, tmp_path):
    def refused(*arguments):
        code, stdout, stderr = command("run", *arguments, "--checkpoint", tiny)
        assert (code, stdout) == (2, "")
        return stderr

    out = tmp_path / "out"
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / "photo 0.jpg"
    Image.new("RGB", (9, 9)).save(twin)
    assert re.search(
        r"photo 0.png and .*photo 0.jpg would both be answered in", refused(photos[0], twin, "<OD>", "--out", out)
    )
    assert "would overwrite the image" in refused(twin, "<OD>", "--out", twin.parent)
    assert "would be taken for images" in refused(photos[0], "<OD>", "--out", Path(photos[0]).parent)
    assert "is a file; give a folder" in refused(photos[0], "<OD>", "--out", photos[1])
    assert "leave --picture out" in refused(photos[0], "<OD>", "--out", out, "--picture", tmp_path / "a.png")
    assert not out.exists() and len(list(twin.parent.iterdir())) == 1


@pytest.mark.parametrize("changed", [("<CAPTION>",), ("<OD>", "--threshold", "0.5"), ("<OD>", "--nms", "0.5")])
def test_answers_to_another_question_are_not_mixed(command, tiny, photos, tmp_path, changed):
    out = tmp_path / "out"
    assert command("run", photos[0], "<OD>", "--checkpoint", tiny, "--out", out)[0] == 0
    code, _, stderr = command("run", *photos[:2], *changed, "--checkpoint", tiny, "--out", out)
    assert code == 2 and "photo 0.json answers something else than is asked now" in stderr
    assert not (out / "photo 1.json").exists()


def test_a_folder_that_cannot_be_written(command, tiny, photos, tmp_path, monkeypatch):
    def full(file, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("florence_lite.cli.answer_folder.replace_text", full)
    out = tmp_path / "out"
    code, stdout, stderr = command("run", photos[0], "<OD>", "--checkpoint", tiny, "--out", out)
    assert code == 1 and stdout and f"{Path(out) / 'photo 0.json'} cannot be written: No space left" in stderr
