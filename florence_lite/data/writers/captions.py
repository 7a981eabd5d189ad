"""A text beside each picture, as trainers of adapters for image generators read them: `a.jpg` and `a.txt`.

The text is the most detailed caption of the image in one line, behind a prefix such as a trigger word. The folder may
be the one in which the images lie: then only texts are written, and none that is there is touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from florence_lite.data.annotation import Annotation
from florence_lite.data.samples import Dataset
from florence_lite.data.writers.output import NOTHING_TO_SAY, PARTS, Output, Written

NAME = "captions"
FORMATS = {NAME: frozenset(("captions", "more captions"))}  # those that are not written are counted here


def write(splits: Mapping[str, Dataset], output: Output, prefix: str = "") -> None:
    """A picture and its text for each image that has a caption; each split has a folder."""
    output.has_something = lambda annotation: bool(_caption(annotation))
    for split, dataset in splits.items():
        for name, annotation in output.placed(dataset, split):
            file = output.folder / split / f"{Path(name).stem}.txt"
            file.write_text(_text(annotation, prefix, output), encoding="utf-8", newline="\n")


def not_in(splits: Mapping[str, Dataset], folder: Path) -> str:
    """The first image that is no file in a folder or below it; "" where all are."""
    folder = Path(os.path.abspath(folder))
    images = (named for dataset in splits.values() for named in zip(dataset.images, dataset.names, strict=True))
    for image, name in images:
        if not isinstance(image, Path):
            return name
        if not image.absolute().is_relative_to(folder):
            return str(image)
    return ""


def refuse_others(folder: Path, elsewhere: str) -> None:
    """Raises ValueError for a folder that holds files already, beside which not all texts can be written."""
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(
            f"{folder} is there already, and texts cannot be written beside its images, for the image {elsewhere} "
            "lies elsewhere; give the folder that holds all images as files, or an empty folder or a new name"
        )


def write_beside(splits: Mapping[str, Dataset], folder: Path, prefix: str) -> Written:
    """Texts beside the images where they lie. Raises ValueError, before anything is written, where one is there, or
    two images would have the same; OSError, after what was written is taken away, where one cannot be written."""
    output = Output(folder, NAME, FORMATS[NAME])
    texts: dict[Path, str] = {}
    for sample in (sample for dataset in splits.values() for sample in dataset):
        file = cast(Path, sample.image).with_suffix(".txt")  # see `not_in`
        output.count_unsaid(sample.annotation)
        if not _caption(sample.annotation):
            output.lose(NOTHING_TO_SAY)
        elif file in texts:
            raise ValueError(f"two images would have the text {file}: rename one")
        else:
            texts[file] = _text(sample.annotation, prefix, output)
    if not texts:
        raise ValueError(f"nothing of the data can be written as {NAME}: no image has a caption")
    _refuse_existing(texts)
    try:
        for file, text in texts.items():
            file.write_text(text, encoding="utf-8", newline="\n")
    except BaseException as error:
        for each in texts:
            each.unlink(missing_ok=True)  # none was there before
        if isinstance(error, OSError):
            raise OSError(f"{file} was not written ({error.strerror or error}), and no text is left") from error
        raise
    return Written(folder, len(texts), dict(output.left_out.most_common()))


def _refuse_existing(files: Iterable[Path]) -> None:
    if there := [file for file in files if os.path.lexists(file)]:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise ValueError(f"{there[0]}{more} would be overwritten; move them away, or give a new folder")


def _caption(annotation: Annotation) -> str:
    """The most detailed caption in one line, "" where there is none."""
    known = (*annotation.more_captions[:1], *annotation.captions)
    return next((words for each in reversed(known) if (words := " ".join(each.split()))), "")


def _text(annotation: Annotation, prefix: str, output: Output) -> str:
    spoken = sum(map(bool, annotation.captions)) + len(annotation.more_captions) - 1
    output.lose(PARTS["more captions"][0], spoken)
    return f"{prefix}{_caption(annotation)}\n"
