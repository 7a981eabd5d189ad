"""Finding and reading the files of a data set, and which of them belong to a split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from florence_lite.files import read_text

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
SPLITS = {  # other words for the same split, as folders and files are called
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


def files_below(folder: Path, endings: Sequence[str], depth: int) -> list[Path]:
    """Files with one of the endings (any case) at most `depth` folders below, sorted; hidden folders are skipped."""
    found = []
    for here, folders, names in os.walk(folder, followlinks=True):
        level = len(Path(here).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if level < depth and not name.startswith("."))
        found += [Path(here) / name for name in sorted(names) if name.lower().endswith(tuple(endings))]
    return found


def files_of(reader: ModuleType, path: Path) -> list[Path]:
    """The files of a format: `path` itself, or those below it."""
    found = [path] if path.is_file() else files_below(path, reader.ENDINGS, reader.DEPTH)
    return [file for file in found if file.name.lower().endswith(reader.ENDINGS) and reader.accepts(file)]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises ValueError naming a file that is not UTF-8."""
    return read_text(path).split("\n")  # splitlines would also split at U+2028 and others


def of_split(name: str, split: str) -> bool:
    """Whether a file or folder name belongs to a split: "instances_train2017.json" to "train"."""
    words = "".join(c if c.isalpha() else " " for c in name.lower()).split()
    return any(word in words for word in split_words(split))


def split_words(split: str) -> tuple[str, ...]:
    """The word itself first, then others for the same split."""
    same = next((words for words in SPLITS.values() if split.lower() in words), ())
    return tuple(dict.fromkeys((split.lower(), *same)))


def choose_split(files: Sequence[Path], split: str | None, root: Path, what: str) -> list[Path]:
    """Those of the files whose name, or folder below `root`, says the split; all without one.

    Raises ValueError naming the files where none says it.
    """
    if split is None:
        return list(files)
    chosen = [f for f in files if any(of_split(part, split) for part in f.relative_to(root).with_suffix("").parts)]
    if not chosen:
        names = ", ".join(str(f.relative_to(root)) for f in files[:6])
        raise ValueError(f"{root} has no {what} of the split {split!r}, only {names}; without a split all is read")
    return chosen
