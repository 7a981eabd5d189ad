"""YOLO text labels: `images/`, `labels/`, and `data.yaml` with the classes and the folders of the splits.

Source: https://docs.ultralytics.com/datasets/. Where every object has an outline, these are written and the boxes are
those of the outlines; else boxes are. A label file holds one ring for an object: parts are joined by lines that enclose
nothing, holes are filled. An image that is known to be empty has an empty label file. Training asks for a "val":
without one it is the first split again, until another is put there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from florence_lite.data.annotation import Annotation
from florence_lite.data.samples import Dataset
from florence_lite.data.writers.output import PARTS, Classes, Output
from florence_lite.geometry import solid_rings
from florence_lite.results.handover import yolo_row

FORMATS = {"yolo": frozenset(("objects", "outlines", "empty"))}  # outlines are counted here where boxes are written
HOLES, TWINS = "holes of outlines", "objects that are there twice"
_NOTHING = ("~", "null", "Null", "NULL")  # what YAML, and some that read names, take for no name


def write(splits: Mapping[str, Dataset], output: Output) -> None:
    """A label file and a picture for each image."""
    classes = Classes.of(splits.values(), output, lambda name: f"{name}_" if name in _NOTHING else name)
    splits = classes.sayable(splits)
    output.has_something = lambda a: (
        bool(classes) and ("objects" in a.exhaustive or any(item.label in classes.number_of for item in a.objects))
    )
    known = [a for dataset in splits.values() for a in dataset.annotations]
    outlined = [bool(item.polygons) for a in known for item in a.objects if item.label in classes.number_of]
    as_segments = bool(outlined) and all(outlined)
    for split, dataset in splits.items():
        labels = output.folder / "labels" / split
        labels.mkdir(parents=True)
        for name, annotation in output.placed(dataset, f"images/{split}".rstrip("/")):
            lines = list(_lines(annotation, classes, as_segments, output))
            own = list(dict.fromkeys(lines))
            output.lose(TWINS, len(lines) - len(own))
            (labels / f"{Path(name).stem}.txt").write_text("".join(own), encoding="utf-8", newline="\n")
    folders = {split or "train": f"images/{split}".rstrip("/") for split in splits}
    first = next(iter(folders.values()))
    settings = {"train": first, "val": first} | folders | {"names": dict(enumerate(classes.names))}
    if "val" not in splits:
        output.hint = f"data.yaml names {first} as val too; put other images there to measure on"
    text = yaml.safe_dump(settings, allow_unicode=True, sort_keys=False, width=math.inf)
    (output.folder / "data.yaml").write_text(text, encoding="utf-8", newline="\n")


def _lines(annotation: Annotation, classes: Classes, as_segments: bool, output: Output) -> Iterator[str]:
    for number, item in classes.numbered(annotation.objects, output):
        rings = []
        if as_segments:
            rings = solid_rings(item.polygons, annotation.size_wh)
            output.lose(HOLES, len(item.polygons) - len(rings))
            output.count_loose(item)
        else:
            output.lose(PARTS["outlines"][0], bool(item.polygons))
        yield f"{yolo_row(number, item.box, rings, annotation.size_wh)}\n"
