"""COCO JSON: boxes, polygons, run lengths and captions; panoptic segments; LVIS.

A file holds "images", "annotations" and, for objects, "categories" (https://cocodataset.org/#format-data). Several
files about the same images, instances and captions, are put together; an object that two files tell is one. An image of
a file with categories but without objects is a negative, if all records of the file were understood; one that only has
captions tells nothing about objects. Five captions of an image are one and its alternatives; an extra field "length"
("short", "detailed", "paragraph") tells them apart.

Objects with "iscrowd" or "ignore" are ignored ones; a "score" is that of an object. Of panoptic files ("segments_info")
the boxes of things are read. LVIS's images tell which categories they were searched for ("neg_category_ids",
"not_exhaustive_category_ids"): each that was searched for in full becomes a phrase with its objects or with none, and
the list of all objects is incomplete.
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
from florence_lite.data.readers.files import choose_split, splits_in
from florence_lite.data.readers.frames import ImageFrame
from florence_lite.data.readers.images import Images
from florence_lite.data.readers.records import (
    ProblemLog,
    Unclear,
    caption_levels,
    finished,
    id_of,
    is_set,
    label_of,
    size_of,
)
from florence_lite.data.samples import Dataset
from florence_lite.files import read_json
from florence_lite.geometry import from_xywh, mask_to_rings, rasterize

NAME = "coco"
LOOKS_FOR = 'a .json file with "images" and "annotations"'
ENDINGS, DEPTH = (".json",), 2
CAPTION_LENGTHS = ("short", "detailed", "paragraph")
_INSIDE = ("annotations", "objects", "boxes", "bboxes", "segments", "labels")  # where some keep objects in an image
SEARCHED = ("neg_category_ids", "not_exhaustive_category_ids")


def accepts(file: Path) -> bool:
    """Whether a file looks like one of this format."""
    if file.stat().st_size == 0:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text.find(b'"images"') >= 0 and text.find(b'"annotations"') >= 0


def read(files: Sequence[Path], root: Path, split: str | None, outside: bool = False) -> Dataset:
    """The data set that the files tell; see `florence_lite.data.read_dataset`."""
    log = ProblemLog(root)
    collection = Collection(root, log, files, outside)
    for file in choose_split(files, split, root, "annotation file"):
        collection.add_file(file)
    return collection.finished(NAME)


@dataclass
class Entry:
    """What is known so far about one image.

    negative: why it has no objects, should there be none; "" while no file lists its objects. listed: the categories of
        the files that list them.
    absent, partly: where only some categories were searched for, those that are not in the image and those of which not
        all objects are known; absent is None where all were.
    known: label and box of an object → its place in `objects`, None for an ignored one, and the file that told it.
    """

    path: Path
    frame: ImageFrame
    objects: list[ObjectAnnotation] = field(default_factory=list)
    ignored: list[ObjectAnnotation] = field(default_factory=list)
    negative: str = ""
    listed: set[str] = field(default_factory=set)
    absent: set[str] | None = None
    partly: set[str] = field(default_factory=set)
    captions: list[tuple[str, str]] = field(default_factory=list)  # length, words
    expressions: list[ReferringExpression] = field(default_factory=list)
    known: dict[tuple, tuple[int | None, Path]] = field(default_factory=dict)

    def annotation(self, classes: set[str]) -> Annotation:
        """classes: of the whole data set; where not all were looked for, the objects are not all that there are."""
        short, *longer = ([words for each, words in self.captions if each == length] for length in CAPTION_LENGTHS)
        return self.frame.annotation(
            ("objects",) if self.negative and self.absent is None and self.listed >= classes else (),
            self.negative,
            objects=tuple(self.objects),
            captions=caption_levels(*(words[0] if words else "" for words in (short, *longer))),
            more_captions=tuple(short[1:]),
            expressions=(*self.expressions, *self._categories()),
            ignored=tuple(self.ignored),
        )

    def _categories(self) -> list[ReferringExpression]:
        """Each category that was searched for in full, as a phrase that means its objects."""
        if self.absent is None or "objects" in self.frame.incomplete:
            return []
        labels = self.absent | {item.label for item in self.objects}
        return [
            ReferringExpression(label, tuple(i for i, item in enumerate(self.objects) if item.label == label))
            for label in sorted(labels - self.partly - {item.label for item in self.ignored})
        ]


class Collection:
    """Images and what the files read so far tell about them.

    entries: by the path of the image. by_image_id, by_annotation_id: in all files read, for what refers to them.
    """

    def __init__(self, root: Path, log: ProblemLog, files: Sequence[Path], outside: bool = False):
        self.root, self.log, self.images = root, log, Images(root, log, files, outside)
        self.entries: dict[Path, Entry] = {}
        self.by_image_id: dict[str, Entry | None] = {}
        self.by_annotation_id: dict[str, tuple[Entry, int]] = {}
        self.classes: list[str] = []
        self.files: list[str] = []

    def add_file(self, file: Path) -> None:
        """Take what one file tells. Raises ValueError where it is not of this format."""
        self.by_image_id |= _File(self, file, read_json(file)).add()

    def finished(self, format: str) -> Dataset:
        """All that was collected. Raises ValueError where nothing is left."""
        classes = set(self.classes)
        partly = [entry for entry in self.entries.values() if entry.negative and not entry.listed >= classes]
        if partly:
            missing = ", ".join(sorted(classes - partly[0].listed)[:3])
            what = f"{len(partly)} images are in no file with all {len(classes)} categories, which lack {missing}, …"
            self.log.add(self.root, "files", "some categories not looked for", what)
        rows = [(entry.path, entry.annotation(classes), self.log.name(entry.path)) for entry in self.entries.values()]
        return finished(rows, self.log, format, [*self.files, self.images.described()], self.classes)


class _File:
    """One file, on its way into a collection. categories: id → name. stuff: ids of those that are no things. searches:
    whether its images say which categories they were searched for."""

    def __init__(self, collection: Collection, file: Path, data: Any):
        for name in ("images", "annotations", "categories"):
            if not isinstance(data, dict) or not isinstance(data.get(name, [] if name == "categories" else None), list):
                raise ValueError(f'{file} has no list "{name}"; is it a COCO file?')
        self.collection, self.file, self.log, self.data = collection, file, collection.log, data
        self.images: dict[str, Entry | None] = {}  # None for images that were reported and left out
        self.stuff: set[str] = set()
        self.categories = self._categories(data.get("categories", []))
        self.searches = any(key in r for r in data["images"] if isinstance(r, dict) for key in SEARCHED)
        self.told_before: Counter[Path] = Counter()  # objects that another file told
        self.seen: dict[str, dict] = {}

    def add(self) -> dict[str, Entry | None]:
        """Take what the file tells; returns its images by their ids."""
        records = self.data["annotations"]
        lists_objects = bool(self.categories) or any("category_id" in r for r in records if isinstance(r, dict))
        self._add_images(self.data["images"], lists_objects)
        orphans = 0
        for at, record in enumerate(records):
            number = f"number {at}"
            what = f"annotation {record.get('id', number) if isinstance(record, dict) else number}"
            try:
                self._add(what, record)
            except Unclear as error:
                self.log.add(self.file, what, "annotation left out", str(error))
                orphans += isinstance(error, _Orphan)
                if not isinstance(error, _Orphan | _Wordless):
                    self._entry(record).frame.incomplete.add("objects")
        if orphans and lists_objects:
            self._doubt_negatives(f"{orphans} annotations belong to no image, maybe to these")
        elif lists_objects and not records and len(self.images) > 1:
            self._doubt_negatives("the file has no annotation at all")
        for other, count in self.told_before.items():
            what = f"{count} are those of {self.log.name(other)}; joined"
            self.log.add(self.file, "annotations", "objects told by two files", what)
        self.collection.classes += self.things
        count = sum(isinstance(record, dict) for record in records)
        self.collection.files.append(f"{self.log.name(self.file)}: {len(self.images)} images, {count} annotations")
        return self.images

    @property
    def things(self) -> list[str]:
        """The categories that objects may have."""
        return [name for number, name in self.categories.items() if number not in self.stuff]

    def _doubt_negatives(self, why: str) -> None:
        """Take no image without objects as a negative: records that belong to no image may be theirs."""
        empty = [entry for entry in self.images.values() if entry and not entry.objects and not entry.ignored]
        for entry in empty:
            entry.frame.incomplete.add("objects")
        if empty:
            what = f"{len(empty)} images without objects; {why}"
            self.log.add(self.file, "images", "not taken as empty", what)

    def _categories(self, records: list) -> dict[str, str]:
        names: dict[str, str] = {}
        for record in records:
            number = id_of(record.get("id")) if isinstance(record, dict) else None
            name = label_of(record.get("name")) if isinstance(record, dict) else ""
            if number is None or not name:
                self.log.add(self.file, "categories", "category left out", f"{record} has no id or no name")
            elif number in names and names[number] != name:
                self.log.add(self.file, "categories", "duplicate id", f"{number} is also {names[number]!r}")
            else:
                names[number] = name
                if "isthing" in record and not is_set(record["isthing"]):
                    self.stuff.add(number)
        return names

    def _add_images(self, records: list, lists_objects: bool) -> None:
        """Fill `images` and open the collection's entries."""
        near = self._folders()
        seen: set[Path] = set()
        for record in records:
            number = id_of(record.get("id")) if isinstance(record, dict) else None
            file_name = (record.get("file_name") or record.get("coco_url")) if isinstance(record, dict) else None
            if number is None or not isinstance(file_name, str):
                self.log.add(self.file, "images", "image left out", f"{record} has no id or no file_name")
                continue
            name = f"image {file_name}"
            if number in self.images:
                said = f"the id {number} is that of an image before; left out"
                self.log.add(self.file, name, "duplicate id", said)
                if self.images[number] is not None:
                    self.images[number].frame.incomplete.add("objects")  # the annotations may be the other's
                continue
            self.images[number] = None
            try:
                path = self.collection.images.find(file_name, self.file, near)
            except Unclear as error:
                self.log.add(self.file, name, "image missing", str(error))
                continue
            entries = self.collection.entries
            if path not in entries:
                declared = size_of(record.get("width"), record.get("height"))
                frame = self.collection.images.frame(path, declared, self.file, name)
                if frame is None:
                    continue
                entries[path] = Entry(path, frame)
            elif path in seen:
                said = "listed under two ids; their annotations are put together"
                self.log.add(self.file, name, "duplicate image", said)
            seen.add(path)
            self.images[number] = entries[path]
            if inside := [key for key in _INSIDE if record.get(key)]:
                said = f"its image holds {inside[0]!r}, which belongs into the file's list of annotations"
                entries[path].frame.lose("objects", "annotation left out", said, name)
            if lists_objects:
                entries[path].negative = f"{self.log.name(self.file)} lists it without objects"
                entries[path].listed.update(self.things)
                self._search(entries[path], record)

    def _search(self, entry: Entry, record: dict) -> None:
        """Take down which categories LVIS's image was searched for."""
        if not any(key in record for key in SEARCHED):
            if self.searches:
                entry.frame.lose("objects", "searched categories unknown", "other images of the file say theirs")
            return
        if strange := [key for key in SEARCHED if not isinstance(record.get(key, []), list)]:
            what = f"{strange[0]} is {record[strange[0]]!r}, no list"
            entry.frame.lose("objects", "searched categories unknown", what)
        lists = (record[key] if isinstance(record.get(key), list) else [] for key in SEARCHED)
        absent, partly = ({self.categories.get(id_of(number), "") for number in numbers} - {""} for numbers in lists)
        entry.absent, entry.partly = (entry.absent or set()) | absent, entry.partly | partly

    def _folders(self) -> list[Path]:
        """Where images are that a file names: beside it, in a folder of images, or in the folder of its split."""
        root, parent = self.collection.root, self.file.parent
        words = [word for word in self.file.stem.replace(".", "_").replace("-", "_").split("_") if splits_in(word)]
        folders = [parent, parent / "images", parent.parent / "images"]
        return folders + [base / word for word in words for base in (root, root / "images", parent.parent)]

    def _entry(self, record: dict) -> Entry | None:
        """What is known about the image of a record; None for one that was left out. Raises _Orphan for no image."""
        number = id_of(record.get("image_id")) if isinstance(record, dict) else None
        if number not in self.images:
            said = f"its image_id {record.get('image_id')!r}" if isinstance(record, dict) else f"{record!r}"
            raise _Orphan(f"{said} is none of the file's images")
        return self.images[number]

    def _add(self, what: str, record: Any) -> None:
        entry = self._entry(record)
        if entry is None:
            return  # reported with its image
        number = id_of(record.get("id"))
        if number is not None and number in self.seen:
            if record == self.seen[number]:
                return self.log.add(self.file, what, "duplicate id", "the same record is there before; left out")
            self.log.add(self.file, what, "duplicate id", "another record has this id; both are kept")
        self.seen[number] = record
        if "segments_info" in record:
            self._add_segments(entry, what, record["segments_info"])
        elif any(key in record for key in ("category_id", "bbox", "segmentation")):
            self._add_object(entry, what, record)
        elif "caption" in record:
            self._add_caption(entry, record)
        else:
            raise Unclear(f"it has none of category_id, bbox, segmentation, segments_info and caption: {list(record)}")

    def _add_caption(self, entry: Entry, record: dict) -> None:
        words = label_of(record["caption"])
        length = record.get("length") if record.get("length") in CAPTION_LENGTHS else CAPTION_LENGTHS[0]
        if not words:
            raise _Wordless("its caption is empty")
        if length != CAPTION_LENGTHS[0] and any(length == other for other, _ in entry.captions):
            raise _Wordless(f"the image has a {length} caption before")
        entry.captions.append((length, words))

    def _add_segments(self, entry: Entry, what: str, segments: Any) -> None:
        """The things among the segments of a panoptic image; their outlines are in a picture, which is not read."""
        if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
            raise Unclear("its segments_info is no list of segments")
        for segment in segments:
            if id_of(segment.get("category_id")) not in self.stuff:
                record = {key: value for key, value in segment.items() if key != "id"}
                self._add_object(entry, f"{what}, segment {segment.get('id')}", record)

    def _add_object(self, entry: Entry, what: str, record: dict) -> None:
        frame = replace(entry.frame, file=self.file)
        label = self.categories.get(id_of(record.get("category_id")) or "")
        if label is None:
            said = f"category_id {record.get('category_id')!r} is not listed; left out"
            return frame.lose("objects", "unknown category", said, what)
        rings = self._rings(frame, what, record.get("segmentation"))
        box = xyxy(record.get("bbox"))
        if box is None and rings:
            points = np.concatenate([np.array(ring) for ring in rings]) / frame.scale
            box = (*points.min(axis=0), *points.max(axis=0))
        score = record.get("score")
        item = frame.object(label, box if box is not None else record.get("bbox"), record=what, score=score)
        if item is None:
            return
        item = replace(item, polygons=rings, phrase=label_of(record.get("caption")))
        ignored = is_set(record.get("iscrowd")) or is_set(record.get("ignore"))
        place = self._place(entry, item, ignored)
        if place is not None and id_of(record.get("id")) is not None:
            self.collection.by_annotation_id[id_of(record["id"])] = (entry, place)

    def _place(self, entry: Entry, item: ObjectAnnotation, ignored: bool) -> int | None:
        """Put the object with the image, unless another file told it; returns its place, None for an ignored one."""
        key = (item.label, *(round(side, 1) for side in item.box))
        place, teller = entry.known.get(key, (None, self.file))
        if teller != self.file:
            self.told_before[teller] += 1
            if place is not None and not entry.objects[place].polygons:
                entry.objects[place] = replace(entry.objects[place], polygons=item.polygons)
            return place
        place = None if ignored else len(entry.objects)
        (entry.ignored if ignored else entry.objects).append(item)
        entry.known[key] = (place, self.file)
        return place

    def _rings(self, frame: ImageFrame, what: str, segmentation: Any) -> Polygons:
        if not segmentation:
            return ()
        if isinstance(segmentation, dict):
            return frame.outlines_of_mask(segmentation, what)
        if not isinstance(segmentation, list):
            frame.report("polygon left out", f"segmentation is a {type(segmentation).__name__}, not a list", what)
            return ()
        parts = segmentation if isinstance(segmentation[0], list) else [segmentation]
        return union(frame.polygons(parts, what), frame.size_wh)


class _Orphan(Unclear):
    """A record that belongs to no image of its file."""


class _Wordless(Unclear):
    """A caption that cannot be taken; it says nothing about objects."""


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


def xyxy(bbox: Any) -> tuple[float, ...] | None:
    try:
        return from_xywh(*(float(number) for number in bbox))
    except (TypeError, ValueError, OverflowError):
        return None
