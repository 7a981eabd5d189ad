"""Hugging Face: `data/train-00000-of-00001.parquet` and so on, or the folder that `save_to_disk` writes.

The columns: `image` (Image), `objects` with `bbox` (x, y, width, height in pixels) and `category` (ClassLabel), and of
`segmentation`, `phrase`, `ignored`, `score`, lines, captions and questions those that occur. What is not known is null,
a list that is empty says that there is none. `COLUMNS` tells `read_dataset` what they mean. Needs `datasets`.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from florence_lite.data.annotation import Annotation, ObjectAnnotation
from florence_lite.data.samples import Dataset
from florence_lite.data.writers.output import PARTS, Classes, Output

if TYPE_CHECKING:
    import datasets

_SAID = ("objects", "outlines", "phrases", "scores", "empty", "ignored", "lines", "line scores", "no lines", "captions")
FORMATS = {name: frozenset((*_SAID, "more captions", "questions")) for name in ("huggingface", "datasets")}
COLUMNS = {  # meaning, as `florence_lite.data.readers.huggingface` knows it → column
    "image": "image",
    "boxes_xywh": "objects.bbox",
    "labels": "objects.category",
    "polygons": "objects.segmentation",
    "phrases": "objects.phrase",
    "ignored": "objects.ignored",
    "scores": "objects.score",
    "quads": "lines.quad",
    "texts": "lines.text",
    "text_scores": "lines.score",
    "caption": "caption",
    "detailed_caption": "detailed_caption",
    "paragraph": "paragraph",
    "question": "questions.question",
    "answer": "questions.answer",
}
PART_BYTES = 2**28  # of pictures in a parquet file
_GROUP_ROWS, _GROUP_BYTES = 256, 2**24  # of pictures that are in memory, and read back at a time
_CAPTIONS = ("caption", "detailed_caption", "paragraph")


def write(splits: Mapping[str, Dataset], output: Output) -> None:
    """The parquet files of each split, and with the format "datasets" what `save_to_disk` makes of them instead."""
    try:
        import datasets
    except ModuleNotFoundError:
        remedy = "pip install 'florence-lite[train]'"
        raise ModuleNotFoundError(f"the package datasets is missing; {remedy}", name="datasets") from None
    classes = Classes.of(splits.values(), output)
    splits = classes.sayable(splits)
    known = [annotation for dataset in splits.values() for annotation in dataset.annotations]
    columns = _columns(known, classes)
    features = datasets.Features(columns)
    output.has_something = lambda a: (
        bool(a.lines or a.questions or any(a.captions))
        or (
            "objects" in columns
            and ("objects" in a.exhaustive or any(_is_named(item, classes) for item in (*a.objects, *a.ignored)))
        )
    )
    files = {split or "train": _write_split(split or "train", each, features, classes, output)
             for split, each in splits.items()}  # fmt: skip
    if output.format == "datasets":
        _save_to_disk({split: list(map(str, paths)) for split, paths in files.items()}, "" in splits, output.folder)
    told = {meaning: column for meaning, column in COLUMNS.items() if _has(columns, column)}
    options = " ".join(f"--column {meaning}={column}" for meaning, column in told.items())
    folder = shlex.quote(str(output.destination or output.folder))
    output.hint = f"read with: florence-lite data check {folder} --format huggingface {options}"


def _columns(known: Sequence[Annotation], classes: Classes) -> dict[str, Any]:
    """The features of the columns that the annotations need."""
    from datasets import ClassLabel, Image, Sequence, Value

    number, word = Value("float64"), Value("string")
    items = [item for a in known for item in (*a.objects, *a.ignored)]
    objects = {"bbox": Sequence(Sequence(number, length=4))}
    objects |= {"category": Sequence(ClassLabel(names=list(classes.names)))} if classes else {}
    further = {
        "segmentation": (any(item.polygons for item in items), Sequence(Sequence(Sequence(number)))),
        "phrase": (any(item.phrase for item in items), Sequence(word)),
        "ignored": (any(a.ignored for a in known), Sequence(Value("bool"))),
        "score": (any(item.score is not None for item in items), Sequence(number)),
    }
    objects |= {name: feature for name, (occurs, feature) in further.items() if occurs}
    lines = {"quad": Sequence(Sequence(number, length=8)), "text": Sequence(word), "score": Sequence(number)}
    columns = {"image": Image()}
    if classes or "phrase" in objects:
        columns["objects"] = objects
    if any(a.lines or "lines" in a.exhaustive for a in known):
        columns["lines"] = lines
    for level, name in enumerate(_CAPTIONS):
        if any(a.captions[level:] and a.captions[level] for a in known):
            columns[name] = word if level else Sequence(word)
    if any(a.questions for a in known):
        columns["questions"] = {"question": Sequence(word), "answer": Sequence(word)}
    return columns


def _has(columns: Mapping[str, Any], path: str) -> bool:
    column, _, member = path.partition(".")
    return column in columns and (not member or member in columns[column])


def _row(
    image: dict[str, Any], annotation: Annotation, columns: Mapping[str, Any], classes: Classes, output: Output
) -> dict[str, Any]:
    row: dict[str, Any] = {"image": image}
    if "objects" in columns:
        row["objects"] = _objects(annotation, columns["objects"], classes, output)
    if "lines" in columns and (annotation.lines or "lines" in annotation.exhaustive):
        row["lines"] = {
            "quad": [line.quad for line in annotation.lines],
            "text": [line.text for line in annotation.lines],
            "score": [line.score for line in annotation.lines],
        }
    captions = (*annotation.captions, "", "", "")[:3]
    further = annotation.more_captions if captions[0] else ()
    output.lose(PARTS["more captions"][0], len(annotation.more_captions) - len(further))
    for name, words in zip(_CAPTIONS, captions, strict=True):
        if words:
            row[name] = words if name != _CAPTIONS[0] else [words, *further]
    if annotation.questions:
        asked = annotation.questions
        row["questions"] = {"question": [q.question for q in asked], "answer": [q.answer for q in asked]}
    return row


def _objects(
    annotation: Annotation, columns: Mapping[str, Any], classes: Classes, output: Output
) -> dict[str, list] | None:
    """The objects, a list for each of their columns; None where nothing is known of them."""
    found: list[dict[str, Any]] = []
    for is_ignored, items in ((False, annotation.objects), (True, annotation.ignored)):
        for number, item in _named(items, classes, output):
            x0, y0, x1, y1 = item.box
            flat = [[side for point in ring for side in point] for ring in item.polygons]
            values = {"bbox": [x0, y0, x1 - x0, y1 - y0], "category": number, "segmentation": flat}
            found.append(values | {"phrase": item.phrase, "ignored": is_ignored, "score": item.score})
    if not found and "objects" not in annotation.exhaustive:
        return None
    return {name: [values[name] for values in found] for name in columns}


def _named(items: Iterable[ObjectAnnotation], classes: Classes, output: Output) -> Iterator[tuple[int | None, Any]]:
    """The objects with their category's number; where there are no categories at all, those with a phrase."""
    if classes:
        yield from classes.numbered(items, output)
    else:
        yield from ((None, item) for item in items if _is_named(item, classes))


