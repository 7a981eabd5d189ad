"""Checks of a card's fields. Each raises a ValueError that names the field, its value and the rule.

The lists of a TOML file become tuples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from florence_lite.values import is_number, is_whole


def check_text(card: Any, name: str) -> None:
    """The field must be a string with something in it."""
    value = getattr(card, name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{type(card).__name__}.{name} is {value!r}; it must be a string with something in it")


def check_texts(card: Any, name: str) -> None:
    """The field must hold strings; they become a tuple."""
    value = getattr(card, name)
    if isinstance(value, str) or not all(isinstance(item, str) and item for item in value):
        raise ValueError(f"{type(card).__name__}.{name} is {value!r}; it must be a list of strings")
    object.__setattr__(card, name, tuple(value))


def check_choice(card: Any, name: str, choices: Any) -> None:
    """The field must be one of `choices`."""
    value = getattr(card, name)
    if value not in tuple(choices):
        raise ValueError(f"{type(card).__name__}.{name} is {value!r}; it must be one of: {', '.join(choices)}")


def check_whole(card: Any, name: str, least: int) -> None:
    """The field must be a whole number of at least `least`."""
    value = getattr(card, name)
    if not is_whole(value, least):
        raise ValueError(f"{type(card).__name__}.{name} is {value!r}; it must be an integer of at least {least}")


def check_numbers(card: Any, name: str, count: int, kind: Any) -> None:
    """The field must hold `count` numbers of a type; they become a tuple."""
    value = getattr(card, name)
    if (
        not isinstance(value, Sequence)
        or len(value) != count
        or not all(isinstance(item, kind) and is_number(item) for item in value)
    ):
        raise ValueError(f"{type(card).__name__}.{name} is {value!r}; it must be {count} numbers")
    object.__setattr__(card, name, tuple(value))
