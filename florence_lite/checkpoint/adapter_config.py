"""adapter_config.json of `peft`: what is read of it, and within which bounds, before anything is made of it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from florence_lite.checks import is_number
from florence_lite.files import SETTINGS_BYTES, read_json

CONFIG = "adapter_config.json"

# What a pattern of modules may hold: letters, classes, alternatives, and a few repetitions of single letters, never of
# groups. Whatever it is, matching a name takes no noticeable time.
_LETTER = r"(?:\\[.dw]|\[[\w.-]++\]|[\w.-])"
_REPEATS = 2
_PATTERN = re.compile(rf"\^?(?:{_LETTER}[*+?]?+|\((?:\?:)?+{_LETTER}++(?:\|{_LETTER}++)*+\)|\|)++\$?")
_MOST_PATTERNS, _LONGEST_PATTERN = 256, 256


class AdapterBase(NamedTuple):
    """The checkpoint that an adapter was trained on: Hub id or folder; revision, None for the latest."""

    name: str
    revision: str | None


def adapter_base(folder: str | os.PathLike) -> AdapterBase | None:
    """What the adapter in `folder` names as the base, to be loaded first; None if it names none.

    Raises FileNotFoundError where `adapter_config.json` is missing, ValueError where it describes no LoRA adapter.
    """
    config = read_adapter_config(Path(folder))
    name = config.get("base_model_name_or_path")
    return AdapterBase(name, config.get("revision") or None) if name else None


def read_adapter_config(folder: Path) -> dict:
    """The fields of adapter_config.json, of which those that are used here are what they must be."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"there is no adapter in {str(folder)!r}: no file {CONFIG!r}")
    config = read_json(path, SETTINGS_BYTES)
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise ValueError(f"{path} is no configuration of peft: it names no peft_type")
    if config["peft_type"] != "LORA":
        raise ValueError(f"{path}: peft_type is {config['peft_type']!r}; only 'LORA' adapters can be applied")
    for name in ("base_model_name_or_path", "revision"):
        if not isinstance(config.get(name), str | None):
            raise ValueError(f"{path}: {name} is {config[name]!r}; it must be a text or null")
    for name, pattern, check, what in (
        ("r", "rank_pattern", _is_rank, "a positive whole number"),
        ("lora_alpha", "alpha_pattern", is_number, "a number"),
    ):
        if not check(config.get(name)):
            raise ValueError(f"{path}: {name} is {config.get(name)!r}; it must be {what}")
        numbers = config.get(pattern) or {}
        if not isinstance(numbers, dict) or not all(map(check, numbers.values())):
            raise ValueError(f"{path}: {pattern} is {str(numbers)[:200]}; it must give {what} for each name")
        if len(numbers) > _MOST_PATTERNS:
            raise ValueError(f"{path}: {pattern} has {len(numbers):,} entries; {_MOST_PATTERNS} may be")
        for key in numbers:
            repeats = len(re.findall(r"(?<!\\)[*+]", key))
            if len(key) > _LONGEST_PATTERN or not _PATTERN.fullmatch(key) or repeats > _REPEATS or not _compiles(key):
                raise ValueError(
                    f"{path}: {pattern} has {key[:_LONGEST_PATTERN]!r}, which is no name or pattern of the kinds that "
                    f"are read: letters, [classes], (alternatives|without|repetition), and {_REPEATS} of * and +"
                )
    return config


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _compiles(pattern: str) -> bool:
    try:
        return bool(re.compile(pattern))
    except re.error:  # a class whose range runs backwards
        return False


def fits(pattern: str, name: str) -> bool:
    """Whether a name or pattern of adapter_config.json is the end of a module's name, as peft understands it."""
    ends = [name] if pattern.startswith("^") else [name[start:] for start in _starts(name)]
    return any(re.fullmatch(pattern, end) for end in ends)


def _starts(name: str) -> list[int]:
    """Where a part of a dotted name begins."""
    return [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]
