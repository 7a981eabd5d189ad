"""PaddleOCR's label files: a line per image, its name, a tab, and a JSON list of its lines of text.

    images/1.jpg	[{"transcription": "STOP", "points": [[x, y], [x, y], [x, y], [x, y]], "difficult": false}, …]

Source: https://github.com/PaddlePaddle/PaddleOCR, PPOCRLabel. Corners run clockwise from the top left of the reading
direction; of an outline of more, the first, the two in the middle and the last are taken, where the edge above the text
ends and the one below it begins. "###" and "difficult" mark text that cannot be read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from florence_lite.data.annotation import Annotation, TextLine
from florence_lite.data.readers.files import beginning, choose_split
from florence_lite.data.readers.frames import ImageFrame
from florence_lite.data.readers.icdar import ILLEGIBLE
from florence_lite.data.readers.images import Images
from florence_lite.data.readers.records import ProblemLog, Unclear, each_line, finished, is_set, label_of
from florence_lite.data.samples import Dataset

NAME = "paddleocr"
LOOKS_FOR = 'a .txt file of lines: image, tab, [{"transcription": …, "points": …}]'
ENDINGS, DEPTH = (".txt",), 2


def accepts(file: Path) -> bool:
    """Whether a file looks like one of this format."""
    first = next((line for line in beginning(file).split("\n") if line.strip()), "")
    return re.match(r'[^\t]+\t\s*\[\s*(\]|\{.*"transcription")', first) is not None


def read(files: Sequence[Path], root: Path, split: str | None, outside: bool = False) -> Dataset:
    """The data set that the files tell; see `florence_lite.data.read_dataset`."""
    log = ProblemLog(root)
    images = Images(root, log, files, outside)
    rows: dict[Path, tuple[Path, Annotation, str]] = {}
    described = []
    for file in choose_split(files, split, root, "label file"):
        before = len(rows)
        rows_of_file = each_line(file, log, partial(_row, file=file, images=images, log=log))
        for what, (path, annotation, name) in rows_of_file:
            if path in rows:
                log.add(file, what, "duplicate image", f"{name} is there before; the later one is taken")
                if annotation != rows[path][1]:  # which of the two is true is not known
                    annotation = replace(annotation, exhaustive=frozenset())
            rows[path] = path, annotation, name
        described.append(f"{log.name(file)}: {len(rows) - before} images")
    return finished(list(rows.values()), log, NAME, [*described, images.described()])


def _row(line: str, what: str, file: Path, images: Images, log: ProblemLog) -> tuple[Path, Annotation, str] | None:
    name, _, text = line.strip("\r").partition("\t")
    try:
        records = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unclear(f"behind the tab is no JSON: {error}") from None
    if not isinstance(records, list):
        raise Unclear("behind the tab is no list")
    try:
        path = images.find(name.strip(), file, (file.parent, file.parent.parent))
    except Unclear as error:
        return log.add(file, what, "image missing", str(error))
    frame = images.frame(path, None, file, f"{what} ({path.name})")
    if frame is None:
        return None
    read: list[TextLine] = []
    illegible: list[TextLine] = []
    for number, record in enumerate(records):
        found = _text_line(record, frame, f"text {number}")
        if found is not None:
            (illegible if not found.text else read).append(found)
    return path, frame.annotation(("lines",), lines=tuple(read), ignored_lines=tuple(illegible)), log.name(path)


def _text_line(record: Any, frame: ImageFrame, what: str) -> TextLine | None:
    points = record.get("points") if isinstance(record, dict) else None
    text = label_of(record.get("transcription")) if isinstance(record, dict) else ""
    if not text or not isinstance(points, list) or len(points) < 4 or len(points) % 2:
        return frame.lose("lines", "line left out", f"{record!r:.60} has no text or not four, six, … points", what)
    middle = len(points) // 2
    quad = frame.quad([points[0], points[middle - 1], points[middle], points[-1]], what)
    if quad is None:
        return None
    if len(points) > 4:
        frame.report("outline made a quad", f"{len(points)} points", what)
    unreadable = text == ILLEGIBLE or is_set(record.get("difficult"))
    return TextLine("" if unreadable else text, quad)
