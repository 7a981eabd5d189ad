"""Small files: text, JSON and TOML read with errors that name the file, and text written all at once."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # how the stand-in for a large file begins


def refuse_lfs_pointer(file: Path) -> None:
    """ValueError where a file holds git-lfs's note of where the real one is."""
    with file.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(
                f"{file} is a git-lfs pointer, not the file itself: run `git lfs pull` there, or copy the real file"
            )


def read_text(file: Path) -> str:
    """The text of a UTF-8 file, without its byte order mark; ValueError, naming it, where it is none or a git-lfs
    pointer."""
    refuse_lfs_pointer(file)
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text ({error}); copy it again") from None


def read_json(file: Path) -> Any:
    """What a JSON file holds; ValueError with file and place where it is not valid JSON or is cut short."""
    try:
        return json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is no JSON file or is cut short ({error}); copy it again") from None


def read_json_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file; ValueError as `read_json`, and where it holds anything else."""
    values = read_json(file)
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds a JSON {type(values).__name__}; it must be an object, {{…}}")
    return values


def read_toml(file: Path, what: str) -> dict[str, Any]:
    """The table in a TOML file.

    what: the file is, for the message of the FileNotFoundError, such as "task card". Raises ValueError, naming the
    file, where it is no TOML.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no {what} at {str(file)!r}")
    try:
        return tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file} is no valid TOML: {error}") from None


def replace_text(file: Path, text: str) -> None:
    """Write a text file in place of its predecessor at once: an interrupted call leaves the old one whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(file)
