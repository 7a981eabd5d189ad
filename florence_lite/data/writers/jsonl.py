"""Our own schema, which says everything: a JSON object per image and line (`florence_lite.data.readers.jsonl`)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from florence_lite.answers import Polygons
from florence_lite.data.annotation import LISTS, Annotation, ObjectAnnotation, TextLine
from florence_lite.data.samples import Dataset, Sample
from florence_lite.data.writers.output import PARTS, Output

FORMATS = {"jsonl": frozenset(PARTS)}


def write(splits: Mapping[str, Dataset], output: Output) -> None:
    """`annotations.jsonl`, or a file for each split, beside a folder of images."""
    for split, dataset in splits.items():
        images = f"images/{split}" if split else "images"
        with (output.folder / f"{split or 'annotations'}.jsonl").open("w", encoding="utf-8", newline="\n") as stream:
            for name, annotation in output.placed(dataset, images):
                stream.write(_line(f"{images}/{name}", annotation))


def to_jsonl(samples: Iterable[Sample], path: str | os.PathLike) -> Path:
    """Write samples as one .jsonl file, which `read_dataset` reads back, and return its path.

    Images that lie in files stay where they are and are named relative to the file (those that lie outside of its
    folder are read back with `outside=True`); pictures without one are written as PNG into the folder
    `<file's name>_images` beside it. Raises ValueError for a name that does not end in .jsonl.
    """
    path = Path(path)
    if path.suffix != ".jsonl":
        raise ValueError(f"{path} must end in .jsonl")
    pictures = path.with_name(f"{path.stem}_images")
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for number, sample in enumerate(samples):
            image = sample.image
            if not isinstance(image, str | os.PathLike):
                pictures.mkdir(exist_ok=True)
                image = pictures / f"{number:06d}.png"
                sample.load().save(image)
            name = os.path.relpath(Path(image).resolve(), path.parent.resolve())
            stream.write(_line(Path(name).as_posix(), sample.annotation))
    return path


def _line(image: str, annotation: Annotation) -> str:
    return json.dumps({"image": image, **annotation_record(annotation)}, ensure_ascii=False) + "\n"


def annotation_record(annotation: Annotation) -> dict[str, Any]:
    """An annotation as the keys of a line, without its image; what is empty and says nothing is left out."""
    record: dict[str, Any] = {"size_wh": list(annotation.size_wh)}
    if annotation.objects or "objects" in annotation.exhaustive:
        record["objects"] = [_object_record(item) for item in annotation.objects]
    if annotation.lines or "lines" in annotation.exhaustive:
        record["lines"] = [_line_record(line) for line in annotation.lines]
    rest = {
        "captions": list(annotation.captions),
        "more_captions": list(annotation.more_captions),
        "wrong_captions": list(annotation.wrong_captions),
        "expressions": [
            {"phrase": r.phrase, "objects": list(r.objects)} | ({"kind": r.kind} if r.kind else {})
            for r in annotation.expressions
        ],
        "stuff": [{"label": item.label, "polygons": _points(item.polygons)} for item in annotation.stuff],
        "questions": [{"question": q.question, "answer": q.answer} for q in annotation.questions],
        "regions": [{"text": region.text, "box": list(region.box)} for region in annotation.regions],
    }
    rest["ignored"] = [_object_record(item) for item in annotation.ignored]
    rest["ignored_lines"] = [{"quad": list(line.quad)} for line in annotation.ignored_lines]
    record |= {key: value for key, value in rest.items() if value}
    if annotation.exhaustive != {name for name in LISTS if name in record}:
        record["exhaustive"] = sorted(annotation.exhaustive)
    return record


def _object_record(item: ObjectAnnotation) -> dict[str, Any]:
    record: dict[str, Any] = {"label": item.label, "box": list(item.box)}
    if item.polygons:
        record["polygons"] = _points(item.polygons)
    if item.phrase:
        record["phrase"] = item.phrase
    return record | _score(item)


def _line_record(line: TextLine) -> dict[str, Any]:
    return {"text": line.text, "quad": list(line.quad)} | _score(line)


def _score(item: ObjectAnnotation | TextLine) -> dict[str, float]:
    return {} if item.score is None else {"score": item.score}


def _points(polygons: Polygons) -> list[list[list[float]]]:
    return [[list(point) for point in ring] for ring in polygons]
