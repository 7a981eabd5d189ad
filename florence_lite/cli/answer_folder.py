"""The folder of `florence-lite run --out`: one JSON file and one picture for each image, and what is there already."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from florence_lite.cli.inputs import STANDARD_INPUT, Input
from florence_lite.files import read_json_object, refuse_long_name, replace_text

if TYPE_CHECKING:
    from florence_lite.results import Result

LARGEST = 2**28  # bytes of an answer in JSON; outlines of a thousand objects have a hundredth


class AnswerFolder:
    """Answers to one question about images, each in a file that is called as the image: cat.jpg → cat.json, cat.jpg.

    images: those that have no file yet, or whose own file has changed. done: how many have one.
    """

    def __init__(self, folder: Path, images: Sequence[Input], asked: Mapping[str, Any]):
        """asked: the prompt and all options that answers depend on, as JSON has them.

        The folder is made if absent. Raises ValueError where two images would share a file, where a picture would
        replace one of the images or stand among them, and where the folder holds the answer to another question, or
        about another image that is called so.
        """
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--out {folder} is a file; give a folder, which may be new")
        self.folder, self.asked = folder, json.loads(json.dumps(asked))
        owners: dict[Path, str] = {}
        self.images = []
        for image in images:
            file = self.file(image.name)
            refuse_long_name(file, "--out")
            if file in owners:
                raise ValueError(
                    f"{owners[file]} and {image.name} would both be answered in {file}; give them in two calls, each "
                    "with an --out of its own"
                )
            owners[file] = image.name
            if isinstance(image.source, str) and _is_same(self.picture(image.name), Path(image.source)):
                raise ValueError(f"--out {folder} would overwrite the image {image.name}; choose another folder")
            if isinstance(image.source, str) and Path(image.source).resolve().parent == folder.resolve():
                raise ValueError(
                    f"--out {folder} holds the image {image.name}, and pictures of answers would be taken for "
                    "images the next time; choose another folder"
                )
            if not file.exists():
                self.images.append(image)
                continue
            record = read_json_object(file, LARGEST)
            if record.get("asked") != self.asked:
                raise ValueError(f"{file} answers something else than is asked now; choose another folder for --out")
            if record.get("sha256") == digest(image):
                continue
            if image.name == STANDARD_INPUT or record.get("image") != image.name:
                raise ValueError(
                    f"{file} is about another image than {image.name}, {record.get('image')}: choose another folder "
                    "for --out"
                )
            self.images.append(image)
        self.done = len(images) - len(self.images)
        self._inputs = {image.name: image for image in self.images}
        folder.mkdir(parents=True, exist_ok=True)

    def file(self, image: str) -> Path:
        """Where the answer about an image stands."""
        return self.folder / f"{'stdin' if image == STANDARD_INPUT else Path(image).stem}.json"

    def picture(self, image: str) -> Path:
        """Where the answer is drawn."""
        return self.file(image).with_suffix(".jpg")

    def write(self, image: str, result: Result) -> None:
        """The picture first, and then, at once, the file that says that the image is done. Raises OSError."""
        result.draw().save(self.picture(image), quality=90)
        record = {"image": image, "sha256": digest(self._inputs[image]), **result.to_dict()}
        record |= {"picture": self.picture(image).name, "asked": self.asked}
        replace_text(self.file(image), json.dumps(record) + "\n")


def digest(image: Input) -> str | None:
    """SHA-256 of the file; None where it cannot be read."""
    source = image.source
    try:
        if isinstance(source, str):
            with open(source, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha256(source.getvalue() if isinstance(source, io.BytesIO) else source).hexdigest()
    except OSError:
        return None


def _is_same(file: Path, other: Path) -> bool:
    return file.exists() and other.exists() and file.samefile(other)
