"""Pascal VOC: `Annotations/*.xml`, `JPEGImages/`, and a list of the images of each split in `ImageSets/Main/`.

Boxes are rounded to whole pixels, as most that read the format expect; no box loses its area by that. Ignored objects
are `difficult`. Source: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as XML

from florence_lite.answers import Box
from florence_lite.data.annotation import Annotation
from florence_lite.data.samples import Dataset
from florence_lite.data.writers.output import Classes, Output

FORMATS = {"voc": frozenset(("objects", "empty", "ignored"))}
ALL = "trainval"  # what the list of data without splits is called, as VOC calls all that may be trained on


def write(splits: Mapping[str, Dataset], output: Output) -> None:
    """An XML file and a picture for each image, whose names no image of another split has."""
    classes = Classes.of(splits.values(), output)
    splits = classes.sayable(splits)
    output.has_something = lambda a: (
        "objects" in a.exhaustive or any(item.label in classes.number_of for item in (*a.objects, *a.ignored))
    )
    for folder in ("Annotations", "ImageSets/Main"):
        (output.folder / folder).mkdir(parents=True)
    for split, dataset in splits.items():
        with (output.folder / "ImageSets" / "Main" / f"{split or ALL}.txt").open("w", encoding="utf-8") as listed:
            for name, annotation in output.placed(dataset, "JPEGImages"):
                stem = Path(name).stem
                element = _element(name, annotation, classes, output)
                XML.ElementTree(element).write(output.folder / "Annotations" / f"{stem}.xml", encoding="utf-8")
                listed.write(f"{stem}\n")


def _element(name: str, annotation: Annotation, classes: Classes, output: Output) -> XML.Element:
    top = XML.Element("annotation")
    _add(top, "folder", "JPEGImages")
    _add(top, "filename", name)
    size = XML.SubElement(top, "size")
    for tag, value in zip(("width", "height", "depth"), (*annotation.size_wh, 3), strict=True):
        _add(size, tag, value)
    _add(top, "segmented", 0)
    for is_difficult, items in ((0, annotation.objects), (1, annotation.ignored)):
        for number, item in classes.numbered(items, output):
            element = XML.SubElement(top, "object")
            _add(element, "name", classes.names[number])
            _add(element, "pose", "Unspecified")
            _add(element, "truncated", 0)
            _add(element, "difficult", is_difficult)
            box = XML.SubElement(element, "bndbox")
            for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), _whole(item.box), strict=True):
                _add(box, tag, value)
    XML.indent(top)
    return top


def _add(element: XML.Element, tag: str, value: object) -> None:
    XML.SubElement(element, tag).text = str(value)


def _whole(box: Box) -> tuple[int, int, int, int]:
    """The box in whole pixels; where a side would vanish, the pixels that it touches."""
    sides = []
    for low, high in ((box[0], box[2]), (box[1], box[3])):
        whole = round(low), round(high)
        sides.append(whole if whole[0] < whole[1] else (math.floor(low), math.ceil(high)))
    (x0, x1), (y0, y1) = sides
    return x0, y0, x1, y1
