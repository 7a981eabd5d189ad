"""Which of many images show what a phrase names, and where in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from florence_lite.checks import is_whole
from florence_lite.inference.encoded import IMAGES_AT_ONCE, EncodedImage, ImageEncoder
from florence_lite.inference.many_images import ImageError, batches, image_error, image_name
from florence_lite.results import Result


@dataclass(frozen=True)
class Found:
    """An image in which a phrase was looked for.

    index: place of the image, counted from 0. name: its path, or its place in words.
    presence: the probability that the phrase means something in it. result: where, as `Florence.detect` answers.
    """

    index: int
    name: str
    presence: float
    result: Result

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the names of the fields."""
        return {"index": self.index, "image": self.name, "presence": self.presence, "result": self.result.to_dict()}


@dataclass(frozen=True)
class Search:
    """The images in which a phrase is most probably present, the best first: `for found in search`, `search[0]`.

    phrase: what was looked for. found: the best of the images in which it is present. images: how many were looked at.
    errors: those that could not be read. absent: of how many the presence is below the threshold.
    """

    phrase: str
    found: tuple[Found, ...]
    images: int
    errors: tuple[ImageError, ...] = ()
    absent: int = 0

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Found]:
        return iter(self.found)

    def __getitem__(self, place: int) -> Found:
        return self.found[place]


@dataclass
class Candidate:
    """An image that may be among the best."""

    index: int
    name: str
    presence: float
    image: EncodedImage


def best_of(
    encoder: ImageEncoder,
    images: Iterable[Any],
    presence_in: Callable[[list[EncodedImage]], list[float]],
    threshold: float,
    top: int,
    keep_image: bool,
    done: Callable[[int], object] = lambda count: None,
) -> tuple[list[Candidate], int, list[ImageError], int]:
    """The `top` images of the highest presence, the best first and earlier ones before equal others; how many have one
    below the threshold and are none of them; those that cannot be read; and the number of all.

    A few images are in memory at a time, and the best so far. keep_image: whether these keep their pictures.
    presence_in: from encoded images to their presences. done: told how many images more have been looked at.
    """
    best: list[Candidate] = []
    errors: list[ImageError] = []
    count = absent = 0
    for batch in batches(images, IMAGES_AT_ONCE):
        opened, names = [], []
        for index, image in enumerate(batch, start=count):
            try:
                opened.append(encoder.open(image, keep_image))
                names.append((index, image_name(image, index)))
            except (ValueError, OSError) as error:
                errors.append(image_error(image, index, error))
        encoded = encoder.encode(opened)
        presences = presence_in(encoded) if encoded else []
        for (index, name), presence, image in zip(names, presences, encoded, strict=True):
            if presence >= threshold:
                best.append(Candidate(index, name, presence, image))
            else:
                absent += 1
        best = sorted(best, key=lambda each: (-each.presence, each.index))[:top]
        count += len(batch)
        done(len(batch))
    return best, absent, errors, count


def check_top(top: Any) -> int:
    if not is_whole(top, 1):
        raise ValueError(f"top is {top!r}; it must be a whole number of at least 1")
    return top
