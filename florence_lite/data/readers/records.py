"""What becomes of records: a log of what was left out or repaired, and the data set of what remains."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from florence_lite.data.annotation import Annotation
from florence_lite.data.readers.files import read_lines
from florence_lite.data.samples import Dataset, Problem

Row = TypeVar("Row")
REPAIRED = frozenset(
    (
        "box clipped",
        "quad clipped",
        "quad turned",
        "outline made a quad",
        "scaled to the image",
        "image found elsewhere",
    )
)  # kinds of problems of what was used all the same


class Unclear(ValueError):
    """A fault of one record: it is left out, and reported with the record's name."""


@dataclass
class ProblemLog:
    """Collects problems. root: the folder that files are named from."""

    root: Path
    problems: list[Problem] = field(default_factory=list)

    def add(self, file: Path, record: object, kind: str, what: str) -> None:
        self.problems.append(Problem(self.name(file), str(record), what, kind))

    def name(self, file: Path) -> str:
        """The file's name as seen from the data set's folder."""
        return os.path.relpath(file, self.root) if file.is_relative_to(self.root) else str(file)


def each_line(file: Path, log: ProblemLog, read: Callable[[str, str], Row | None]) -> Iterator[tuple[str, Row]]:
    """What a file with a record on each line holds: ("line 3", what `read` makes of it, called with the line and that
    name). A line that is Unclear is left out and reported, one that `read` reported itself is None."""
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        what = f"line {number}"
        try:
            row = read(line, what)
        except Unclear as error:
            log.add(file, what, "record left out", str(error))
            continue
        if row is not None:
            yield what, row


def id_of(value: Any) -> str | None:
    """What a record is known by, the same for 1, 1.0 and "1"; None for what is neither a number nor a word."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    return str(value).strip() or None


def label_of(value: Any) -> str:
    """A name as it is written, without space around it; "" for null and for what is no name."""
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def size_of(width: Any, height: Any) -> tuple[float, float] | None:
    """Sides in pixels, also from their texts; None where one is unknown."""
    try:
        sides = float(width), float(height)
    except (TypeError, ValueError, OverflowError):
        return None
    return sides if all(0 < side < 1e9 for side in sides) else None


def is_set(value: Any) -> bool:
    """Whether a mark is set: 1, true, and the texts of both; "0" is not."""
    return str(value).strip().lower() in ("1", "1.0", "true", "yes")


def caption_levels(*captions: str) -> tuple[str, ...]:
    """Captions of rising detail, "" for unknown ones, as `Annotation` has them: without unknown ones at the end."""
    known = max((number for number, caption in enumerate(captions, start=1) if caption), default=0)
    return captions[:known]


def finished(
    rows: Sequence[tuple[Any, Annotation, str]],
    log: ProblemLog,
    format: str,
    files: Iterable[str],
    classes: Iterable[str] = (),
    images: Sequence | None = None,
) -> Dataset:
    """The data set of (image, annotation, name) rows. Raises ValueError, with the first problems, where none is left.

    images: takes the place of the rows' own where pictures are read late.
    """
    if not rows:
        described = "".join(f"\n  {problem}" for problem in log.problems[:3])
        raise ValueError(f"{log.root} holds no usable record of the format {format!r}{described}")
    return Dataset(
        images if images is not None else [image for image, _, _ in rows],
        tuple(annotation for _, annotation, _ in rows),
        tuple(name for _, _, name in rows),
        format,
        tuple(files),
        tuple(dict.fromkeys(classes)),
        tuple(log.problems),
    )
