"""`florence-lite refine`."""

import json

import pytest

from florence_lite.data import read_dataset
from tests.refine.answers import item, listed, picture, said, write_answers

pytest.importorskip("pyarrow")
pytest.importorskip("imagehash")


@pytest.fixture
def answers(tmp_path):
    rows = []
    for number in range(3):
        image = picture(tmp_path, f"{number}.png", number)
        rows += [
            listed(image, item("dog", score=0.25 + 0.1 * number), item("cat", (60, 10, 90, 40))),
            said(image, "a dog"),
        ]
    return write_answers(tmp_path / "in", rows)


def test_refine_prints_a_table(command, answers, tmp_path):
    code, out, err = command("refine", answers, "--to", tmp_path / "out")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split()[0] == "stage" and lines[1].split() == ["read", "6", "6", "3"]
    assert any(line.split() == ["scores", "0", "1", "6", "5", "3", "1", "score"] for line in lines)
    assert "near.html" in lines[-1] and len(read_dataset(tmp_path / "out")) == 3


def test_options_go_before_the_file(command, answers, tmp_path):
    config = tmp_path / "refine.toml"
    config.write_text('without = ["duplicates"]\n[scores]\nthreshold = 0.1\n[scores.labels]\ncat = 0.95\n')
    options = ("--config", config, "--threshold", 0.4, "--with", "captions", "--without", "twins", "--sheet", 0)
    code, out, err = command("refine", answers, "--to", tmp_path / "out", *options, "--empty-are-negatives", "--json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    names = [stage["name"] for stage in told["stages"]]
    assert "captions" in names and not {"twins", "duplicates", "opinions", "balance"} & set(names)
    scores = next(stage for stage in told["stages"] if stage["name"] == "scores")
    assert scores["settings"] == {"threshold": 0.4, "tasks": {}, "labels": {"cat": 0.95}} and scores["instances"] == 5
    assert told["sheet"] == 0


def test_corrections(command, answers, tmp_path):
    (tmp_path / "own.jsonl").write_text('{"image": "0.png", "objects": []}\n')
    code, out, _ = command("refine", answers, "--to", tmp_path / "out", "--corrections", tmp_path / "own.jsonl")
    assert code == 0 and "corrections: 1 of 1 corrected images are among the rows'" in out
    assert sum(sample.annotation.is_negative for sample in read_dataset(tmp_path / "out")) == 1


def test_corrections_that_cannot_be_used_set_the_exit_code(command, answers, tmp_path):
    good = '{"image": "0.png", "objects": [{"label": "dog", "box": [10, 10, 120, 40]}]}\n'  # reaches out, is clipped
    bad = '{"image": "1.png", "objects": [{"label": "dog", "bbox": [10, 10, 50, 40]}]}\n'
    asked = ("refine", answers, "--to", tmp_path / "out", "--corrections", tmp_path / "own.jsonl")
    (tmp_path / "own.jsonl").write_text(good)
    code, out, _ = command(*asked)
    assert code == 0 and "1 were repaired:" in out and "could not be used" not in out
    (tmp_path / "own.jsonl").write_text(good + bad)
    for more in ((), ("--json",)):
        code, out, _ = command(*asked, *more)
        assert code == 1 and len(read_dataset(tmp_path / "out")) == 3
    assert (
        len(json.loads(out)["unmatched"]) == 1
        and "it has no \"box\", only 'label', 'bbox'" in json.loads(out)["unmatched"][0]
    )


@pytest.mark.parametrize(
    "options, message",
    [
        (("--threshold", 2), "--threshold 2 must be a number from 0 to 1"),
        (("--with", "caption"), "unknown stage 'caption'; did you mean 'captions'?"),
        (("--without", "nothing"), "unknown stage 'nothing'"),
        (("--with", "opinions"), "no task has answers of two opinions; there is 'teacher'"),
        (("--with", "regions"), "regions.by: no row is of the task '<REGION_TO_CATEGORY>'"),
        (("--config", "nothing.toml"), "there is no configuration of refine at 'nothing.toml'"),
        (("--corrections", "nothing.jsonl"), "nothing.jsonl"),
        (("--to", 250 * "x"), "is too long for the file system; give a shorter one"),
        (("--sheet", -1), "--sheet -1 must be a whole number of at least 0"),
    ],
)
def test_mistakes_are_told_in_a_line(command, answers, tmp_path, options, message):
    code, out, err = command("refine", answers, "--to", tmp_path / "out", *options)
    assert (code, out) == (2, "") and err.startswith("error: ") and message in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
