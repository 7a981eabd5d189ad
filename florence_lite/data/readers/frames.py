"""Coordinates of records brought into their images, and what may be said of an image once its records are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from florence_lite.answers import Box, Polygons, Quad
from florence_lite.checks import is_number
from florence_lite.data.annotation import Annotation, ObjectAnnotation
from florence_lite.data.readers.records import ProblemLog
from florence_lite.data.readers.rle import rle_to_mask
from florence_lite.geometry import box_area, clip_ring, mask_to_rings
from florence_lite.image_files import ImageSizes

_FAR = 1e9  # pixels: what is farther off is no coordinate, and its area no number
_SHARES = "are shares of the image's sides rather than pixels"
_FEW_PIXELS = 8  # an image of longer sides has no object whose coordinates in pixels are all at most 1


@dataclass(frozen=True)
class ImageFrame:
    """The image that a record's coordinates belong to. It makes the image's annotation, and knows what must not be
    said in it: a list of which anything was not understood is not all that there is.

    size_wh: of the upright image. scale: from the record's pixels to the image's, x and y; 1 where they agree.
    log, file, record: where problems are reported.
    from_shares: the reader made pixels of shares of the sides, so that small coordinates are small.
    incomplete: of "objects" and "lines", those of which something was not understood.
    """

    size_wh: tuple[int, int]
    scale: tuple[float, float]
    log: ProblemLog
    file: Path
    record: str
    from_shares: bool = False
    incomplete: set[str] = field(default_factory=set)

    def annotation(self, lists: Iterable[str], negative: str = "", **known: Any) -> Annotation:
        """The annotation of the image.

        lists: of "objects" and "lines", those that the records name in full; what was not understood is taken off.
        negative: why the image has no objects, should there be none. known: the further fields of `Annotation`.
        """
        found = Annotation(self.size_wh, exhaustive=frozenset(lists) - self.incomplete, **known)
        return replace(found, negative=negative) if found.is_negative else found

    def report(self, kind: str, what: str, record: str = "") -> None:
        """Report what was repaired, or left out without a loss of objects or lines."""
        self.log.add(self.file, f"{self.record}, {record}" if record else self.record, kind, what)

    def lose(self, part: str, kind: str, what: str, record: str = "") -> None:
        """Report what was not understood: `part`, "objects" or "lines", is not all that there is."""
        self.incomplete.add(part)
        self.report(kind, what, record)

    def box(self, numbers: Any, record: str, part: str = "objects") -> Box | None:
        """x0 y0 x1 y1 of the record as a box inside the image; None, reported, for one that is none or lies outside.

        part: what loses a member with a box that is none.
        """
        values = _numbers(numbers, (4,))
        if values is None:
            return self.lose(part, "box left out", f"{_short(numbers)} is not four finite numbers", record)
        if not (values[0] < values[2] and values[1] < values[3]):
            said = _short(values.tolist())
            return self.lose(part, "box left out", f"x0 y0 x1 y1 = {said} is empty or inverted", record)
        if self._are_shares(values):
            return self.lose(part, "box left out", f"{_short(values.tolist())} {_SHARES}", record)
        scaled = values * (*self.scale, *self.scale)
        clipped = np.clip(scaled, 0, (*self.size_wh, *self.size_wh))
        if box_area(clipped) == 0:
            said = f"{_short(scaled.tolist())} lies outside of {self._size}"
            return self.lose(part, "box left out", said, record)  # its object may be in the image, elsewhere
        if np.abs(clipped - scaled).max() > 0.01:  # less is the rounding of normalised coordinates
            self.report("box clipped", f"{_short(scaled.tolist())} reaches out of {self._size}", record)
        return tuple(clipped.tolist())

    def polygons(self, polygons: Iterable[Any], record: str) -> Polygons:
        """Polygons, each a flat list x y x y … or a list of [x, y], as rings inside the image; others are reported."""
        rings = []
        for polygon in polygons:
            points = _numbers(polygon, (-1, 2))
            if points is None or len(points) < 3:
                said = f"{_short(polygon)} is not three or more points of finite numbers"
                self.report("polygon left out", said, record)
                continue
            if self._are_shares(points):
                self.report("polygon left out", f"{_short(polygon)} {_SHARES}", record)
                continue
            scaled = points * self.scale
            ring = np.clip(scaled, 0, self.size_wh)
            if np.abs(ring - scaled).max() > 0.01:
                ring = clip_ring(scaled, (0, 0, *self.size_wh))
            if len(ring) < 3:
                self.report("polygon left out", f"{_short(polygon)} lies outside of {self._size}", record)
                continue
            rings.append(ring)
        return tuple(tuple(map(tuple, ring.tolist())) for ring in rings)

    def outlines_of_mask(self, run_lengths: Any, record: str) -> Polygons:
        """The outlines of COCO's run lengths; (), reported, for such as are none or are for an image of another size.
        Nothing is unpacked before the size is known to be the image's."""
        declared = round(self.size_wh[0] / self.scale[0]), round(self.size_wh[1] / self.scale[1])
        try:
            mask = rle_to_mask(run_lengths, declared)
        except ValueError as error:
            self.report("polygon left out", str(error), record)
            return ()
        return self.polygons(mask_to_rings(mask), record)

    def object(
        self,
        label: str,
        box: Any,
        polygons: Iterable[Any] = (),
        phrase: str = "",
        record: str = "",
        score: Any = None,
    ) -> ObjectAnnotation | None:
        """The object, its box and polygons brought into the image; None, reported, without a box that is one. A score
        that is none is reported too."""
        inside = self.box(box, record)
        if inside is None:
            return None
        return ObjectAnnotation(label, inside, self.polygons(polygons, record), phrase, self.score(score, record))

    def score(self, value: Any, record: str) -> float | None:
        """A score from 0 to 1, None where there is none or, reported, where it is something else."""
        if value is None or (is_number(value) and 0 <= value <= 1):
            return None if value is None else float(value)
        return self.report("score left out", f"{str(value)[:60]} is no number from 0 to 1", record)

    def quad(self, numbers: Any, record: str) -> Quad | None:
        """x0 y0 … x3 y3 of the record inside the image, clockwise; None, reported, for one that is none or outside."""
        corners = _numbers(numbers, (4, 2))
        if corners is None:
            return self.lose("lines", "quad left out", f"{_short(numbers)} is not eight finite numbers", record)
        if self._are_shares(corners):
            return self.lose("lines", "quad left out", f"{_short(numbers)} {_SHARES}", record)
        corners = corners * self.scale
        clipped = np.clip(corners, 0, self.size_wh)
        x, y = clipped.T
        turn = float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))  # above 0: clockwise, for y points down
        if turn == 0:
            said = f"{_short(numbers)} has no area inside {self._size}"
            return self.lose("lines", "quad left out", said, record)  # its text may be in the image, elsewhere
        if np.abs(clipped - corners).max() > 0.01:
            self.report("quad clipped", f"{_short(numbers)} reaches out of {self._size}", record)
        if turn < 0:
            self.report("quad turned", f"{_short(numbers)} runs anticlockwise; the first corner stays", record)
            clipped = clipped[[0, 3, 2, 1]]
        return cast(Quad, tuple(clipped.ravel().tolist()))

    def _are_shares(self, values: np.ndarray) -> bool:
        """Whether coordinates are shares of the image's sides: in pixels all of them would lie within the first."""
        shorter = min(side / factor for side, factor in zip(self.size_wh, self.scale, strict=True))
        return not self.from_shares and shorter > _FEW_PIXELS and bool((np.abs(values) <= 1).all())

    @property
    def _size(self) -> str:
        return f"the image of {self.size_wh[0]}×{self.size_wh[1]}"


