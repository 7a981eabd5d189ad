"""COCO JSON: boxes, polygons, run lengths and captions.

A file holds "images", "annotations" and, for objects, "categories" (https://cocodataset.org/#format-data). Several
files about the same images, instances and captions, are put together. Images lie beside the file or anywhere below the
folder. An image of a file with categories but without objects is a negative; one that only has captions tells nothing
about objects. Five captions of an image are one and its alternatives; an extra field "length" ("short", "detailed",
"paragraph") tells them apart.
"""

from __future__ import annotations

import itertools
import mmap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from florence_lite.answers import Polygons
from florence_lite.data.annotation import Annotation, ObjectAnnotation, ReferringExpression
from florence_lite.data.readers.files import choose_split
from florence_lite.data.readers.frames import ImageFrame, Images
from florence_lite.data.readers.records import ProblemLog, Unclear, caption_levels, finished, is_id
from florence_lite.data.readers.rle import rle_to_mask
from florence_lite.data.samples import Dataset
from florence_lite.files import read_json
from florence_lite.geometry import from_xywh, mask_to_rings, rasterize

NAME = "coco"
LOOKS_FOR = 'a .json file with "images" and "annotations"'
ENDINGS, DEPTH = (".json",), 2
CAPTION_LENGTHS = ("short", "detailed", "paragraph")


def accepts(file: Path) -> bool:
    """Whether a file looks like one of this format."""
    if file.stat().st_size == 0:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text.find(b'"images"') >= 0 and text.find(b'"annotations"') >= 0


def read(files: Sequence[Path], root: Path, split: str | None) -> Dataset:
    """The data set that the files tell; see `florence_lite.data.read_dataset`."""
    log = ProblemLog(root)
    collection = Collection(root, log)
    for file in choose_split(files, split, root, "annotation file"):
        collection.add_file(file)
    return collection.finished(NAME)


@dataclass
class Entry:
    """What is known so far about one image."""

    path: Path
    frame: ImageFrame
    objects: list[ObjectAnnotation] = field(default_factory=list)
    lists_objects: bool = False
    captions: list[tuple[str, str]] = field(default_factory=list)  # length, words
    expressions: list[ReferringExpression] = field(default_factory=list)

    def annotation(self) -> Annotation:
        short, *longer = ([words for each, words in self.captions if each == length] for length in CAPTION_LENGTHS)
        return Annotation(
            self.frame.size_wh,
            tuple(self.objects),
            captions=caption_levels(*(words[0] if words else "" for words in (short, *longer))),
            more_captions=tuple(short[1:]),
            expressions=tuple(self.expressions),
            exhaustive=frozenset({"objects"} if self.lists_objects else ()),
        )


