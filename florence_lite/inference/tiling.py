"""Large images in tiles: each is answered like an image of its own, at full resolution, and the answers made one."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, NamedTuple, cast

from PIL import Image

from florence_lite.cards import TaskCard, tasks
from florence_lite.checks import is_list, is_whole
from florence_lite.image_files import image_size, shown_size
from florence_lite.images import load_image
from florence_lite.inference.answering import Asked
from florence_lite.inference.encoded import EncodedImage, kept_picture
from florence_lite.inference.many_images import ImageError, image_error, image_name
from florence_lite.inference.merging import TileBox, merged
from florence_lite.results import Result

MOST_TILES = 10_000  # of one image; more are a slip in the overlap
_PLACES = ("labelled_boxes", "labelled_boxes_or_polygons", "boxes", "labelled_quads", "polygons")

Piece = tuple[Any, Sequence[Asked]]
"""An image, or a tile of one, and what is asked about it."""


class Tiling(NamedTuple):
    """size: side of the square tiles in pixels. overlap: pixels that neighbours share at least."""

    size: int
    overlap: int


def as_tiling(tile: Any, cards: Iterable[TaskCard]) -> Tiling:
    """`tile=(size, overlap)` of a call that asks for these tasks. Raises ValueError where it is something else, and for
    a task whose answer is not a list of places."""
    if not is_list(tile, lambda value: is_whole(value, 0), 2):
        raise ValueError(f"tile={tile!r} must be (size, overlap), whole numbers of pixels such as (1000, 200)")
    size, overlap = tile
    if size < 1:
        raise ValueError(f"tile=({size}, {overlap}): the size of the tiles must be at least 1 pixel")
    if overlap >= size:
        raise ValueError(f"tile=({size}, {overlap}): the overlap must be smaller than the size of the tiles")
    for card in cards:
        if not can_be_tiled(card):
            able = ", ".join(each.name for each in tasks() if can_be_tiled(each))
            raise ValueError(f"task {card.name} cannot be asked in tiles: its answer is no list of places; {able} can")
    return Tiling(size, overlap)


def can_be_tiled(card: TaskCard) -> bool:
    """Whether the task lists places, whatever part of an image it is asked about: a caption or a region is about a
    whole one."""
    return card.grammar in _PLACES and card.input in ("none", "phrase", "phrases")


def tile_boxes(size_wh: tuple[int, int], tiling: Tiling) -> list[TileBox]:
    """x0 y0 x1 y1 of the tiles that cover an image, row by row: as few as share `tiling.overlap` with their neighbours,
    evenly spread. A side of the image that is no longer than a tile is not cut.

    Raises ValueError for more than `MOST_TILES`.
    """
    (width, height), size = size_wh, tiling.size
    count = math.prod(_count(side, tiling) for side in size_wh)
    if count > MOST_TILES:
        raise ValueError(
            f"tile=({size}, {tiling.overlap}) cuts an image of {shown_size(size_wh)} pixels into {count:,} tiles, more "
            f"than {MOST_TILES:,}: take larger tiles or a smaller overlap"
        )
    starts = product(_starts(height, tiling), _starts(width, tiling))
    return [(x, y, min(x + size, width), min(y + size, height)) for y, x in starts]


def _count(side: int, tiling: Tiling) -> int:
    return 1 if side <= tiling.size else math.ceil((side - tiling.overlap) / (tiling.size - tiling.overlap))


def _starts(side: int, tiling: Tiling) -> list[int]:
    last = _count(side, tiling) - 1
    return [number * (side - tiling.size) // last for number in range(last + 1)] if last else [0]


def tiled(
    questions: Iterable[Piece],
    tiling: Tiling,
    answer: Callable[[Iterator[Piece]], Iterator[list[Result] | ImageError]],
    keep_image: bool,
) -> Iterator[list[Result] | ImageError]:
    """For each image and what is asked about it, its results in the order of the prompts, or an error in their place.

    answer: gives the same for the tiles, which are cut out when it takes them. An image that is no larger than one tile
        goes there as it is. Behind the tiles of another one comes the whole of it, for what is larger than a tile;
        not for text, which cannot be read there.
    keep_image: whether results keep their pictures; `answer` must keep those of whole images then.
    """
    waiting: deque[_Cut | ImageError] = deque()
    answers, fault = answer(_pieces(questions, tiling, keep_image, waiting)), None
    while True:
        try:
            given = next(answers, None)
        except Exception as error:  # raised behind what came before
            given, fault = None, error
        while waiting and isinstance(waiting[0], ImageError):
            yield cast(ImageError, waiting.popleft())
        if given is None:
            break
        waiting[0].take(given)
        if waiting[0].is_complete():
            yield waiting.popleft().answer()
    if fault is not None:
        raise fault


@dataclass
class _Cut:
    """An image whose tiles are being answered. parts: of each tile, its results. kept: the picture for the results."""

    name: str
    index: int
    size_wh: tuple[int, int]
    tiling: Tiling
    asked: Sequence[Asked]
    tiles: list[TileBox]
    kept: Image.Image | None = None
    parts: list[list[Result] | ImageError] = field(default_factory=list)

    @property
    def overview(self) -> list[Asked]:
        """What is asked about the whole of it, too."""
        return [each for each in self.asked if each.card.grammar != "labelled_quads"] if len(self.tiles) > 1 else []

    def take(self, part: list[Result] | ImageError) -> None:
        if len(self.tiles) > 1 and not isinstance(part, ImageError):
            part = [replace(result, image=None) for result in part]
        self.parts.append(part)

    def is_complete(self) -> bool:
        return len(self.parts) == len(self.tiles) + bool(self.overview)

    def answer(self) -> list[Result] | ImageError:
        fault = next((part for part in self.parts if isinstance(part, ImageError)), None)
        if fault is not None:
            return ImageError(self.name, self.index, fault.reason)
        answers = cast(list[list[Result]], self.parts)
        if len(self.tiles) == 1:
            return answers[0]
        of_tiles = answers[: len(self.tiles)]
        overview = iter(answers[-1]) if self.overview else iter(())
        results = []
        for number, each in enumerate(self.asked):
            whole = next(overview) if each in self.overview else None
            parts = [part[number] for part in of_tiles]
            result = merged(parts, self.tiles, self.size_wh, self.tiling.overlap, whole, each.card)
            results.append(replace(result, image=self.kept))
        return results


def _pieces(
    questions: Iterable[Piece], tiling: Tiling, keep_image: bool, waiting: deque[_Cut | ImageError]
) -> Iterator[Piece]:
    """The tiles of all images, one after the other; what waits for their answers is put into `waiting`."""
    for index, (image, asked) in enumerate(questions):
        try:
            picture, size_wh = _opened(image, tiling)
            tiles = tile_boxes(size_wh, tiling)
        except (ValueError, OSError) as error:
            waiting.append(image_error(image, index, error))
            continue
        cut = _Cut(image_name(image, index), index, size_wh, tiling, asked, tiles)
        waiting.append(cut)
        if len(tiles) == 1:
            yield picture, asked
            continue
        cut.kept = kept_picture(picture) if keep_image else None
        for tile in tiles:
            yield picture.crop(tile), asked
        if cut.overview:
            yield picture, cut.overview


def _opened(image: Any, tiling: Tiling) -> tuple[Any, tuple[int, int]]:
    """The picture of an image at its full resolution, or the image itself where one tile is enough; and its size."""
    if isinstance(image, EncodedImage):
        if max(image.size_wh) <= tiling.size:
            return image, image.size_wh
        if image.image is None or image.image.size != image.size_wh:
            raise ValueError(
                f"the encoded image keeps no picture of all its {shown_size(image.size_wh)} pixels, from which tiles "
                "could be cut: give the image itself"
            )
        return image.image, image.size_wh
    if isinstance(image, str | os.PathLike | bytes | Image.Image) and max(image_size(image)) <= tiling.size:
        return image, image_size(image)
    picture = load_image(image)
    return picture, picture.size
