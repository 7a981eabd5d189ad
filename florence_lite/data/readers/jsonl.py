"""Our own schema: a JSON object per image and line, in files that end in .jsonl.

    {"image": "photos/1.jpg",                  relative to the file
     "size_wh": [640, 480],                    optional: the pixels that coordinates are in, if not the image's own
     "objects": [{"label": "dog",
                  "box": [x0, y0, x1, y1],     may be left out where there are polygons or a mask
                  "polygons": [[[x, y], …]],   outlines and holes, even-odd rule; optional
                  "mask": {"size": [h, w], "counts": …},   instead of polygons: COCO's run lengths, plain or compressed
                  "phrase": "the dog on the left",         optional
                  "score": 0.87}],                         optional: how sure the model was that found it
     "lines": [{"text": "STOP", "quad": [x0, y0, …, x3, y3]}],   "score" here too
     "captions": ["one sentence", "a detailed description", "a paragraph"],
     "more_captions": ["another sentence"],
     "wrong_captions": ["a sentence that is not true of the image"],
     "expressions": [{"phrase": "all dogs", "objects": [0, 2]}],     positions in "objects"; [] for "none", and then
                                              optional "kind": "random" or "changed", if one attribute is wrong
     "stuff": [{"label": "sky", "polygons": [[[x, y], …]]}],         what cannot be counted; objects may stand on it
     "questions": [{"question": "how many dogs?", "answer": "2"}],
     "regions": [{"text": "a lawn in the sun", "box": [x0, y0, x1, y1]}],
     "ignored": [{"label": "dog", "box": [x0, y0, x1, y1]}],         a crowd, or what is marked as difficult
     "ignored_lines": [{"quad": [x0, y0, …, x3, y3]}],               text that cannot be read
     "exhaustive": ["objects"]}                optional, see below

All keys but "image" are optional. "objects": [] says that there is none, no "objects" that nothing is known.
"exhaustive" says it where the keys do not: a list that is there but not named in it is incomplete, and so is one of
which an entry could not be used. Other keys are reported.

Lines of prompts and answers, {"image": …, "prefix": "<OD>", "suffix": "dog<loc_100>…"}, are read too; see `answers`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from florence_lite.data.annotation import (
    LISTS,
    Annotation,
    ObjectAnnotation,
    Question,
    ReferringExpression,
    Region,
    Stuff,
    TextLine,
)
from florence_lite.data.readers.answers import annotation_of_answer
from florence_lite.data.readers.files import beginning, choose_split
from florence_lite.data.readers.frames import ImageFrame
from florence_lite.data.readers.images import Images
from florence_lite.data.readers.records import ProblemLog, Unclear, each_line, finished, size_of
from florence_lite.data.samples import Dataset

NAME = "jsonl"
LOOKS_FOR = 'a .jsonl file of objects with "image"'
ENDINGS, DEPTH = (".jsonl",), 1
_KEYS = (
    "image",
    "size_wh",
    "objects",
    "lines",
    "captions",
    "more_captions",
    "wrong_captions",
    "expressions",
    "stuff",
    "questions",
    "regions",
    "ignored",
    "ignored_lines",
    "exhaustive",
)

SAYS = frozenset(_KEYS) - {"image", "size_wh"}


def accepts(file: Path) -> bool:
    """Whether a file looks like one of this format."""
    first = next((line for line in beginning(file, 2**24).split("\n") if line.strip()), "")
    return '"image"' in first


def read(files: Sequence[Path], root: Path, split: str | None, outside: bool = False) -> Dataset:
    """The data set that the files tell; see `florence_lite.data.read_dataset`."""
    log = ProblemLog(root)
    images = Images(root, log, files, outside)
    rows: list[tuple] = []
    described: list[str] = []
    before_of: dict[Path, list[int]] = {}
    for file in choose_split(files, split, root, ".jsonl file"):
        before = len(rows)
        rows_of_file = each_line(file, log, partial(_row, file=file, images=images, log=log))
        for what, (path, annotation, name) in rows_of_file:
            same = [place for place in before_of.get(path, ()) if rows[place][1] == annotation]
            if same:
                log.add(file, what, "duplicate image", f"{name} is there before with the same; left out")
                continue
            if path in before_of:
                log.add(file, what, "duplicate image", f"{name} is there before with something else; both are kept")
                annotation = _doubted(annotation, rows, before_of[path])
            before_of.setdefault(path, []).append(len(rows))
            rows.append((path, annotation, name))
        described.append(f"{log.name(file)}: {len(rows) - before} images")
    return finished(rows, log, NAME, [*described, images.described()])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key that stands there twice nobody knows which value is meant."""
    if len(record := dict(pairs)) < len(pairs):
        raise ValueError(f"a key stands in it twice: {', '.join(key for key, _ in pairs)[:100]}")
    return record


