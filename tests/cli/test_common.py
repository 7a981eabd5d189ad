"""The command's words in the place of Python's."""

import pytest

from florence_lite.cli.common import in_options, say_error


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
        ('read with format="huggingface"', 'read with --format "huggingface"'),
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
