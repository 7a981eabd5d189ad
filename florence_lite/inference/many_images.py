"""Any number of images, loaded as they are needed and answered in order. Nothing of them is kept."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Any

from florence_lite.images import is_image_source
from florence_lite.inference.answering import Answering, Asked
from florence_lite.inference.encoded import EncodedImage, ImageEncoder
from florence_lite.inference.pipeline import Pipeline, Unreadable
from florence_lite.results import Result

IMAGES_AHEAD = 32  # that are loaded, encoded or answered before the first of them is handed out


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
) -> Iterator[list[Result] | ImageError]:
    """For each image and what is asked about it, its results in the order of the prompts, or an error in their place.

    An image is taken from `questions` when there is room for it in the pipeline, `IMAGES_AHEAD` at most before the
    first of them is answered. What `questions` itself raises is raised after the answers about the images that came
    before.
    keep_image: whether results keep their pictures.

    Raises ValueError for a prompt that is too long for the network.
    """
    remaining, fault = enumerate(questions), None
    on_the_way: deque[tuple[str, int, Future]] = deque()
    with Pipeline(encoder, answering) as pipeline:
        while True:
            while remaining and pipeline.takes_more and len(on_the_way) < IMAGES_AHEAD:
                try:
                    index, (image, asked) = next(remaining)
                except StopIteration:
                    remaining = None
                except Exception as error:
                    remaining, fault = None, error
                else:
                    future = pipeline.submit(image, asked, options, keep_image)
                    on_the_way.append((image_name(image, index), index, future))
                    del image
            if not on_the_way:
                break
            while not on_the_way[0][-1].done():
                pipeline.step()
            # One by one, so that an answer lives no longer than its reader wants.
            yield _answer(*on_the_way.popleft())
    if fault is not None:
        raise fault


def _answer(name: str, index: int, future: Future) -> list[Result] | ImageError:
    try:
        return future.result()
    except Unreadable as error:
        return ImageError(name, index, _without_frames(error.reason))


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
