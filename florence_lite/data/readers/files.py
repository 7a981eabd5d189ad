"""Finding and reading the files of a data set, and which of them belong to a split."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from florence_lite.files import read_text

IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".jfif", ".jpe", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"),
    *(".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".pcx", ".ico"),
)  # of the formats that `florence_lite.images` opens
SPLITS = {  # other words for the same split, as folders and files are called
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


_SPLIT_WORDS = {word for same in SPLITS.values() for word in same}
_OF_DATA = {"obj", "data", "set", "images", "labels", "annotations", "instances", "captions"}  # say nothing else


def files_below(folder: Path, endings: Sequence[str], depth: int | None = None) -> list[Path]:
    """Files with one of the endings (any case), at most `depth` folders below if it is given, sorted; hidden folders
    are skipped, and a linked folder that holds itself is entered once."""
    found = []
    seen: set[str] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        level = len(Path(here).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if (depth is None or level < depth) and not name.startswith("."))
        found += [Path(here) / name for name in sorted(names) if name.lower().endswith(tuple(endings))]
    return found


def files_of(reader: ModuleType, path: Path) -> tuple[list[Path], list[Path]]:
    """The files of a format, `path` itself or those below it; and files of the same endings that are of none."""
    found = [path] if path.is_file() else files_below(path, reader.ENDINGS, reader.DEPTH)
    found = [file for file in found if file.is_file() and file.name.lower().endswith(reader.ENDINGS)]
    accepted = {file: reader.accepts(file) for file in found}
    return [file for file in found if accepted[file]], [file for file in found if not accepted[file]]


def beginning(file: Path, length: int = 2**16) -> str:
    """The first characters of a text file, to tell its format; damaged ones are replaced."""
    with file.open("rb") as stream:
        start = stream.read(length)
    return start.decode("utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", errors="replace")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises ValueError naming a file that is not UTF-8."""
    return read_text(path).split("\n")  # splitlines would also split at U+2028 and others


def split_words(split: str) -> tuple[str, ...]:
    """The word itself first, then others for the same split."""
    same = next((words for words in SPLITS.values() if split.lower() in words), ())
    return tuple(dict.fromkeys((split.lower(), *same)))


def splits_in(name: str, split: str = "") -> set[str]:
    """The splits that a file's or folder's name plays the part of, by their first words: "instances_train2017" and
    "obj_train_data" are "train", "my_test_project" none. split: a word of the data set's own that counts too."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = "".join(c if c.isalpha() else " " for c in parted).split()
    playing = words if set(words) - _SPLIT_WORDS <= _OF_DATA else (*words[:1], *words[-1:])
    told = {canonical for canonical, same in SPLITS.items() for word in playing if word in same}
    if split and split.lower() not in _SPLIT_WORDS:
        own = "".join(c if c.isalnum() else " " for c in split.lower()).split()
        parts = "".join(c if c.isalnum() else " " for c in name.lower()).split()
        if any(parts[at : at + len(own)] == own for at in range(len(parts))):
            told.add(split.lower())
    return told


def split_of(path: Path, root: Path) -> str | None:
    """The split that a path below `root` tells by the name nearest to its end, or None."""
    parts = path.relative_to(root).parts if path.is_relative_to(root) else path.parts[-1:]
    for part in reversed(parts):
        told = splits_in(re.sub(r"\.\w+$", "", part))
        if told:
            return next(iter(told)) if len(told) == 1 else None
    return None


def choose_split(files: Sequence[Path], split: str | None, root: Path, what: str, folders: bool = False) -> list[Path]:
    """Those of the files that belong to the split by the nearest name below `root` that tells one; all without a split.

    folders: whether only the names of folders count. Raises ValueError naming the files where none belongs to it.
    """
    if split is None:
        return list(files)
    wanted = split_words(split)
    chosen = [file for file in files if _told(file, root, split, folders) & set(wanted)]
    if not chosen:
        names = ", ".join(str(file.relative_to(root)) for file in files[:6])
        raise ValueError(f"{root} has no {what} of the split {split!r}, only {names}; without a split all is read")
    return chosen


def _told(file: Path, root: Path, split: str, folders: bool) -> set[str]:
    parts = file.relative_to(root).parts[:-1] if folders else file.relative_to(root).with_suffix("").parts
    for part in reversed(parts):
        if told := splits_in(part, split):
            return told
    return set()
