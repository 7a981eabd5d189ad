"""Any number of images, loaded as they are needed and answered in order. Nothing of them is kept."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from florence_lite.images import is_image_source
from florence_lite.inference.answering import Answering, Asked, Request, joined
from florence_lite.inference.encoded import IMAGES_AT_ONCE, EncodedImage, ImageEncoder, OpenedImage
from florence_lite.results import Result


class ImageError(ValueError):
    """Stands in the place of the answer about an image that cannot be read or does not hold the region asked about.

    It is an exception that was not raised: raise it, print it, or go on. It has nothing that an answer has.

    name: the path of the image, or its place among the images. index: its place, counted from 0.
    reason: the exception that says what is wrong.
    """

    def __init__(self, name: str, index: int, reason: Exception):
        super().__init__(name, index, reason)
        self.name, self.index, self.reason = name, index, reason

    def __str__(self) -> str:
        name, _, reason = self.args
        return str(reason) if name in str(reason) else f"image {name}: {reason}"

    def __getattr__(self, attribute: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no {attribute!r}: this is no answer, but an error ({self})")


def is_image(value: Any) -> bool:
    """Whether it is one image, encoded or as `load_image` takes it, rather than a collection of them."""
    return isinstance(value, EncodedImage) or is_image_source(value)


def answer_each(
    encoder: ImageEncoder,
    answering: Answering,
    questions: Iterable[tuple[Any, Sequence[Asked]]],
    options: Mapping[str, Any],
    keep_image: bool,
    at_once: int = IMAGES_AT_ONCE,
) -> Iterator[list[Result] | ImageError]:
    """For each image and what is asked about it, its results in the order of the prompts, or an error in their place.

    An image is taken from `questions` when it is needed: `at_once` of them are answered together. What `questions`
    itself raises is raised after the answers about the images that came before.
    keep_image: whether results keep their pictures.

    Raises ValueError for a prompt that is too long for the network.
    """
    index = 0
    for batch in batches(questions, at_once):
        answered = _answered(encoder, answering, batch, index, options, keep_image)
        index += len(batch)
        del batch
        while answered:  # one by one, so that an answer lives no longer than its reader wants
            yield answered.popleft()


def batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last one shorter. An error of `items` is raised behind the items that came before."""
    iterator = iter(items)
    fault = None
    while fault is None:
        batch: list[Any] = []
        try:
            for item in islice(iterator, size):
                batch.append(item)
        except Exception as error:
            fault = error
        if batch:
            yield batch
        elif fault is None:
            return
    raise fault


def _answered(
    encoder: ImageEncoder,
    answering: Answering,
    batch: Sequence[tuple[Any, Sequence[Asked]]],
    first_index: int,
    options: Mapping[str, Any],
    keep_image: bool,
) -> deque[list[Result] | ImageError]:
    answers: deque[list[Result] | ImageError | None] = deque()
    opened: list[OpenedImage | EncodedImage] = []
    wanted: list[list[list[Request]]] = []  # for each readable image and each prompt
    for index, (image, asked) in enumerate(batch, start=first_index):
        try:
            picture = encoder.open(image, keep_image)
            wanted.append([answering.requests(each, picture.size_wh) for each in asked])
            opened.append(picture)
            answers.append(None)
        except (ValueError, OSError) as error:
            answers.append(image_error(image, index, error))

    encoded = encoder.encode(opened)
    pairs = [
        (image, request)
        for image, prompts in zip(encoded, wanted, strict=True)
        for requests in prompts
        for request in requests
    ]
    results = iter(answering.answer(pairs, options, keep_image))
    of_images = iter([[joined(list(islice(results, len(requests)))) for requests in prompts] for prompts in wanted])
    return deque(next(of_images) if answer is None else answer for answer in answers)


def image_error(image: Any, index: int, reason: Exception) -> ImageError:
    """What stands in the place of the answer about an image, which is the `index`-th, with what is wrong with it."""
    return ImageError(image_name(image, index), index, _without_frames(reason))


def image_name(image: Any, index: int) -> str:
    """The path of an image, or its place among the images."""
    path = image if isinstance(image, str | os.PathLike) else getattr(image, "filename", None)
    return os.fsdecode(path) if path else f"{index} (counted from 0)"


def _without_frames(error: Exception) -> Exception:
    """The error without tracebacks, whose frames would keep half-read pictures in memory as long as the error lives."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error