def _is_named(item: ObjectAnnotation, classes: Classes) -> bool:
    return item.label in classes.number_of if classes else bool(item.phrase)


# ---- files -----------------------------------------------------------------------------------------------------------


def _write_split(
    split: str, dataset: Dataset, features: datasets.Features, classes: Classes, output: Output
) -> list[Path]:
    """The parquet files of a split, each of `PART_BYTES` of pictures; a few rows are in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = output.folder / "data"
    files: list[Path] = []
    folder.mkdir(exist_ok=True)
    rows, group_bytes, part_bytes, writer = [], 0, 0, None
    schema = features.arrow_schema
    try:
        for stem, picture, annotation in output.samples(dataset):
            content = picture.read()
            image = {"bytes": content, "path": stem + picture.ending}
            rows.append(_row(image, annotation, features, classes, output))
            group_bytes += len(content)
            if writer is None:
                files.append(folder / f"{split}-{len(files):05d}.parquet")
                writer = pq.ParquetWriter(files[-1], schema)
            if len(rows) >= _GROUP_ROWS or group_bytes >= _GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                part_bytes, rows, group_bytes = part_bytes + group_bytes, [], 0
            if part_bytes >= PART_BYTES:
                writer.close()
                writer, part_bytes = None, 0
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))
    finally:
        if writer is not None:
            writer.close()
    named = [file.with_name(f"{split}-{number:05d}-of-{len(files):05d}.parquet") for number, file in enumerate(files)]
    for file, name in zip(files, named, strict=True):
        file.rename(name)
    return named


def _save_to_disk(files: Mapping[str, list[str]], is_single: bool, folder: Path) -> None:
    """Make, of the parquet files below a folder, what `save_to_disk` writes there."""
    import datasets

    with tempfile.TemporaryDirectory(dir=folder) as cache:
        loaded = datasets.load_dataset("parquet", data_files={k: v for k, v in files.items() if v}, cache_dir=cache)
        (loaded["train"] if is_single else loaded).save_to_disk(folder)
    shutil.rmtree(folder / "data")
