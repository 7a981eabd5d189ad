"""Formats of data sets, one module each.

coco         JSON: boxes, polygons, run lengths, captions    jsonl        our own schema, a JSON object a line
voc          XML per image, lists of splits                  icdar        text with quadrilaterals
yolo         text labels: boxes, segments                    huggingface  any `datasets` data set, by its columns
refcoco      expressions beside COCO files         paddleocr    text with quadrilaterals, a line per image
labelstudio  tasks and what people made of them    webdataset   tars of pictures with our own schema or captions
captions     a text beside each picture            annotated    answers of a checkpoint, of `annotate` and `refine`

What they share: files (finding and reading them, splits), images (which image a name means), frames (coordinates
brought into an image, and what may be said of it), records (the log of what was left out, the data set of the rest),
rle and brush (masks), answers (prompts and answers of Florence-2),
known (all answers about an image), settings (YAML).

A module of a format has NAME, LOOKS_FOR (its files in words), ENDINGS and DEPTH (where they lie), accepts(file) and
read(files, root, split, outside).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import ModuleType

from florence_lite.data.readers import (
    annotated,
    captions,
    coco,
    huggingface,
    icdar,
    jsonl,
    labelstudio,
    paddleocr,
    refcoco,
    voc,
    webdataset,
    yolo,
)
from florence_lite.data.readers.files import files_below, files_of
from florence_lite.data.readers.huggingface import from_columns
from florence_lite.data.samples import Dataset, Problem

__all__ = ["READERS", "from_columns", "read_dataset"]

_MODULES = (coco, voc, yolo, jsonl, refcoco, icdar, paddleocr, labelstudio, webdataset, captions, annotated)
READERS: dict[str, ModuleType] = {module.NAME: module for module in _MODULES}
FORMATS = (*READERS, huggingface.NAME)
_FILES = (".json", ".jsonl", ".tar", ".tgz", ".parquet", ".xml", ".txt", ".yaml", ".yml")
_AS_TABLE = f'read it with format="{huggingface.NAME}" and columns={{"image": …}} that say which column holds what'


def read_dataset(
    path: str | PathLike,
    format: str = "auto",
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    outside: bool = False,
) -> Dataset:
    """The data set in a folder or file.

    path: folder, or the file that lists the annotations; for "huggingface" also an id of the Hub.
    format: "coco", "voc", "yolo", "jsonl", "refcoco", "icdar", "paddleocr", "labelstudio", "webdataset", "captions",
        "annotated" or "huggingface", see `florence_lite.data.readers`; "auto" recognises it by the files.
    split: "train", "val", "test" or the data set's own word; None takes all that is there.
    columns: for "huggingface", which column holds what.
    outside: whether the files may name images outside of the folder, by absolute paths or by "../".

    The headers of all images are read, their pixels are not. What cannot be used is left out and reported in
    `Dataset.problems`.

    Raises FileNotFoundError for a path that is not there; ValueError for a format that is unknown, unclear or not what
    the folder holds, a split that is not there, a file that cannot be read, and where nothing usable remains.
    """
    if format not in ("auto", *FORMATS):
        raise ValueError(f"format is {format!r}; choose auto or one of {', '.join(FORMATS)}")
    if format == huggingface.NAME:
        return huggingface.read(str(path), split, columns, outside)
    if not os.path.exists(path):
        raise FileNotFoundError(_missing(str(path)))
    path = Path(os.path.abspath(path))
    seen = {name: files_of(READERS[name], path) for name in _candidates(path, format)}
    found = {name: files for name, (files, _) in seen.items() if files}
    if "refcoco" in found and format == "auto":
        found.pop("coco", None)  # the reader of expressions reads the COCO files beside them
    if found.get(coco.NAME) == found.get(labelstudio.NAME) and format == "auto":
        found.pop(coco.NAME, None)  # tasks may have the words of COCO in them, but COCO files are no lists
    if annotated.NAME in found and format == "auto":
        found = {annotated.NAME: found[annotated.NAME]}  # reports and corrections may lie beside the answers
    if len(found) > 1 and format == "auto":
        found.pop(captions.NAME, None)  # notes may lie beside images of any format
    if len(found) != 1:
        raise ValueError(_unclear(path, format, found))
    name, files = next(iter(found.items()))
    if columns is not None:
        raise ValueError(f"columns are for the format {huggingface.NAME!r}; {path} is of the format {name!r}")
    root = path if path.is_dir() else _folder_of(path)
    dataset = READERS[name].read(files, root, split, outside)
    return replace(dataset, problems=(*_passed_over(seen[name][1], name, root), *dataset.problems))


def _missing(path: str) -> str:
    told = f"there is no data set {path} (looked in {os.path.dirname(os.path.abspath(path))})"
    may_be_of_the_hub = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) and not path.lower().endswith(_FILES)
    return f'{told}; one of the Hub is read with format="{huggingface.NAME}"' if may_be_of_the_hub else told


def _passed_over(files: Sequence[Path], name: str, root: Path) -> list[Problem]:
    """Files that could have been of the format by their endings."""
    if name == annotated.NAME:
        return []  # what the data engine keeps beside its parts
    others = [file for file in files if not (name == refcoco.NAME and coco.accepts(file))]
    what = f"it does not look like {READERS[name].LOOKS_FOR}"
    return [Problem(os.path.relpath(file, root), "file", what, "file passed over") for file in others]


def _candidates(path: Path, format: str) -> tuple[str, ...]:
    if format != "auto":
        return (format,)
    if path.is_dir() and huggingface.is_saved(path):
        raise ValueError(f"{path} was saved by datasets: {_AS_TABLE}")
    return tuple(READERS)


def _tables(path: Path) -> Path | None:
    """The parquet file, the folder of them or what `datasets` saved; None where there is nothing of the kind."""
    if path.is_file():
        return path if path.suffix.lower() == ".parquet" else None
    saved = (file.parent for file in files_below(path, ("dataset_dict.json", "state.json"), 2))
    return next(saved, path if files_below(path, (".parquet",)) else None)


def _folder_of(file: Path) -> Path:
    """The folder of the data set that a file of annotations belongs to."""
    return file.parent.parent if file.parent.name.lower() == "annotations" else file.parent


def _unclear(path: Path, format: str, found: dict[str, list[Path]]) -> str:
    if found:
        seen = "; ".join(f"{name} ({files[0].name})" for name, files in found.items())
        return f"{path} could be of several formats: {seen}. Say which with format=…"
    if format != "auto":
        return f"{path} holds no files of the format {format!r}: {READERS[format].LOOKS_FOR}"
    looked = "; ".join(f"{name}: {reader.LOOKS_FOR}" for name, reader in READERS.items())
    if tables := _tables(path):
        return f"{tables} holds tables, of no other known format: {_AS_TABLE}. Looked for {looked}"
    return f"{path} is of no known format. Looked for {looked}. Say which it is with format=…"
