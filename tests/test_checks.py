"""What counts as a number, a text or a list, and fields that are not what they must be."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from florence_lite.checks import (
    check,
    check_choice,
    check_fields,
    check_list,
    check_not_negative,
    check_positive,
    check_share,
    check_switch,
    check_text,
    check_whole,
    is_number,
    is_positive,
    is_text,
    is_whole,
)


@pytest.mark.parametrize("value", [0, -1.5, 10**300, np.float32(2)])
def test_numbers(value):
    assert is_number(value)
    assert is_positive(value) == (value > 0)


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("-inf"), 10**400, [1], 1j])
def test_no_numbers(value):
    assert not is_number(value) and not is_positive(value)


def test_whole_numbers():
    assert is_whole(3, 3) and is_whole(10**400, 3)
    assert not any(is_whole(value, 0) for value in (-1, 1.0, True, "1", None))


def test_texts():
    assert is_text(" a")
    assert not any(is_text(value) for value in ("", " \n", 3, None, ["a"]))


@pytest.mark.parametrize(
    ("check_it", "right", "wrong", "rule"),
    [
        (check_text, "a", " ", "a string with something in it"),
        (lambda of, name: check_choice(of, name, ("a", "b")), "b", ["b"], "one of a, b"),
        (lambda of, name: check_whole(of, 2, name), 2, 1, "a whole number of at least 2"),
        (check_positive, 0.5, 0, "a number greater than 0"),
        (check_not_negative, 0, -1, "a number of at least 0"),
        (check_share, 1, 1.01, "a number between 0 and 1"),
        (check_switch, False, 0, "true or false"),
        (lambda of, name: check_list(of, name, is_text), ["a"], "a", "a list of strings"),
        (lambda of, name: check_list(of, name, is_number, "2 numbers", 2), (1, 2), [1], "2 numbers"),
        (lambda of, name: check(of, name, is_text, "a name"), "a", None, "a name"),
    ],
)
def test_fields(check_it, right, wrong, rule):
    check_it(SimpleNamespace(size=right), "size")
    with pytest.raises(ValueError) as caught:
        check_it(SimpleNamespace(size=wrong), "size")
    assert str(caught.value) == f"size = {wrong!r} must be {rule}"


def test_every_field_is_checked():
    check_share(SimpleNamespace(first=0, second=1), "first", "second")
    with pytest.raises(ValueError, match="second = 2 must be"):
        check_share(SimpleNamespace(first=0, second=2), "first", "second")


def test_lists_become_tuples():
    of = SimpleNamespace(names=["a", "b"])
    check_list(of, "names", is_text)
    assert of.names == ("a", "b")


@dataclass
class Settings:
    output: str
    tasks: tuple
    steps: int = 1


def test_names_of_fields():
    values = {"output": "o", "tasks": ()}
    assert check_fields(Settings, values) is values
    with pytest.raises(ValueError, match="^unknown field 'step'; did you mean 'steps'. fields: output, tasks, steps$"):
        check_fields(Settings, {**values, "step": 3})
    with pytest.raises(ValueError, match="^unknown field 'colour'; fields: output"):
        check_fields(Settings, {**values, "colour": 3})
    with pytest.raises(ValueError, match="^missing output, tasks$"):
        check_fields(Settings, {"steps": 3})
