"""Images found by the names that records give them, and coordinates brought into their images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from florence_lite.answers import Box, Polygons, Quad
from florence_lite.data.annotation import ObjectAnnotation
from florence_lite.data.readers.files import IMAGE_ENDINGS, files_below
from florence_lite.data.readers.records import ProblemLog, Unclear
from florence_lite.geometry import box_area, clip_ring
from florence_lite.images import load_image

_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


@dataclass(frozen=True)
class ImageFrame:
    """The image that a record's coordinates belong to.

    size_wh: of the upright image. scale: from the record's pixels to the image's, x and y; 1 where they agree.
    log, file, record: where problems are reported.
    """

    size_wh: tuple[int, int]
    scale: tuple[float, float]
    log: ProblemLog
    file: Path
    record: str

    def report(self, kind: str, what: str, record: str = "") -> None:
        self.log.add(self.file, f"{self.record}, {record}" if record else self.record, kind, what)

    def box(self, numbers: Any, record: str) -> Box | None:
        """x0 y0 x1 y1 of the record as a box inside the image; None, reported, for one that is none or lies outside."""
        try:
            values = np.asarray(numbers, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            values = np.empty(0)
        if values.shape != (4,) or not np.isfinite(values).all():
            return self.report("box left out", f"{_short(numbers)} is not four finite numbers", record)
        if not (values[0] < values[2] and values[1] < values[3]):
            return self.report("box left out", f"x0 y0 x1 y1 = {_short(values.tolist())} is empty or inverted", record)
        scaled = values * (*self.scale, *self.scale)
        clipped = np.clip(scaled, 0, (*self.size_wh, *self.size_wh))
        if box_area(clipped) == 0:
            return self.report("box left out", f"{_short(scaled.tolist())} lies outside of {self._size}", record)
        if np.abs(clipped - scaled).max() > 0.01:  # less is the rounding of normalised coordinates
            self.report("box clipped", f"{_short(scaled.tolist())} reaches out of {self._size}", record)
        return tuple(clipped.tolist())

    def polygons(self, polygons: Iterable[Any], record: str) -> Polygons:
        """Polygons, each a flat list x y x y … or a list of [x, y], as rings inside the image; others are reported."""
        rings = []
        for polygon in polygons:
            try:
                points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
            except (TypeError, ValueError, OverflowError):
                points = np.full((1, 2), np.nan)
            if len(points) < 3 or not np.isfinite(points).all():
                self.report(
                    "polygon left out", f"{_short(polygon)} is not three or more points of finite numbers", record
                )
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

    def object(
        self, label: str, box: Any, polygons: Iterable[Any] = (), phrase: str = "", record: str = ""
    ) -> ObjectAnnotation | None:
        """The object, its box and polygons brought into the image; None, reported, without a box that is one."""
        inside = self.box(box, record)
        return None if inside is None else ObjectAnnotation(label, inside, self.polygons(polygons, record), phrase)

    def quad(self, numbers: Any, record: str) -> Quad | None:
        """x0 y0 … x3 y3 of the record inside the image, clockwise; None, reported, for one that is none or outside."""
        try:
            corners = np.asarray(numbers, dtype=np.float64).reshape(4, 2) * self.scale
        except (TypeError, ValueError, OverflowError):
            corners = np.full((4, 2), np.nan)
        if not np.isfinite(corners).all():
            return self.report("quad left out", f"{_short(numbers)} is not eight finite numbers", record)
        clipped = np.clip(corners, 0, self.size_wh)
        x, y = clipped.T
        turn = float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))  # above 0: clockwise, for y points down
        if turn == 0:
            return self.report("quad left out", f"{_short(numbers)} has no area inside {self._size}", record)
        if np.abs(clipped - corners).max() > 0.01:
            self.report("quad clipped", f"{_short(numbers)} reaches out of {self._size}", record)
        if turn < 0:
            self.report("quad turned", f"{_short(numbers)} runs anticlockwise; the first corner stays", record)
            clipped = clipped[[0, 3, 2, 1]]
        return tuple(clipped.ravel().tolist())

    @property
    def _size(self) -> str:
        return f"the image of {self.size_wh[0]}×{self.size_wh[1]}"


class Images:
    """The image files below a folder, found by the names that records give them."""

    def __init__(self, root: Path, log: ProblemLog):
        self.root, self.log = root, log

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found = defaultdict(list)
        for path in files_below(self.root, IMAGE_ENDINGS, depth=4):
            found[path.name].append(path)
            found[path.stem].append(path)
        return found

    def find(self, name: str, near: Sequence[Path] = ()) -> Path:
        """The file: `name` from one of the folders `near` or the root, else the only one of that name below the root.

        Raises Unclear where there is none, or several in different places.
        """
        for folder in (*near, self.root):
            if (folder / name).is_file():
                return folder / name
        base = Path(name.replace("\\", "/")).name
        places = self._by_name.get(base) or self._by_name.get(Path(base).stem, [])
        if len(places) == 1:
            return places[0]
        if not places:
            raise Unclear(f"there is no image {name!r} in {self.root}")
        raise Unclear(f"the image {name!r} could be any of {', '.join(self.log.name(p) for p in places[:3])}")

    def frame(self, image: Path, declared_wh: tuple[float, float] | None, file: Path, record: str) -> ImageFrame | None:
        """The frame of an image whose record says it has `declared_wh` pixels; None, reported, if it is unusable.

        An image that was resized since, keeping its aspect, is taken: coordinates are scaled to it.
        """
        try:
            size, stored = image_sizes(image)
        except ValueError as error:
            return self.log.add(file, record, "image unreadable", str(error))
        return frame_of(size, stored, declared_wh, self.log, file, record)


def frame_of(
    size: tuple[int, int],
    stored: tuple[int, int],
    declared_wh: tuple[float, float] | None,
    log: ProblemLog,
    file: Path,
    record: str,
) -> ImageFrame | None:
    """The frame of an image of `size`, `stored` before its EXIF rotation; as `Images.frame`."""
    if not declared_wh or not all(declared_wh) or tuple(declared_wh) == size:
        return ImageFrame(size, (1.0, 1.0), log, file, record)
    width, height = declared_wh
    said = f"{width:g}×{height:g} in the file, {size[0]}×{size[1]} in the image"
    if (width, height) == stored:
        why = f"{said}: annotated before its EXIF rotation; save the image without the tag"
        return log.add(file, record, "size contradicts the image", why)
    long = max(range(2), key=lambda side: size[side])
    factor = size[long] / declared_wh[long]
    if abs(declared_wh[1 - long] * factor - size[1 - long]) > 1 + 0.01 * size[1 - long]:
        return log.add(file, record, "size contradicts the image", f"{said}, which is another shape")
    log.add(file, record, "scaled to the image", said)
    return ImageFrame(size, (size[0] / width, size[1] / height), log, file, record)


def image_sizes(image: Path | Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height of a file (or binary stream), upright and as stored, from its header alone.

    Raises ValueError as `load_image` does.
    """
    try:
        with Image.open(image) as picture:
            stored = picture.size
            # Of a PNG, Pillow would decode all pixels to look for EXIF data behind them, where hardly any has it.
            in_header = picture.format != "PNG" or any("exif" in str(key) for key in picture.info)
            turned = in_header and picture.getexif().get(ExifTags.Base.Orientation) in _TURNED
    except Exception as error:  # headers fail in many ways; decoding says how
        if isinstance(image, Path):
            upright = load_image(image).size
            return upright, upright
        raise ValueError(f"the image cannot be read: {error}") from error
    return (stored[::-1] if turned else stored), stored


def _short(value: Any) -> str:
    if isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value):
        value = [round(v, 2) for v in value]
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
