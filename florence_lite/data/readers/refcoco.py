"""Expressions about the images of COCO files, as RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO have them.

Beside one or more COCO files lies a list of records, as .json or as RefCOCO's own `refs(unc).p`:

    image       "image_id", or "file_name"
    words       "sentences" (texts, or {"sent": …}); or one of "caption", "expression", "phrase", "sentence", "sent"
    what it     "ann_id", "ann_ids", "annotation_id", "annotation_ids": one or several ids of the COCO files; or
    means       "bbox_xyxy" (x0 y0 x1 y1) or "bbox" (x y width height), one or several, in the pixels that the COCO
                file gives the image; null, [] or [-1] mean that nothing in the image is meant
    "split"     optional; where records have it, it decides which images belong to a split

A box that overlaps an object of the same image by an IoU of `SAME_OBJECT` means this object; another becomes an object
without a label, and the image's list of objects counts as incomplete.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from florence_lite.data.annotation import ObjectAnnotation, ReferringExpression
from florence_lite.data.readers import coco
from florence_lite.data.readers.coco import Collection, Entry
from florence_lite.data.readers.files import choose_split, files_of, split_words
from florence_lite.data.readers.frames import ImageFrame
from florence_lite.data.readers.records import ProblemLog, Unclear, id_of
from florence_lite.data.samples import Dataset
from florence_lite.files import read_json
from florence_lite.geometry import box_iou

NAME = "refcoco"
LOOKS_FOR = 'a .json list (or refs(…).p) of expressions with "image_id", beside a COCO file'
ENDINGS, DEPTH = (".json", ".p"), 2
SAME_OBJECT = 0.7  # IoU from which two boxes are one object boxed twice
_WORDS = ("caption", "expression", "phrase", "sentence", "sent", "raw")
_IDS = ("ann_ids", "annotation_ids", "ann_id", "annotation_id")
_BOXES = ("bbox_xyxy", "bbox")


def accepts(file: Path) -> bool:
    """Whether a file looks like a list of expressions."""
    if file.suffix == ".p":
        return True
    with file.open("rb") as stream:
        if not stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            return False
    records = read_json(file)
    return bool(records) and _is_expression(records[0])


def read(files: Sequence[Path], root: Path, split: str | None, outside: bool = False) -> Dataset:
    """The data set of expression lists `files` and the COCO files below `root`; see `florence_lite.data.read_dataset`.

    Raises ValueError where no COCO file says where the images are.
    """
    log = ProblemLog(root)
    listed, _ = files_of(coco, root)
    if not listed:
        raise ValueError(f"{root} has expressions, {files[0].name}, but no COCO file that names the images")
    collection = Collection(root, log, listed, outside)
    lists = {file: _records(file) for file in files}
    own_split = split is not None and any("split" in record for records in lists.values() for record in records)
    if split is not None and not own_split:
        chosen = choose_split([*lists, *listed], split, root, "annotation file")
        lists = {file: records for file, records in lists.items() if file in chosen}
        listed = [file for file in listed if file in chosen] or listed
    for file in listed:
        collection.add_file(file)
    meant: set[Path] = set()
    for file, records in lists.items():
        if own_split:
            records = [record for record in records if str(record.get("split", "")).lower() in split_words(split)]
        meant |= _add_expressions(collection, file, records)
        collection.files.append(f"{log.name(file)}: {len(records)} expressions")
    if own_split:
        collection.entries = {path: entry for path, entry in collection.entries.items() if path in meant}
    return collection.finished(NAME)


def _is_expression(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and ("image_id" in record or "file_name" in record)
        and any(key in record for key in ("sentences", *_WORDS))
        and any(key in record for key in (*_IDS, *_BOXES))
    )


def _records(file: Path) -> list[dict]:
    records = _PlainUnpickler.load_file(file) if file.suffix == ".p" else read_json(file)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{file} is no list of expressions")
    return records


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts, strings and numbers; a pickle that names any code is refused, for it could run it."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is not plain data")

    @classmethod
    def load_file(cls, file: Path) -> Any:
        try:
            with file.open("rb") as stream:
                return cls(stream, encoding="utf-8").load()
        except Exception as error:  # damaged pickles fail in many ways
            raise ValueError(f"{file} cannot be read as expressions: {error}") from None


def _add_expressions(collection: Collection, file: Path, records: Sequence[dict]) -> set[Path]:
    """Paths of the images that the records speak of."""
    meant = set()
    for number, record in enumerate(records):
        what, entry = f"expression {record.get('ref_id', f'number {number}')}", None
        try:
            if id_of(record.get("image_id")) in collection.by_image_id:
                entry = collection.by_image_id[id_of(record["image_id"])]
            else:
                named = record.get("file_name")
                entry = collection.entries.get(collection.images.find(str(named), file)) if named else None
                if entry is None:
                    raise Unclear(f"its image {record.get('image_id', record.get('file_name'))!r} is in no COCO file")
            if entry is None:
                continue  # reported with its image
            meant.add(entry.path)
            objects = _objects(collection, replace(entry.frame, file=file), entry, what, record)
            for words in _phrases(record):
                entry.expressions.append(ReferringExpression(words, objects))
                if len(objects) == 1 and not entry.objects[objects[0]].phrase:
                    entry.objects[objects[0]] = replace(entry.objects[objects[0]], phrase=words)
        except Unclear as error:
            collection.log.add(file, what, "expression left out", str(error))
            if entry is not None:
                entry.frame.incomplete.add("objects")  # it may mean one that is not listed
    return meant


def _phrases(record: dict) -> list[str]:
    given = record.get("sentences") or [next((record[key] for key in _WORDS if key in record), "")]
    texts = [
        next((text[key] for key in ("sent", "raw") if key in text), "") if isinstance(text, dict) else text
        for text in (given if isinstance(given, list) else [given])
    ]
    words = [str(text).strip() for text in texts if str(text or "").strip()]
    if not words:
        raise Unclear("it has no words")
    return words


def _objects(collection: Collection, frame: ImageFrame, entry: Entry, what: str, record: dict) -> tuple[int, ...]:
    """Indices of the objects that a record means."""
    key = next((key for key in (*_IDS, *_BOXES) if key in record), None)
    if key is None:
        raise Unclear(f"it says with none of {', '.join((*_IDS, *_BOXES))} what it means")
    value = record[key]
    if value in (None, [], -1, [-1]) or record.get("no_target") is True:
        return ()
    if key in _IDS:
        ids = value if isinstance(value, list) else [value]
        places = [collection.by_annotation_id.get(id_of(number) or "") for number in ids]
        for number, place in zip(ids, places, strict=True):
            if place is None or place[0] is not entry:
                raise Unclear(f"its annotation {number!r} is no object of the image")
        return tuple(dict.fromkeys(index for _, index in places))
    boxes = value if isinstance(value, list) and isinstance(value[0], list) else [value]
    if key == "bbox":
        boxes = [coco.xyxy(box) or box for box in boxes]
    indices = [_place(frame, entry, what, box) for box in boxes]
    return tuple(dict.fromkeys(indices))


def _place(frame: ImageFrame, entry: Entry, what: str, box: Any) -> int:
    """Index of the object with this box; it is added where there is none."""
    inside = frame.box(box, what, part="expressions")
    if inside is None:
        raise Unclear("one of its boxes is unusable")
    overlaps = box_iou([inside], [item.box for item in entry.objects])[0]
    if len(overlaps) and overlaps.max() >= SAME_OBJECT:
        return int(overlaps.argmax())
    entry.objects.append(ObjectAnnotation("", inside))
    entry.frame.incomplete.add("objects")
    return len(entry.objects) - 1
