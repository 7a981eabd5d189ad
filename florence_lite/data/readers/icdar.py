"""Text with quadrilaterals: a text file per image, as ICDAR 2015 and MLT have it.

Source: https://rrc.cvc.uab.es/?ch=4&com=tasks. `gt_img_1.txt` (or `img_1.txt`) belongs to the image `img_1`; each line
is `x1,y1,x2,y2,x3,y3,x4,y4,text`, clockwise from the top left of the reading direction, in pixels; MLT has the script
before the text. Of ICDAR 2013's `x0,y0,x1,y1,"text"` the box is the quadrilateral. The lines of a file are of one kind.
`###` marks text that cannot be read: it is no part of an answer, and not wrong to find. Outlines of more than four
corners are left out, for nothing tells them from a text that begins with numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from florence_lite.data.annotation import Annotation, TextLine
from florence_lite.data.readers.files import beginning, choose_split, read_lines
from florence_lite.data.readers.frames import ImageFrame
from florence_lite.data.readers.images import Images
from florence_lite.data.readers.records import ProblemLog, Unclear, finished
from florence_lite.data.samples import Dataset

NAME = "icdar"
LOOKS_FOR = "gt_….txt files of lines x1,y1,x2,y2,x3,y3,x4,y4,text"
ENDINGS, DEPTH = (".txt",), 2
ILLEGIBLE = "###"
_SCRIPTS = {"Latin", "Arabic", "Chinese", "Japanese", "Korean", "Bangla", "Hindi", "Symbols", "Mixed", "None"}


def accepts(file: Path) -> bool:
    """Whether a file looks like one of this format."""
    first = next((line for line in beginning(file).split("\n") if line.strip()), "")
    return _leading(first) >= 4 or (not first and file.name.startswith("gt_"))


def read(files: Sequence[Path], root: Path, split: str | None, outside: bool = False) -> Dataset:
    """The data set that the files tell; see `florence_lite.data.read_dataset`."""
    log = ProblemLog(root)
    images = Images(root, log, files, outside)
    rows: dict[Path, tuple[Path, Annotation, str]] = {}
    files = choose_split(files, split, root, "text file")
    for file in files:
        try:
            path = images.find(re.sub(r"^gt_|[_.]gt$", "", file.stem), file, (file.parent,))
        except Unclear as error:
            log.add(file, file.stem, "image missing", str(error))
            continue
        frame = images.frame(path, None, file, path.name)
        if frame is None:
            continue
        try:
            lines, illegible = _lines(file, frame)
        except ValueError as error:
            log.add(file, path.name, "record left out", str(error))
            continue
        annotation = frame.annotation(("lines",), lines=lines, ignored_lines=illegible)
        if path in rows:
            log.add(file, path.name, "duplicate image", "another file is about it; the first is taken")
            annotation, other = rows[path][1], annotation
            if annotation != other:  # which of the two is true is not known
                annotation = replace(annotation, exhaustive=frozenset())
        rows[path] = path, annotation, log.name(path)
    folders = ", ".join(dict.fromkeys(log.name(file.parent) for file in files))
    return finished(list(rows.values()), log, NAME, [f"{len(files)} .txt files in {folders}", images.described()])


def _leading(line: str) -> int:
    """How many numbers a line begins with, its last field apart, which is text whatever it looks like."""
    count = 0
    for text in line.strip().split(",")[:-1]:
        try:
            float(text)
        except ValueError:
            break
        count += 1
    return count


def _lines(file: Path, frame: ImageFrame) -> tuple[tuple[TextLine, ...], tuple[TextLine, ...]]:
    """The lines of text, and those that cannot be read."""
    rows = [(number, line.strip()) for number, line in enumerate(read_lines(file), start=1) if line.strip()]
    counts = [_leading(line) for _, line in rows]
    corners = 8 if any(count >= 8 for count in counts) and all(count >= 8 or count < 4 for count in counts) else 4
    rest = [line.split(",", 8)[8:] for (_, line), count in zip(rows, counts, strict=True) if count >= 8]
    has_scripts = bool(rest) and all("," in text[0] and text[0].split(",")[0] in _SCRIPTS for text in rest)
    read: list[TextLine] = []
    illegible: list[TextLine] = []
    for (number, line), count in zip(rows, counts, strict=True):
        what = f"line {number}"
        fields = line.split(",", corners)
        if count < corners:
            frame.lose("lines", "line left out", f"{line[:60]!r} is not x1,y1,x2,y2,x3,y3,x4,y4,text", what)
            continue
        if (corners == 8 and count >= 10) or (corners == 4 and count >= 6):
            said = f"{line[:60]!r} has {count} numbers before its text: more corners than four, or a text of numbers"
            frame.lose("lines", "line left out", said, what)
            continue
        text = fields[-1].split(",", 1)[1] if has_scripts else fields[-1]
        text = text.strip()
        if len(text) >= 2 and text[0] == text[-1] == '"':
            text = text[1:-1].replace('""', '"')
        coordinates = [float(field) for field in fields[:corners]]
        if corners == 4:
            x0, y0, x1, y1 = coordinates
            coordinates = [x0, y0, x1, y0, x1, y1, x0, y1]
        if not text:
            frame.lose("lines", "line left out", "it has no text", what)
        elif quad := frame.quad(coordinates, what):
            (illegible if text == ILLEGIBLE else read).append(TextLine("" if text == ILLEGIBLE else text, quad))
    return tuple(read), tuple(illegible)
