"""Small files of a checkpoint folder: JSON read with errors that name the file, text written all at once."""

from __future__ import annotations

import json
from pathlib import Path


def read_text(file: Path) -> str:
    """The text of a UTF-8 file; ValueError, naming it, where it is none."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text ({error}); copy it again") from None


def read_json(file: Path) -> dict:
    """The JSON object in a file; ValueError, naming the file, where it holds none or is cut short."""
    try:
        values = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is no JSON file or is cut short ({error}); copy it again") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds a JSON {type(values).__name__}; it must be an object, {{…}}")
    return values


def replace_text(file: Path, text: str) -> None:
    """Write a text file in place of its predecessor at once: an interrupted call leaves the old one whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(file)
