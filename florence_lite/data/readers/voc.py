"""Pascal VOC: an XML file per image, and lists of the images of each split.

Source: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/. `Annotations/*.xml` hold objects with a name and
xmin ymin xmax ymax, taken as pixels as they stand; `ImageSets/Main/<split>.txt` name the files of a split. Without such
lists a split is a folder of that name. Difficult and truncated objects are objects like the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from florence_lite.data.annotation import Annotation
from florence_lite.data.readers.files import choose_split, files_below, read_lines, split_words
from florence_lite.data.readers.frames import Images
from florence_lite.data.readers.records import ProblemLog, Unclear, finished
from florence_lite.data.samples import Dataset

NAME = "voc"
LOOKS_FOR = ".xml files with an <annotation>"
ENDINGS, DEPTH = (".xml",), 3


def accepts(file: Path) -> bool:
    """Whether a file looks like one of this format."""
    with file.open("rb") as stream:
        return b"<annotation" in stream.read(400)


def read(files: Sequence[Path], root: Path, split: str | None) -> Dataset:
    """The data set that the files tell; see `florence_lite.data.read_dataset`."""
    log = ProblemLog(root)
    images = Images(root, log)
    files, described = _of_split(list(files), root, split, log)
    rows, seen = [], set()
    for file in files:
        try:
            row = _row(file, images, log)
        except Unclear as error:
            log.add(file, file.stem, "record left out", str(error))
            continue
        if row is None:
            continue
        if row[0] in seen:
            log.add(file, file.stem, "duplicate image", f"{row[2]} is annotated before; left out")
            continue
        seen.add(row[0])
        rows.append(row)
    return finished(rows, log, NAME, [described])


def _of_split(files: list[Path], root: Path, split: str | None, log: ProblemLog) -> tuple[list[Path], str]:
    """The files of a split and a line that says which."""
    folders = ", ".join(dict.fromkeys(log.name(file.parent) for file in files))
    if split is None:
        return files, f"{len(files)} .xml files in {folders}"
    lists = [f for f in files_below(root, (".txt",), depth=4) if f.parent.parent.name == "ImageSets"]
    lists.sort(key=lambda file: file.parent.name != "Main")
    chosen = next((f for word in split_words(split) for f in lists if f.stem.lower() == word), None)
    if chosen is None:
        if lists:
            names = ", ".join(log.name(file) for file in lists[:8])
            raise ValueError(f"{root} has no list of the split {split!r}, only {names}")
        return choose_split(files, split, root, "XML file"), f".xml files of the split {split!r}"
    by_name = {file.stem: file for file in files}
    kept = []
    for number, line in enumerate(read_lines(chosen), start=1):
        name = next((name for name in (line.strip(), *line.split()[:1]) if name in by_name), None)
        if name is not None:
            kept.append(by_name[name])
        elif line.strip():
            log.add(chosen, f"line {number}", "record left out", f"there is no {line.strip()}.xml")
    return list(dict.fromkeys(kept)), f"{log.name(chosen)}: {len(kept)} .xml files in {folders}"


def _row(file: Path, images: Images, log: ProblemLog) -> tuple[Path, Annotation, str] | None:
    try:
        top = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise Unclear(f"it is no XML: {error}") from None
    if top.tag != "annotation":
        raise Unclear(f"its outermost element is <{top.tag}>, not <annotation>")
    near = (file.parent, file.parent.parent / "JPEGImages", file.parent.parent / "images")
    try:
        try:
            path = images.find(top.findtext("filename", "").strip() or file.stem, near)
        except Unclear:
            path = images.find(file.stem, near)
    except Unclear as error:
        return log.add(file, file.stem, "image missing", str(error))
    size = tuple(_number(top.findtext(f"size/{side}")) for side in ("width", "height"))
    frame = images.frame(path, size, file, file.stem)
    if frame is None:
        return None
    objects = []
    for number, element in enumerate(top.findall("object"), start=1):
        label, what = (element.findtext("name") or "").strip(), f"object {number}"
        if not label:
            frame.report("object left out", "it has no <name>", what)
            continue
        corners = [element.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
        item = frame.object(label, corners, record=f"{what} {label!r}")
        if item is not None:
            objects.append(item)
    annotation = Annotation(frame.size_wh, tuple(objects), exhaustive=frozenset({"objects"}))
    return path, annotation, log.name(path)


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