class Collection:
    """Images and what the files read so far tell about them.

    entries: by the path of the image. by_image_id, by_annotation_id: in all files read, for what refers to them.
    """

    def __init__(self, root: Path, log: ProblemLog):
        self.images, self.log = Images(root, log), log
        self.entries: dict[Path, Entry] = {}
        self.by_image_id: dict[Any, Entry | None] = {}
        self.by_annotation_id: dict[Any, tuple[Entry, int]] = {}
        self.classes: list[str] = []
        self.files: list[str] = []

    def add_file(self, file: Path) -> None:
        """Take what one file tells. Raises ValueError where it is not of this format."""
        data = read_json(file)
        for name in ("images", "annotations", "categories"):
            if not isinstance(data, dict) or not isinstance(data.get(name, [] if name == "categories" else None), list):
                raise ValueError(f'{file} has no list "{name}"; is it a COCO file?')
        records = [record for record in data["annotations"] if isinstance(record, dict)]
        categories = self._categories(file, data.get("categories", []))
        lists_objects = bool(categories) or any("category_id" in record for record in records)
        images = self._images(file, data["images"], lists_objects)
        self.by_image_id |= images
        seen: dict[Any, dict] = {}
        for number, record in enumerate(data["annotations"]):
            what = (
                f"annotation {record.get('id', f'number {number}') if isinstance(record, dict) else f'number {number}'}"
            )
            try:
                self._add(file, what, record, images, categories, seen)
            except Unclear as error:
                self.log.add(file, what, "annotation left out", str(error))
        self.files.append(f"{self.log.name(file)}: {len(images)} images, {len(records)} annotations")

    def _categories(self, file: Path, records: list) -> dict[Any, str]:
        names: dict[Any, str] = {}
        for record in records:
            if not isinstance(record, dict) or not is_id(record.get("id")) or not str(record.get("name", "")).strip():
                self.log.add(file, "categories", "category left out", f"{record} has no id or no name")
            elif record["id"] in names and names[record["id"]] != record["name"]:
                self.log.add(file, "categories", "duplicate id", f"{record['id']} is also {names[record['id']]!r}")
            else:
                names[record["id"]] = str(record["name"])
        self.classes += names.values()
        return names

    def _images(self, file: Path, records: list, lists_objects: bool) -> dict[Any, Entry | None]:
        """Entries by image id; None for images that were reported and left out."""
        near = (file.parent, file.parent / "images", file.parent.parent / "images")
        images: dict[Any, Entry | None] = {}
        seen: set[Path] = set()
        for record in records:
            if not (isinstance(record, dict) and is_id(record.get("id")) and isinstance(record.get("file_name"), str)):
                self.log.add(file, "images", "image left out", f"{record} has no id or no file_name")
                continue
            name = f"image {record['file_name']}"
            if record["id"] in images:
                self.log.add(file, name, "duplicate id", f"the id {record['id']} is that of an image before; left out")
                continue
            images[record["id"]] = None
            try:
                path = self.images.find(record["file_name"], near)
            except Unclear as error:
                self.log.add(file, name, "image missing", str(error))
                continue
            if path not in self.entries:
                declared = (record.get("width"), record.get("height"))
                usable = all(isinstance(side, int | float) and 0 < side < 1e9 for side in declared)
                frame = self.images.frame(path, declared if usable else None, file, name)
                if frame is None:
                    continue
                self.entries[path] = Entry(path, frame)
            elif path in seen:
                self.log.add(file, name, "duplicate image", "listed under two ids; their annotations are put together")
            seen.add(path)
            images[record["id"]] = self.entries[path]
            self.entries[path].lists_objects |= lists_objects
        return images

    def _add(self, file: Path, what: str, record: Any, images: dict, categories: dict[Any, str], seen: dict) -> None:
        if not isinstance(record, dict):
            raise Unclear(f"{record!r} is no object")
        number = record.get("id")
        for key in ("id", "image_id", "category_id"):
            if key in record and not is_id(record[key]):
                raise Unclear(f"its {key} is {record[key]!r}; it must be a number or a word")
        if number is not None and number in seen:
            if record == seen[number]:
                return self.log.add(file, what, "duplicate id", "the same record is there before; left out")
            self.log.add(file, what, "duplicate id", "another record has this id; both are kept")
        seen[number] = record
        if record.get("image_id") not in images:
            raise Unclear(f"its image_id {record.get('image_id')!r} is none of the file's images")
        entry = images[record["image_id"]]
        if entry is None:
            return  # reported with its image
        if "caption" in record:
            words = str(record["caption"] or "").strip()
            if not words:
                raise Unclear("its caption is empty")
            length = record.get("length") if record.get("length") in CAPTION_LENGTHS else CAPTION_LENGTHS[0]
            if length != CAPTION_LENGTHS[0] and any(length == other for other, _ in entry.captions):
                raise Unclear(f"the image has a {length} caption before")
            entry.captions.append((length, words))
        if "category_id" in record or "bbox" in record or "segmentation" in record:
            self._add_object(replace(entry.frame, file=file), entry, what, record, categories)

    def _add_object(self, frame: ImageFrame, entry: Entry, what: str, record: dict, categories: dict[Any, str]) -> None:
        if record.get("iscrowd"):
            return frame.report("crowd left out", "iscrowd is set", what)
        if record.get("category_id") not in categories:
            return frame.report(
                "unknown category", f"category_id {record.get('category_id')!r} is not listed; left out", what
            )
        rings = self._rings(frame, what, record.get("segmentation"))
        box = _xyxy(record.get("bbox"))
        if box is None and rings:
            points = np.concatenate([np.array(ring) for ring in rings]) / frame.scale
            box = [*points.min(axis=0), *points.max(axis=0)]
        inside = frame.object(
            categories[record["category_id"]], box if box is not None else record.get("bbox"), record=what
        )
        if inside is not None:
            entry.objects.append(replace(inside, polygons=rings))
            if "id" in record:
                self.by_annotation_id[record["id"]] = (entry, len(entry.objects) - 1)

    def _rings(self, frame: ImageFrame, what: str, segmentation: Any) -> Polygons:
        if not segmentation:
            return ()
        if isinstance(segmentation, dict):
            try:
                mask = rle_to_mask(segmentation)
            except ValueError as error:
                frame.report("polygon left out", str(error), what)
                return ()
            declared = [round(side / factor) for side, factor in zip(frame.size_wh, frame.scale, strict=True)]
            if list(mask.shape[::-1]) != declared:
                size = f"{mask.shape[1]}×{mask.shape[0]}"
                frame.report(
                    "polygon left out", f"its run lengths are for {size} pixels, not {declared[0]}×{declared[1]}", what
                )
                return ()
            return frame.polygons(mask_to_rings(mask), what)
        if not isinstance(segmentation, list):
            frame.report("polygon left out", f"segmentation is a {type(segmentation).__name__}, not a list", what)
            return ()
        parts = segmentation if isinstance(segmentation[0], list) else [segmentation]
        return union(frame.polygons(parts, what), frame.size_wh)

    def finished(self, format: str) -> Dataset:
        """All that was collected. Raises ValueError where nothing is left."""
        rows = [(entry.path, entry.annotation(), self.log.name(entry.path)) for entry in self.entries.values()]
        return finished(rows, self.log, format, [*self.files, _folders(self.entries, self.log)], self.classes)


def union(parts: Polygons, size_wh: tuple[int, int]) -> Polygons:
    """Polygons of all that the parts cover. COCO's parts add up where they overlap, rings would cancel each other."""
    if len(parts) < 2:
        return parts
    bounds = [(*np.min(part, axis=0), *np.max(part, axis=0)) for part in parts]
    apart = all(
        a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1] for a, b in itertools.combinations(bounds, 2)
    )
    if apart:
        return parts
    covered = np.logical_or.reduce([rasterize([part], size_wh) for part in parts])
    if (covered == rasterize(parts, size_wh)).all():
        return parts
    return tuple(tuple(map(tuple, ring.tolist())) for ring in mask_to_rings(covered))


def _xyxy(bbox: Any) -> tuple[float, ...] | None:
    try:
        return from_xywh(*(float(number) for number in bbox))
    except (TypeError, ValueError, OverflowError):
        return None


def _folders(paths: Sequence[Path] | dict, log: ProblemLog) -> str:
    """Where the images lie, in a line."""
    counts = Counter(log.name(path.parent) for path in paths)
    return "images in " + ", ".join(f"{folder} ({count})" for folder, count in counts.most_common(5))
