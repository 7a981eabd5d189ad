"""The images of a command line: files, folders, patterns, standard input and the sample of the package."""

from __future__ import annotations

import glob
import io
import os
import sys
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

STANDARD_INPUT = "-"
SAMPLE = "sample"


class Input(NamedTuple):
    """An image by the name that answers call it, and what `florence_lite.load_image` opens."""

    name: str
    source: Any


class _Stream(io.BytesIO):
    """What came in by standard input; errors call it so."""

    name = filename = "on standard input"


def find_images(arguments: Sequence[str]) -> list[Input]:
    """The images that the arguments mean, in their order.

    A folder stands for the files in it that end like images, a pattern such as "photos/**/*.jpg" for the files that
    match, both sorted by name; "-" is one image from standard input, and "sample" the one that comes with the package,
    where no file is called so. Any other argument is a file, there or not.

    Raises ValueError for a folder without images, a pattern without matches, and "-" where nothing comes in.
    """
    if list(arguments).count(STANDARD_INPUT) > 1:
        raise ValueError("- is one image from standard input; give it once")
    return [image for argument in arguments for image in _meant(argument)]


def sample() -> bytes:
    """The file of the image that comes with the package."""
    return resources.files("florence_lite.cli").joinpath("sample.jpg").read_bytes()


def _meant(argument: str) -> list[Input]:
    if argument == STANDARD_INPUT:
        return [Input(argument, _Stream(_standard_input()))]
    if os.path.isdir(argument):
        names = sorted(entry.path for entry in os.scandir(argument) if entry.is_file() and _is_seen_image(entry.name))
        if not names:
            raise ValueError(f"folder {argument} holds no file with the ending of an image, such as .jpg or .png")
        return [Input(name, name) for name in names]
    if os.path.lexists(argument):
        return [Input(argument, argument)]
    if argument == SAMPLE:
        return [Input(argument, sample())]
    if glob.has_magic(argument):
        names = sorted(name for name in glob.glob(argument, recursive=True) if os.path.isfile(name))
        if not names:
            raise ValueError(f"no file matches {argument}")
        return [Input(name, name) for name in names]
    return [Input(argument, argument)]


def _is_seen_image(name: str) -> bool:
    from florence_lite.image_files import is_image_name

    return is_image_name(name) and not name.startswith(".")


def _standard_input() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError("- is an image from standard input, and nothing comes in there: write  cat photo.jpg | …")
    if not (content := sys.stdin.buffer.read()):
        raise ValueError("- is an image from standard input, and what came in there is empty")
    return content
