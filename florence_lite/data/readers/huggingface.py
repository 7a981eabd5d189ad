"""Any data set of the package `datasets`, by a mapping from what is meant to the column that holds it.

    columns = {"image": "image", "boxes_xywh": "objects.bbox", "labels": "objects.category"}

    image                                image, or path of a file
    boxes_xyxy, boxes_xywh, boxes_cxcywh boxes of the objects in pixels: corners; corner and size; centre and size
    labels                               their categories, as words or of the data set's own class names
    phrases                              their phrases: as many as boxes, or several for a single box
    polygons                             their outlines, for each a list of flat lists x y x y …
    ignored                              for each whether it is a crowd, or marked as difficult
    scores                               for each how sure the model was that found it, from 0 to 1, or null
    quads, texts                         lines of text and their corners x0 y0 … x3 y3
    text_scores                          for each how sure the model was that read it, or null
    caption, detailed_caption, paragraph a text; of several captions the first, with the others as alternatives
    question, answer                     a text each, or lists of the same length; of several answers to one question
                                         the most frequent

A dot leads into a column of structures, or of lists of structures. Paths lead from the folder of the data set, and out
of it only when asked for. Needs the extra `florence-lite[train]`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from florence_lite.data.annotation import Annotation, ObjectAnnotation, Question, ReferringExpression, TextLine
from florence_lite.data.readers.files import split_words
from florence_lite.data.readers.frames import ImageFrame, frame_of
from florence_lite.data.readers.images import OUTSIDE
from florence_lite.data.readers.records import ProblemLog, Unclear, caption_levels, finished, is_set
from florence_lite.data.samples import Dataset
from florence_lite.geometry import from_cxcywh, from_xywh
from florence_lite.image_files import image_sizes

if TYPE_CHECKING:
    import datasets

NAME = "huggingface"
_CORNERS = {
    "boxes_xyxy": lambda a, b, c, d: (a, b, c, d),
    "boxes_xywh": from_xywh,
    "boxes_cxcywh": from_cxcywh,
}
_CAPTIONS = ("caption", "detailed_caption", "paragraph")
MEANINGS = (
    "image",
    *_CORNERS,
    "labels",
    "phrases",
    "polygons",
    "ignored",
    "scores",
    "quads",
    "texts",
    "text_scores",
    *_CAPTIONS,
    "question",
    "answer",
)


@dataclass(frozen=True)
class Places:
    """Where paths in rows lead from, and the folders that they may lead into; None for any."""

    start: Path = Path()
    allowed: tuple[Path, ...] | None = None


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of `datasets` wrote the folder."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def read(path: str, split: str | None, columns: Mapping[str, str] | None, outside: bool = False) -> Dataset:
    """The data set of a Hub id, a folder that `datasets` loads or one that it saved, or a parquet file.

    Raises ValueError as `from_columns`, and for a split that is not there; ModuleNotFoundError without `datasets`.
    """
    try:
        import datasets
    except ModuleNotFoundError:
        remedy = "pip install 'florence-lite[train]'"
        raise ModuleNotFoundError(f"the package datasets is missing; {remedy}", name="datasets") from None

    root, cache = Path(os.path.abspath(path)), Path(datasets.config.HF_CACHE_HOME)
    if root.is_file():
        if root.suffix.lower() != ".parquet":
            raise ValueError(f"{path} is no parquet file; give one, a folder of them, or an id of the Hub")
        root, loaded = root.parent, datasets.Dataset.from_parquet(path)
    else:
        loaded = datasets.load_from_disk(path) if is_saved(root) else datasets.load_dataset(path)
    places = Places(root, None if outside else (root, cache))
    if isinstance(loaded, datasets.DatasetDict):
        chosen = [n for n in loaded if split is None] or [n for n in split_words(split or "") if n in loaded][:1]
        if not chosen:
            raise ValueError(f"{path} has no split {split!r}, only {', '.join(loaded)}")
        loaded = datasets.concatenate_datasets([loaded[name] for name in chosen])
        path = f"{path}: {', '.join(chosen)}"
    elif split is not None:
        raise ValueError(f"{path} has no splits; read it without one")
    return from_columns(loaded, columns, path, places)


def from_columns(
    rows: datasets.Dataset,
    columns: Mapping[str, str] | None,
    name: str = "rows",
    places: Places = Places(),
) -> Dataset:
    """The data set of the rows of a `datasets.Dataset`. Pictures are decoded only when a sample is asked for.

    columns: what is meant → column, as this module describes. name: for messages.
    places: where paths in the rows lead from and may lead to; anywhere, from the working directory.
    Raises ValueError for a meaning or column that is not there, and where no row is usable.
    """
    _check(rows, columns, name)
    import datasets

    if isinstance(rows.features[columns["image"]], datasets.Image):
        rows = rows.cast_column(columns["image"], datasets.Image(decode=False))
    names = None
    if "labels" in columns:
        names = _class_names(rows.features, columns["labels"])
    needed = rows.select_columns(sorted({column.split(".")[0] for column in columns.values()}))
    log = ProblemLog(Path(name))
    kept, found = [], []
    for number, row in enumerate(needed):
        record = f"row {number}"
        try:
            sizes = image_sizes(_source(row[columns["image"]], places))
            frame = frame_of(sizes, None, log, Path(name), record)
            found.append((None, _annotation(row, columns, names, frame), record))
            kept.append(number)
        except (ValueError, OSError) as error:
            log.add(Path(name), record, "record left out", str(error))
    described = f"{name}: " + ", ".join(f"{meaning} from {column}" for meaning, column in columns.items())
    return finished(
        found, log, NAME, [described], names or (), _Pictures(needed, columns["image"], tuple(kept), places)
    )


def _check(rows: datasets.Dataset, columns: Mapping[str, str] | None, name: str) -> None:
    there = f"its columns are {', '.join(rows.column_names)}"
    if not columns or "image" not in columns:
        raise ValueError(f'{name} needs columns={{"image": …}} that say which column holds what; {there}')
    for meaning, column in columns.items():
        if meaning not in MEANINGS:
            raise ValueError(f"columns has {meaning!r}; known are {', '.join(MEANINGS)}")
        if column.split(".")[0] not in rows.column_names:
            raise ValueError(f"columns says {meaning} = {column!r}, but {there}")
    boxes = [meaning for meaning in _CORNERS if meaning in columns]
    if len(boxes) > 1 or (boxes and not {"labels", "phrases"} & columns.keys()):
        raise ValueError(f"columns has {', '.join(boxes)}: give one kind of boxes, with labels or phrases")
    for meaning in ("labels", "phrases", "polygons", "ignored", "scores"):
        if meaning in columns and not boxes:
            raise ValueError(f"columns has {meaning} but no boxes: one of {', '.join(_CORNERS)}")
    if "text_scores" in columns and "texts" not in columns:
        raise ValueError("columns has text_scores but no texts")
    for one, other in (("quads", "texts"), ("question", "answer")):
        if (one in columns) != (other in columns):
            raise ValueError(f"columns must have both {one} and {other}, or neither")


@dataclass(frozen=True)
class _Pictures(Sequence):
    """The files of the images of some rows, or their bytes, read one at a time."""

    rows: Any
    column: str
    numbers: tuple[int, ...]
    places: Places

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Path | bytes:  # type: ignore[override]  # no slices: `Dataset` makes them
        return _source(self.rows[self.numbers[index]][self.column], self.places)


def _source(value: Any, places: Places) -> Path | bytes:
    """The file of an image, or its bytes."""
    if isinstance(value, dict):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, str):
        path = Path(os.path.normpath(places.start / value))
        if places.allowed is not None and not any(path.is_relative_to(place) for place in places.allowed):
            raise Unclear(f"its image {value!r} lies outside of {places.start}; {OUTSIDE}")
        return path
    if not isinstance(value, bytes):
        raise Unclear(f"its image is a {type(value).__name__}, neither an image nor the path of one")
    return value


def _class_names(features: Any, column: str) -> list[str] | None:
    """The names of a column of class numbers; None for another."""
    node = features
    for key in column.split("."):
        node = _bare(node)[key]
    return getattr(_bare(node), "names", None)


def _bare(node: Any) -> Any:
    """What lists of a feature hold."""
    while hasattr(node, "feature") or isinstance(node, list):
        node = node[0] if isinstance(node, list) else node.feature
    return node


def _value(row: Any, columns: Mapping[str, str], meaning: str) -> Any:
    """What a row holds of a meaning, None where the mapping or the row has nothing."""
    if meaning not in columns:
        return None
    value = row
    for key in columns[meaning].split("."):
        if value is None:
            return None
        try:
            value = [entry[key] for entry in value] if isinstance(value, list) else value[key]
        except (KeyError, TypeError):
            raise Unclear(f"it has no {columns[meaning]}") from None
    return value


def _list(value: Any) -> list:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _annotation(row: Any, columns: Mapping[str, str], names: list[str] | None, frame: ImageFrame) -> Annotation:
    objects, ignored, expressions = _objects(row, columns, names, frame)
    quads, texts = _list(_value(row, columns, "quads")), _list(_value(row, columns, "texts"))
    if len(quads) != len(texts):
        raise Unclear(f"it has {len(quads)} quads for {len(texts)} texts")
    scores = _list(_value(row, columns, "text_scores")) or [None] * len(texts)
    if len(scores) != len(texts):
        raise Unclear(f"it has {len(scores)} text_scores for {len(texts)} texts")
    lines = [
        TextLine(str(text), quad, frame.score(score, f"line {number}"))
        for number, (text, corners, score) in enumerate(zip(texts, quads, scores, strict=True))
        if (quad := frame.quad(corners, f"line {number}")) is not None
    ]
    captions = [[str(text) for text in _list(_value(row, columns, meaning)) if text] for meaning in _CAPTIONS]
    complete = [name for name, meaning in (("objects", "labels"), ("lines", "texts")) if meaning in columns]
    needed = {"objects": ("labels", *_CORNERS), "lines": ("texts", "quads")}
    for name, meanings in needed.items():  # null is not "none"
        if any(meaning in columns and _value(row, columns, meaning) is None for meaning in meanings):
            frame.incomplete.add(name)
    return frame.annotation(
        complete,
        "its row has no boxes",
        objects=tuple(objects),
        lines=tuple(lines),
        captions=caption_levels(*(texts[0] if texts else "" for texts in captions)),
        expressions=tuple(expressions),
        questions=_questions(row, columns),
        more_captions=tuple(captions[0][1:]),
        ignored=tuple(ignored),
    )


def _objects(
    row: Any, columns: Mapping[str, str], names: list[str] | None, frame: ImageFrame
) -> tuple[list[ObjectAnnotation], list[ObjectAnnotation], list[ReferringExpression]]:
    """The objects, those that are ignored, and what phrases say of the former."""
    kind = next((meaning for meaning in _CORNERS if meaning in columns), None)
    if kind is None:
        return [], [], []
    boxes, labels, phrases = (_list(_value(row, columns, meaning)) for meaning in (kind, "labels", "phrases"))
    if boxes and all(isinstance(side, int | float) for side in boxes):
        boxes = [boxes]  # the column holds one box a row
    polygons = _list(_value(row, columns, "polygons")) or [()] * len(boxes)
    marks = _list(_value(row, columns, "ignored"))
    scores = _list(_value(row, columns, "scores")) or [None] * len(boxes)
    for meaning, values in (("labels", labels), ("polygons", polygons), ("ignored", marks), ("scores", scores)):
        if meaning in columns and len(values) != len(boxes):
            raise Unclear(f"it has {len(boxes)} boxes for {len(values)} {meaning}")
    if len(boxes) != 1 and len(phrases) not in (0, len(boxes)):
        raise Unclear(f"it has {len(boxes)} boxes for {len(phrases)} phrases")
    objects: list[ObjectAnnotation] = []
    ignored: list[ObjectAnnotation] = []
    expressions: list[ReferringExpression] = []
    for number, box in enumerate(boxes):
        what = f"object {number}"
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, int | float) for side in box):
            frame.lose("objects", "box left out", f"{box!r} is not four numbers", what)
            continue
        label = _label(labels[number], names) if labels else ""
        own = [str(p) for p in (phrases if len(boxes) == 1 else phrases[number : number + 1]) if p]
        item = frame.object(
            label, _CORNERS[kind](*box), polygons[number] or (), own[0] if own else "", what, scores[number]
        )
        if item is not None and marks and is_set(marks[number]):
            ignored.append(item)
        elif item is not None:
            expressions += [ReferringExpression(phrase, (len(objects),)) for phrase in own]
            objects.append(item)
    return objects, ignored, expressions


def _label(value: Any, names: list[str] | None) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    if names is None or not isinstance(value, int) or not 0 <= value < len(names):
        known = f"only numbers below {len(names)} have names" if names else "the column has no class names"
        raise Unclear(f"its label {value!r} is no word, and {known}")
    return names[value]


def _questions(row: Any, columns: Mapping[str, str]) -> tuple[Question, ...]:
    asked, described = _value(row, columns, "question"), _value(row, columns, "answer")
    if asked is None or described is None:
        return ()
    pairs = [(asked, described)]
    if isinstance(asked, list):
        if not isinstance(described, list) or len(described) != len(asked):
            raise Unclear(f"it has {len(asked)} questions for {len(_list(described))} answers")
        pairs = list(zip(asked, described, strict=True))
    answers = [(str(question), Counter(map(str, _list(answer))).most_common(1)) for question, answer in pairs]
    return tuple(Question(question, answer[0][0]) for question, answer in answers if answer)
