"""YOLO text labels: `images/`, `labels/`, and `data.yaml` with the classes and the folders of the splits.

Source: https://docs.ultralytics.com/datasets/. Where every object has an outline, these are written and the boxes are
those of the outlines; else boxes are. A label file holds one ring for an object: parts are joined by lines that enclose
nothing, holes are filled. An image that is known to be empty has an empty label file. Training asks for a "val":
without one it is the first split again, until another is put there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from florence_lite.answers import Polygons
from florence_lite.data.annotation import Annotation, ObjectAnnotation
from florence_lite.data.samples import Dataset
from florence_lite.data.writers.output import PARTS, Classes, Output
from florence_lite.geometry import polygon_area, rasterize

FORMATS = {"yolo": frozenset(("objects", "outlines", "empty"))}  # outlines are counted here where boxes are written
HOLES, TWINS = "holes of outlines", "objects that are there twice"
_NOTHING = ("~", "null", "Null", "NULL")  # what YAML, and some that read names, take for no name
_DIGITS = 8  # of a share: a hundredth of a pixel in images of a million


def write(splits: Mapping[str, Dataset], output: Output) -> None:
    """A label file and a picture for each image."""
    classes = Classes.of(splits.values(), output, lambda name: f"{name}_" if name in _NOTHING else name)
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
    size = np.array(annotation.size_wh)
    for number, item in classes.numbered(annotation.objects, output):
        if as_segments:
            shares = np.clip(_segment(item, annotation.size_wh, output) / size, 0, 1).ravel()
        else:
            output.lose(PARTS["outlines"][0], bool(item.polygons))
            low, high = np.clip(np.array(item.box).reshape(2, 2) / size, 0, 1)
            shares = [*(low + high) / 2, *(high - low)]
        yield f"{number} {' '.join(np.format_float_positional(each, _DIGITS, trim='-') for each in shares)}\n"


def _segment(item: ObjectAnnotation, size_wh: tuple[int, int], output: Output) -> NDArray[np.float64]:
    """The object's outline as one ring float[n, 2] in pixels."""
    parts = _without_holes(item.polygons, size_wh)
    output.lose(HOLES, len(item.polygons) - len(parts))
    output.count_loose(item)
    return np.concatenate(_joined(parts))


def _without_holes(polygons: Polygons, size_wh: tuple[int, int]) -> list[NDArray[np.float64]]:
    """The rings that enclose something which the larger ones do not, largest first."""
    rings = sorted((np.array(ring, dtype=np.float64) for ring in polygons), key=polygon_area, reverse=True)
    if len(rings) == 1:
        return rings
    covered, parts = np.zeros(size_wh[::-1], dtype=bool), []
    for ring in rings:
        inside = rasterize([ring], size_wh)
        if not parts or (inside & ~covered).sum() * 2 > inside.sum():
            parts.append(ring)
            covered |= inside
    return parts


def _joined(parts: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """One ring through all parts: from each to the next and, at the end, all the way back."""
    closed = [np.concatenate([part, part[:1]]) for part in parts] if len(parts) > 1 else list(parts)
    return closed + [part[:1] for part in parts[-2:0:-1]]
