"""Checks of values that come from files or callers, and of the fields of dataclasses made from them.

Each check of a field raises a ValueError that names the field, its value and the rule.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from numbers import Real
from typing import Any, TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number that a float can hold, so neither infinite nor NaN; True and False are none."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def is_positive(value: object) -> TypeGuard[float]:
    """Whether it is such a number above 0."""
    return is_number(value) and value > 0


def is_whole(value: object, least: int) -> TypeGuard[int]:
    """Whether it is a whole number of at least `least`; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_text(value: object) -> bool:
    """Whether it is a string with something in it."""
    return isinstance(value, str) and bool(value.strip())


def is_list(value: object, is_right: Callable[[Any], bool], count: int | None = None) -> bool:
    """Whether it is a list or tuple of items that are right; `count` of them if that is given."""
    return isinstance(value, list | tuple) and all(map(is_right, value)) and count in (None, len(value))


def check(of: Any, names: str | Iterable[str], is_right: Callable[[Any], bool], rule: str) -> None:
    """The fields must have values that are right. rule: what they must be, such as "a number"."""
    for name in (names,) if isinstance(names, str) else names:
        if not is_right(value := getattr(of, name)):
            raise ValueError(f"{name} = {value!r} must be {rule}")


def check_text(of: Any, *names: str) -> None:
    """The fields must be strings with something in them."""
    check(of, names, is_text, "a string with something in it")


def check_choice(of: Any, name: str, choices: Iterable[str]) -> None:
    """The field must be one of `choices`."""
    check(of, name, lambda value: value in tuple(choices), f"one of {', '.join(choices)}")


def check_whole(of: Any, least: int, *names: str) -> None:
    """The fields must be whole numbers of at least `least`."""
    check(of, names, lambda value: is_whole(value, least), f"a whole number of at least {least}")


def check_positive(of: Any, *names: str) -> None:
    """The fields must be numbers above 0."""
    check(of, names, is_positive, "a number greater than 0")


def check_not_negative(of: Any, *names: str) -> None:
    """The fields must be numbers of at least 0."""
    check(of, names, lambda value: is_number(value) and value >= 0, "a number of at least 0")


def check_share(of: Any, *names: str) -> None:
    """The fields must be numbers from 0 to 1."""
    check(of, names, lambda value: is_number(value) and 0 <= value <= 1, "a number between 0 and 1")


def check_switch(of: Any, *names: str) -> None:
    """The fields must be True or False."""
    check(of, names, lambda value: isinstance(value, bool), "true or false")


def check_list(
    of: Any, name: str, is_right: Callable[[Any], bool], rule: str = "a list of strings", count: int | None = None
) -> None:
    """The field must be a list of items that are right, `count` of them if that is given; it becomes a tuple."""
    check(of, name, lambda value: is_list(value, is_right, count), rule)
    object.__setattr__(of, name, tuple(getattr(of, name)))


def hint(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """ "did you mean 'x'? " with the known name that is most alike, whatever the capitals; "" where none is alike."""
    by_folded = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(str(name).strip().casefold(), by_folded, n=1, cutoff=cutoff)
    return f"did you mean {by_folded[close[0]]!r}? " if close else ""


def check_fields(cls: type, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """`values` themselves; ValueError where they lack a field of the dataclass `cls` or have one that it has not."""
    known = {field.name: field.default is MISSING and field.default_factory is MISSING for field in fields(cls)}
    for name in values:
        if name not in known:
            raise ValueError(f"unknown field {name!r}; {hint(name, known)}fields: {', '.join(known)}")
    if missing := [name for name, required in known.items() if required and name not in values]:
        raise ValueError(f"missing {', '.join(missing)}")
    return values
