"""Small files: text, JSON and TOML read with errors that name the file, and text written all at once."""

from __future__ import annotations

import errno
import json
import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # how the stand-in for a large file begins
SETTINGS_BYTES = 2**22  # no JSON file of settings is longer
TOML_BYTES = 2**18  # nor is a TOML file, whose parser is slow

_LONG_KEY = re.compile(r"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){64}""")  # of so many parts that nobody wrote it


def refuse_lfs_pointer(file: Path) -> None:
    """ValueError where a file holds git-lfs's note of where the real one is."""
    with file.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(
                f"{file} is a git-lfs pointer, not the file itself: run `git lfs pull` there, or copy the real file"
            )


def refuse_long_name(output: Path, what: str = "the output", spare: int = 12) -> None:
    """ValueError, naming `what` is to be written, where its name or path, with `spare` more letters for what is built
    beside it, is longer than the file system takes."""
    try:
        os.lstat(output.with_name(output.name + spare * "_") if output.name else output)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            said = f"{str(output)[:60]}… has a name or path that is too long for the file system"
            raise ValueError(f"{what} {said}; give a shorter one") from None


def read_text(file: Path, largest: int | None = None) -> str:
    """The text of a UTF-8 file, without its byte order mark; ValueError, naming it, where it is none, a git-lfs
    pointer, or has more bytes than `largest`."""
    refuse_lfs_pointer(file)
    with file.open("rb") as stream:
        content = stream.read() if largest is None else stream.read(largest + 1)
    if largest is not None and len(content) > largest:
        raise ValueError(f"{file} has more than {largest:,} bytes, which no file of its kind has; copy it again")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text ({error}); copy it again") from None


def parse_json(text: str, what: str) -> Any:
    """What a JSON text holds; ValueError with `what` it is and the place where it is not valid or cut short, and where
    it is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply for a JSON file; copy it again") from None
    except ValueError as error:  # also for numbers of thousands of digits
        raise ValueError(f"{what} is no JSON file or is cut short ({error}); copy it again") from None


def read_json(file: Path, largest: int | None = None) -> Any:
    """What a JSON file holds; ValueError as `read_text` and `parse_json`."""
    return parse_json(read_text(file, largest), str(file))


def read_json_object(file: Path, largest: int = SETTINGS_BYTES) -> dict[str, Any]:
    """The JSON object in a file of settings; ValueError as `read_json`, and where it holds anything else."""
    values = read_json(file, largest)
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds a JSON {type(values).__name__}; it must be an object, {{…}}")
    return values


def read_toml(file: Path, what: str) -> dict[str, Any]:
    """The table in a TOML file.

    what: the file is, for the message of the FileNotFoundError, such as "task card". Raises ValueError, naming the
    file, where it is no TOML, or larger or more deeply nested than settings are.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no {what} at {str(file)!r}")
    text = read_text(file, TOML_BYTES)
    # The parser's time and memory grow with the square of the parts of a dotted key.
    deep = bool(_LONG_KEY.search(text))
    try:
        if not deep:
            return tomllib.loads(text)
    except RecursionError:
        deep = True
    except ValueError as error:  # also for numbers of thousands of digits
        raise ValueError(f"{file} is no valid TOML: {error}") from None
    raise ValueError(f"{file} is nested too deeply for a {what}")


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `file` at the end of the block, at once: an interrupted or failed
    block leaves the predecessor whole and nothing else. Who may read it is as for any new file, though the writer makes
    private ones, as safetensors does."""
    partial = file.with_name(file.name + ".partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def replace_text(file: Path, text: str) -> None:
    """Write a text file in place of its predecessor at once, as `replacing`; its folder is made if absent."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
