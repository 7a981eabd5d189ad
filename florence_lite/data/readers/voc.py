"""Pascal VOC: an XML file per image, and lists of the images of each split.

Source: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/. `Annotations/*.xml` hold objects with a name and
xmin ymin xmax ymax, taken as pixels as they stand; `ImageSets/Main/<split>.txt` name the files of a split. Without such
lists a split is a folder of that name. Difficult objects are ignored ones, truncated ones are objects like the others.
Rotated boxes (`robndbox`: centre, width, height, and an angle in radians, clockwise) become outlines.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, ElementTree

from florence_lite.data.annotation import Annotation, ObjectAnnotation
from florence_lite.data.readers.files import beginning, choose_split, files_below, read_lines, split_words
from florence_lite.data.readers.frames import ImageFrame
from florence_lite.data.readers.images import Images
from florence_lite.data.readers.records import ProblemLog, Unclear, finished, is_set, label_of, size_of
from florence_lite.data.samples import Dataset

NAME = "voc"
LOOKS_FOR = ".xml files with an <annotation>"
ENDINGS, DEPTH = (".xml",), 3
_PARTS = ("object", "source", "owner", "size", "imagesize")  # the parts of an annotation that have parts themselves


def accepts(file: Path) -> bool:
    """Whether a file looks like one of this format."""
    return "<annotation" in beginning(file)


def read(files: Sequence[Path], root: Path, split: str | None, outside: bool = False) -> Dataset:
    """The data set that the files tell; see `florence_lite.data.read_dataset`."""
    log = ProblemLog(root)
    images = Images(root, log, files, outside)
    files, described = _of_split(list(files), root, split, log)
    rows: dict[Path, tuple[Path, Annotation, str]] = {}
    for file in files:
        try:
            row = _row(file, images, log)
        except Unclear as error:
            log.add(file, file.stem, "record left out", str(error))
            continue
        if row is None:
            continue
        path, annotation, name = row
        if path in rows:
            log.add(file, file.stem, "duplicate image", f"{name} is annotated before; left out")
            if annotation != rows[path][1]:  # which of the two is true is not known
                annotation = replace(rows[path][1], exhaustive=frozenset(), negative="")
        rows[path] = path, annotation, name
    return finished(list(rows.values()), log, NAME, [described, images.described()])


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
    top = _parsed(file)
    if top.tag != "annotation":
        raise Unclear(f"its outermost element is <{top.tag}>, not <annotation>")
    try:
        path = _image(top, file, images, log)
    except Unclear as error:
        return log.add(file, file.stem, "image missing", str(error))
    frame = images.frame(path, size_of(top.findtext("size/width"), top.findtext("size/height")), file, file.stem)
    if frame is None:
        return None
    found: dict[bool, list[ObjectAnnotation]] = {True: [], False: []}
    for number, element in enumerate(top.findall("object"), start=1):
        if item := _object(element, frame, f"object {number}"):
            found[is_set(element.findtext("difficult"))].append(item)
    if strange := _objects_elsewhere(top):
        frame.lose("objects", "object left out", f"{strange} is not inside of an <object> of the annotation")
    annotation = frame.annotation(
        ("objects",), "its XML names no object", objects=tuple(found[False]), ignored=tuple(found[True])
    )
    return path, annotation, log.name(path)


def _parsed(file: Path) -> Element:
    """The outermost element. Encodings that the XML parser does not know are decoded before."""
    raw = file.read_bytes()
    try:
        try:
            return ElementTree.fromstring(raw)
        except (ValueError, LookupError) as error:
            if isinstance(error, DefusedXmlException):
                raise
            declared = re.match(rb"""\s*<\?xml[^>]*?encoding=["']([\w.-]+)["'][^>]*\?>""", raw)
            if declared is None:
                raise
            return ElementTree.fromstring(raw[declared.end() :].decode(declared[1].decode()))
    except (ParseError, ValueError, LookupError, RecursionError) as error:
        raise Unclear(f"it is no XML: {error or type(error).__name__}") from None


def _objects_elsewhere(top: Element) -> str:
    """An element that tells of an object where none is looked for, or ""."""
    looked_for = {id(each) for element in top.findall("object") for each in element.iter()}
    names = ("object", "bndbox", "robndbox", "xmin", "box", "polygon")
    strange = (each for each in top.iter() if str(each.tag).lower() in names and id(each) not in looked_for)
    unknown = (each for each in top if (len(each) or each.attrib) and each.tag not in _PARTS)
    return next((f"<{each.tag}>" for each in itertools.chain(strange, unknown)), "")


def _image(top: Element, file: Path, images: Images, log: ProblemLog) -> Path:
    """The image that the XML names, else the one that is called like the file, which is reported."""
    near = (file.parent, file.parent.parent / "JPEGImages", file.parent.parent / "images")
    named = (top.findtext("filename") or "").strip()
    if not named:
        return images.find(file.stem, file, near)
    try:
        path = images.find(named, file, near)
    except Unclear as error:
        path = images.find(file.stem, file, near)
        log.add(file, file.stem, "image found elsewhere", f"{error}; {log.name(path)} is called like the file")
        return path
    if path.stem != file.stem and (namesake := images.beside(file.stem, near)) not in (None, path):
        log.add(file, file.stem, "name of another file", f"it names {named}, while {log.name(namesake)} is there too")
    return path


def _object(element: Element, frame: ImageFrame, what: str) -> ObjectAnnotation | None:
    label = label_of(element.findtext("name"))
    if not label:
        return frame.lose("objects", "object left out", "it has no <name>", what)
    what = f"{what} {label!r}"
    if (rotated := element.find("robndbox")) is not None:
        ring = _rotated([rotated.findtext(name) for name in ("cx", "cy", "w", "h", "angle")])
        if ring is None:
            return frame.lose("objects", "box left out", "its robndbox is not five finite numbers", what)
        xs, ys = zip(*ring, strict=True)
        return frame.object(label, (min(xs), min(ys), max(xs), max(ys)), [ring], record=what)
    corners = [element.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
    return frame.object(label, corners, record=what)


def _rotated(values: Sequence[Any]) -> list[tuple[float, float]] | None:
    """The four corners of a box round cx cy that is turned by an angle; None for values that are no numbers."""
    try:
        cx, cy, width, height, angle = (float(value) for value in values)
        cos, sin = math.cos(angle), math.sin(angle)
    except (TypeError, ValueError):
        return None
    corners = ((-width / 2, -height / 2), (width / 2, -height / 2), (width / 2, height / 2), (-width / 2, height / 2))
    return [(cx + x * cos - y * sin, cy + x * sin + y * cos) for x, y in corners]