def _doubted(annotation: Annotation, rows: list[tuple], places: list[int]) -> Annotation:
    """Take off, of two annotations of an image, that both name all objects (or lines) where these differ."""
    for place in places:
        path, other, name = rows[place]
        differ = {
            part
            for part in annotation.exhaustive & other.exhaustive
            if getattr(annotation, part) != getattr(other, part)
        }
        rows[place] = path, replace(other, exhaustive=other.exhaustive - differ), name
        annotation = replace(annotation, exhaustive=annotation.exhaustive - differ)
    return annotation


def _row(line: str, what: str, file: Path, images: Images, log: ProblemLog) -> tuple[Path, Annotation, str] | None:
    try:
        record = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Unclear(f"it is no JSON: {error}") from None
    if not isinstance(record, dict) or not isinstance(record.get("image"), str):
        raise Unclear('it has no "image", the name of a file')
    is_answer = "suffix" in record and "objects" not in record
    known = ("image", "prefix", "suffix") if is_answer else _KEYS
    if unknown := sorted(record.keys() - set(known)):
        log.add(file, what, "unknown key", f"{', '.join(unknown)}: known are {', '.join(known)}")
    size = record.get("size_wh")
    declared = size_of(*size) if isinstance(size, list) and len(size) == 2 else None
    if size is not None and declared is None:
        raise Unclear(f"its size_wh is {size!r}; it must be [width, height] in pixels")
    try:
        path = images.find(record["image"], file, (file.parent, file.parent / "images"))
    except Unclear as error:
        return log.add(file, what, "image missing", str(error))
    frame = images.frame(path, declared, file, what)
    if frame is None:
        return None
    if any(isinstance(record[key], list | dict) and record[key] for key in unknown):
        frame.incomplete.update(LISTS)  # it may tell of more
    annotation = annotation_of_answer(record, frame) if is_answer else annotation_of(record, frame)
    return path, annotation, log.name(path)


def annotation_of(record: dict[str, Any], frame: ImageFrame) -> Annotation:
    """What the keys of a line say about its image. Raises Unclear for such as cannot be read."""
    objects: list[ObjectAnnotation] = []
    place: dict[int, int] = {}  # position in the record → in `objects`
    for number, entry in enumerate(_dicts(record, "objects")):
        item = _object(entry, f"objects[{number}]", frame)
        if item is not None:
            place[number] = len(objects)
            objects.append(item)
    lines = []
    for number, entry in enumerate(_dicts(record, "lines")):
        quad = _placed(frame.quad, entry, "quad", frame, "lines", f"lines[{number}]")
        if quad is not None:
            score = frame.score(entry.get("score"), f"lines[{number}]")
            lines.append(TextLine(_text(entry, "text", f"lines[{number}]"), quad, score))
    ignored = [_object(entry, f"ignored[{n}]", frame) for n, entry in enumerate(_dicts(record, "ignored"))]
    illegible = enumerate(_dicts(record, "ignored_lines"))
    quads = [frame.quad(entry.get("quad"), f"ignored_lines[{n}]") for n, entry in illegible]
    regions = []
    for number, entry in enumerate(_dicts(record, "regions")):
        read = partial(frame.box, part="regions")
        box = _placed(read, entry, "box", frame, "regions", f"regions[{number}]")
        if box is not None:
            regions.append(Region(_text(entry, "text", f"regions[{number}]"), box))
    exhaustive = record.get("exhaustive", [name for name in LISTS if record.get(name) is not None])
    if not isinstance(exhaustive, list) or not set(map(str, exhaustive)) <= set(LISTS):
        raise Unclear(f"its exhaustive is {exhaustive!r}; it may hold {', '.join(LISTS)}")
    return frame.annotation(
        exhaustive,
        'its line says "objects": []',
        objects=tuple(objects),
        lines=tuple(lines),
        captions=_texts(record, "captions"),
        expressions=tuple(_expressions(record, place, frame)),
        questions=tuple(
            Question(*(_text(entry, key, f"questions[{n}]") for key in ("question", "answer")))
            for n, entry in enumerate(_dicts(record, "questions"))
        ),
        regions=tuple(regions),
        more_captions=_texts(record, "more_captions"),
        wrong_captions=_texts(record, "wrong_captions"),
        stuff=tuple(_stuff(record, frame)),
        ignored=tuple(item for item in ignored if item is not None),
        ignored_lines=tuple(TextLine("", quad) for quad in quads if quad is not None),
    )