def frame_of(
    sizes: ImageSizes, declared_wh: tuple[float, float] | None, log: ProblemLog, file: Path, record: str
) -> ImageFrame | None:
    """The frame of an image whose record says it has `declared_wh` pixels; None, reported, if it is unusable.

    An image that was resized since, keeping its aspect, is taken: coordinates are scaled to it.
    """
    size = sizes.upright
    if not declared_wh or tuple(declared_wh) == size:
        return ImageFrame(size, (1.0, 1.0), log, file, record)
    width, height = declared_wh
    said = f"{width:g}×{height:g} in the file, {size[0]}×{size[1]} in the image"
    if (width, height) == sizes.stored:
        why = f"{said}: annotated before its EXIF rotation; save the image without the tag"
        return log.add(file, record, "size contradicts the image", why)
    long = max(range(2), key=lambda side: size[side])
    factor = size[long] / declared_wh[long]
    if abs(declared_wh[1 - long] * factor - size[1 - long]) > 1 + 0.01 * size[1 - long]:
        return log.add(file, record, "size contradicts the image", f"{said}, which is another shape")
    log.add(file, record, "scaled to the image", said)
    return ImageFrame(size, (size[0] / width, size[1] / height), log, file, record)


def _numbers(values: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """float64 of a shape; None for what is none of numbers (or their texts), is not finite or has another count."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
        if len(shape) == 1 and numbers.ndim != 1:
            return None
        numbers = numbers.reshape(shape)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if np.isfinite(numbers).all() and (np.abs(numbers) < _FAR).all() else None


def _short(value: Any) -> str:
    if isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value):
        value = [round(v, 2) for v in value]
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
