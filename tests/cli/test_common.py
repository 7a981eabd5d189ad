"""The command's words in the place of Python's."""

import sys
from pathlib import Path

import pytest

from florence_lite.cli.common import in_options, say_error

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ('needs text="…", but', 'needs --text "…", but'),
        ('needs phrases=["…"], but', 'needs --phrase "…", but'),
        ("phrases[12]=' ' must", "--phrase ' ' must"),
        ("phrases=[] is empty", "--phrase is empty"),
        ("texts[1]=' ' must", "--text ' ' must"),
        ("choices=['yes'] leaves", "--choice 'yes' leaves"),
        ("labels=… has no part, nor has threshold=…", "--label … has no part, nor has --threshold …"),
        ("needs region=(x0, y0, x1, y1) in pixels", "needs --region X0 Y0 X1 Y1 in pixels"),
        ("region=(1, 2.5, -3, 4) must", "--region 1 2.5 -3 4 must"),
        ('read with format="huggingface"', "read with --format huggingface"),
        ("Say which with format=…", "Say which with --format …"),
        ('needs columns={"image": …} that', "needs --column image=… that"),
        ("names no base: call from_pretrained(BASE, adapter=…)", "names no base: give --checkpoint BASE --adapter …"),
        ("say so: from_pretrained('org/base', adapter='my run')", "say so: --checkpoint 'org/base' --adapter 'my run'"),
        ("choose split='train'", "choose --split 'train'"),
        ("data/split=train/format='a' and context=\"b\"", "data/split=train/format='a' and context=\"b\""),
    ],
)
def test_arguments_are_said_as_options(message, told):
    assert in_options(message) == told


def test_further_lines_of_a_message_are_indented_and_names_cannot_forge_one(capsys):
    say_error(ValueError("data set a\nerror: b is empty\n  row 0: \x1b[2J\n  row 1"))
    assert capsys.readouterr().err == "error: data set a\\nerror: b is empty\n  row 0: \\x1b[2J\n  row 1\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "sample", "<OD>", "--threshold", 1.5], "--threshold 1.5 must be a number from 0 to 1"),
        (["segment", "sample", "--threshold", "nan"], "--threshold nan must be a number from 0 to 1"),
        (["run", "sample", "<OD>", "--nms", 2], "--nms 2 must be a number from 0 to 1"),
        (
            ["remove", "sample", "a", "--output", "a", "--dilate=-1"],
            "--dilate -1 must be a whole number of at least 0",
        ),
        (["find", "sample", "--phrase", "a", "--top", 0], "--top 0 must be a whole number of at least 1"),
        (["calibrate", "--count", 1], "--count 1 must be a whole number of at least 2"),
    ],
)
def test_numbers_outside_their_limits_are_told(command, arguments, message):
    assert command(*arguments) == (2, "", f"error: {message}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "sample", "<OD>", "--threshold", "0,5"], "'--threshold': 0,5 is no number; write 0.5"),
        (["run", "sample", "<OD>", "--nms", "high"], "'--nms': high is no number"),
        (["refine", "answers", "--to", "x", "--threshold", ",5"], "'--threshold': ,5 is no number; write .5"),
        (["segment", "sample", "--region", 1, 2, "a", 4], "'--region': a is no number"),
    ],
)
def test_what_is_no_number_is_told(command, arguments, message):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "") and err.endswith(f"Invalid value for {message}\n")


def test_an_adapter_without_peft_is_told(command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "scenes-nano"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(bytes(8))
    output = ("--output", tmp_path / "answers")
    for arguments in (("run", "sample", "<OD>"), ("annotate", ROOT / "examples", "--tasks", "<OD>", *output)):
        code, _, err = command(*arguments, "--adapter", tmp_path)
        assert code == 2 and err.endswith("error: adapters need the package peft: pip install 'florence-lite[train]'\n")
