"""Text with quadrilaterals: a text file per image, as ICDAR 2015 and MLT have it.

Source: https://rrc.cvc.uab.es/?ch=4&com=tasks. `gt_img_1.txt` (or `img_1.txt`) belongs to the image `img_1`; each line
is `x1,y1,x2,y2,x3,y3,x4,y4,text`, clockwise from the top left of the reading direction, in pixels; MLT has the script
before the text. Of ICDAR 2013's `x0,y0,x1,y1,"text"` the box is the quadrilateral. `###` marks text that cannot be
read: it is left out.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from florence_lite.data.annotation import Annotation, TextLine
from florence_lite.data.readers.files import choose_split, read_lines
from florence_lite.data.readers.frames import ImageFrame, Images
from florence_lite.data.readers.records import ProblemLog, Unclear, finished
from florence_lite.data.samples import Dataset

NAME = "icdar"
LOOKS_FOR = "gt_….txt files of lines x1,y1,x2,y2,x3,y3,x4,y4,text"
ENDINGS, DEPTH = (".txt",), 2
ILLEGIBLE = "###"
_SCRIPTS = {"Latin", "Arabic", "Chinese", "Japanese", "Korean", "Bangla", "Hindi", "Symbols", "Mixed", "None"}


def accepts(file: Path) -> bool:
    """Whether a file looks like one of this format."""
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        first = next((line for line in stream if line.strip()), "")
    return bool(_numbers(first)) or (not first and file.name.startswith("gt_"))


def read(files: Sequence[Path], root: Path, split: str | None) -> Dataset:
    """The data set that the files tell; see `florence_lite.data.read_dataset`."""
    log = ProblemLog(root)
    images = Images(root, log)
    rows = []
    files = choose_split(files, split, root, "text file")
    for file in files:
        try:
            path = images.find(re.sub(r"^gt_|[_.]gt$", "", file.stem), (file.parent,))
        except Unclear as error:
            log.add(file, file.stem, "image missing", str(error))
            continue
        frame = images.frame(path, None, file, path.name)
        if frame is not None:
            annotation = Annotation(frame.size_wh, lines=_lines(file, frame), exhaustive=frozenset({"lines"}))
            rows.append((path, annotation, log.name(path)))
    folders = ", ".join(dict.fromkeys(log.name(file.parent) for file in files))
    return finished(rows, log, NAME, [f"{len(files)} .txt files in {folders}"])


def _numbers(line: str) -> list[float]:
    """The coordinates that a line begins with: eight, four, or none where it is no line of this format."""
    fields = line.strip().split(",")
    for count in (8, 4):
        with contextlib.suppress(ValueError):
            if len(fields) > count:
                return [float(field) for field in fields[:count]]
    return []


def _lines(file: Path, frame: ImageFrame) -> tuple[TextLine, ...]:
    rows = [(number, line.strip()) for number, line in enumerate(read_lines(file), start=1) if line.strip()]
    rest = {number: line.split(",", 8)[8:] for number, line in rows if len(_numbers(line)) == 8}
    has_scripts = bool(rest) and all("," in text[0] and text[0].split(",")[0] in _SCRIPTS for text in rest.values())
    lines = []
    for number, line in rows:
        what, coordinates = f"line {number}", _numbers(line)
        if not coordinates:
            frame.report("line left out", f"{line[:60]!r} is not x1,y1,x2,y2,x3,y3,x4,y4,text", what)
            continue
        text = line.split(",", len(coordinates))[-1]
        text = text.split(",", 1)[1] if has_scripts else text
        text = text.strip()
        if len(text) >= 2 and text[0] == text[-1] == '"':
            text = text[1:-1].replace('""', '"')
        if len(coordinates) == 4:
            x0, y0, x1, y1 = coordinates
            coordinates = [x0, y0, x1, y0, x1, y1, x0, y1]
        if text == ILLEGIBLE:
            frame.report("illegible text left out", f"it is marked {ILLEGIBLE}", what)
        elif not text:
            frame.report("line left out", "it has no text", what)
        elif quad := frame.quad(coordinates, what):
            lines.append(TextLine(text, quad))
    return tuple(lines)
