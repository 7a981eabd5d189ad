"""Annotated images as files of other tools, one module for each format; `florence_lite.data.readers` reads them back.

coco         JSON: boxes, outlines, captions             jsonl        our own schema, a JSON object a line
voc          XML per image, lists of splits              labelstudio  tasks to import, with answers to correct
yolo         text labels: boxes or segments              webdataset   tars of pictures with our own schema
captions     a text beside each picture                  huggingface  parquet files, or what `save_to_disk` writes

What they share is in `output`. A module of a format has `FORMATS`, its names, each with what it says of `PARTS`, and
write(splits, output).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from florence_lite.data.samples import Dataset, Sample
from florence_lite.data.writers import captions, coco, huggingface, jsonl, labelstudio, voc, webdataset, yolo
from florence_lite.data.writers.jsonl import to_jsonl
from florence_lite.data.writers.output import Output, Written, building
from florence_lite.files import refuse_long_name

__all__ = ["WRITERS", "Written", "to_jsonl", "write_dataset"]

_MODULES = (coco, voc, yolo, jsonl, captions, labelstudio, webdataset, huggingface)
WRITERS = {name: module for module in _MODULES for name in module.FORMATS}


def write_dataset(
    dataset: Dataset | Sequence[Sample] | Mapping[str, Dataset],
    format: str,
    output: str | os.PathLike,
    prefix: str = "",
    copy_images: bool = False,
    tell: Callable[[], object] = lambda: None,
) -> Written:
    """Write annotated images as a folder of another format, which `read_dataset` reads back.

    dataset: images with annotations; or several, each called by its split, "train", "val" or "test".
    format: "coco", "voc", "yolo", "jsonl", "captions", "labelstudio", "webdataset", "huggingface" (parquet files) or
        "datasets" (what `save_to_disk` writes).
    output: the folder. Nothing may lie in it, but for captions beside the images of that folder.
    prefix: what each caption begins with; for "captions".
    copy_images: images that are files of their own are copied; else formats that have a folder of images link them.
        What lies in another file is written out in either case, and so is what EXIF turns, upright.
    tell: is called for each image, for those who show how far it is.

    It is built beside its place and appears there whole, or not at all. What the format cannot say is counted in what
    is returned, and so are images that cannot be read, which are left out with what is known about them.

    Raises ValueError for a format that is unknown, an output that is not empty or has too long a name, and data of
    which the format can say nothing; OSError where it cannot be written.
    """
    if format not in WRITERS:
        raise ValueError(f"format is {format!r}; choose one of {', '.join(WRITERS)}")
    if prefix and format != captions.NAME:
        raise ValueError(f"prefix is {prefix!r}, which only the format {captions.NAME!r} has")
    splits = {name: _as_dataset(each) for name, each in _splits(dataset).items()}
    output, writer = Path(output), WRITERS[format]
    refuse_long_name(output)
    if format == captions.NAME:
        if not (elsewhere := captions.not_in(splits, output)):
            return captions.write_beside(splits, output, prefix)
        captions.refuse_others(output, elsewhere)
    with building(output) as folder:
        out = Output(folder, format, writer.FORMATS[format], copy_images, tell=tell, destination=output)
        writer.write(splits, out, **({"prefix": prefix} if prefix else {}))
        if not out.images:
            lost = ", ".join(f"{count} × {kind}" for kind, count in out.left_out.items())
            raise ValueError(f"nothing of the data can be written as {format}: {lost or 'there are no images'}")
    return Written(output, out.images, dict(out.left_out.most_common()), out.hint, out.linked)


def _splits(dataset: Dataset | Sequence[Sample] | Mapping[str, Dataset]) -> Mapping[str, Dataset | Sequence[Sample]]:
    if not isinstance(dataset, Mapping):
        return {"": dataset}
    if not dataset or not all(isinstance(name, str) and name.isidentifier() for name in dataset):
        raise ValueError(f"splits are called {', '.join(map(repr, dataset))}; call them train, val or test")
    return dataset


def _as_dataset(samples: Dataset | Sequence[Sample]) -> Dataset:
    return samples if isinstance(samples, Dataset) else Dataset.of(samples)