def _object(entry: dict, what: str, frame: ImageFrame) -> ObjectAnnotation | None:
    polygons, box = entry.get("polygons") or [], entry.get("box")
    if not isinstance(polygons, list):
        raise Unclear(f"{what}: polygons is {polygons!r}; it must be a list of outlines")
    outlines = frame.outlines_of_mask(entry["mask"], what) if entry.get("mask") is not None else ()
    if box is None and outlines and not polygons:
        points = np.concatenate([np.array(ring) for ring in outlines]) / frame.scale
        box = [*points.min(axis=0), *points.max(axis=0)]
    if box is None and polygons:
        try:
            points = np.concatenate([np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in polygons])
        except (TypeError, ValueError):
            raise Unclear(f"{what}: its polygons are no lists of [x, y]") from None
        box = [*points.min(axis=0), *points.max(axis=0)]
    label, phrase = _text(entry, "label", what, needed=False), _text(entry, "phrase", what, needed=False)
    if "label" not in entry and not phrase:
        raise Unclear(f"{what} has neither label nor phrase")
    if box is None:
        return _lacks("box", entry, frame, "objects", what)
    item = frame.object(label.strip(), box, polygons, phrase.strip(), what, entry.get("score"))
    return item and replace(item, polygons=(*item.polygons, *outlines))


def _placed(read: Callable, entry: dict, key: str, frame: ImageFrame, part: str, what: str) -> Any:
    """The place under a key; None, reported, where there is none or one that cannot be read."""
    return read(entry[key], what) if entry.get(key) is not None else _lacks(key, entry, frame, part, what)


def _lacks(key: str, entry: dict, frame: ImageFrame, part: str, what: str) -> None:
    frame.lose(
        part, f"{key} left out", f'it has no "{key}", only {", ".join(map(repr, entry))[:100] or "nothing"}', what
    )


def _expressions(record: dict, place: dict[int, int], frame: ImageFrame) -> Iterable[ReferringExpression]:
    for number, entry in enumerate(_dicts(record, "expressions")):
        what, meant = f"expressions[{number}]", entry.get("objects", [])
        phrase = _text(entry, "phrase", what)
        if not isinstance(meant, list) or not all(i in range(len(record.get("objects") or [])) for i in meant):
            raise Unclear(f"{what}: objects is {meant!r}; it must be a list of positions in objects")
        if all(i in place for i in meant):
            yield ReferringExpression(phrase, tuple(place[i] for i in meant), _text(entry, "kind", what, needed=False))
        else:
            frame.report("phrase left out", f"{phrase!r} means an object that was left out", what)


def _stuff(record: dict, frame: ImageFrame) -> Iterable[Stuff]:
    for number, entry in enumerate(_dicts(record, "stuff")):
        what, polygons = f"stuff[{number}]", entry.get("polygons") or []
        label = _text(entry, "label", what).strip()
        if not isinstance(polygons, list):
            raise Unclear(f"{what}: polygons is {polygons!r}; it must be a list of outlines")
        if outlines := frame.polygons(polygons, what):
            yield Stuff(label, outlines)
        else:
            frame.report("stuff left out", f"{label!r} has no outline in the image", what)


def _dicts(record: dict, key: str) -> list[dict]:
    value = [] if record.get(key) is None else record[key]
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise Unclear(f"its {key} is no list of objects")
    return value


def _texts(record: dict, key: str) -> tuple[str, ...]:
    value = [] if record.get(key) is None else record[key]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Unclear(f"its {key} is {value!r}; it must be a list of texts")
    return tuple(value)


def _text(entry: dict, key: str, what: str, needed: bool = True) -> str:
    text = entry.get(key, "" if not needed else None)
    if not isinstance(text, str) or (needed and not text.strip()):
        raise Unclear(f"{what}: its {key} is {text!r}; it must be a text")
    return text
