"""An answer drawn on its image: shapes, labels with scores, and words in a strip below.

Everything is sized by the picture, so that it looks the same on a thumbnail and on a photograph of 4000 pixels. Where
labels would hide the picture, as on a page of text, numbers stand at the shapes and a list beside the picture.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from florence_lite.answers import Box, Instance
from florence_lite.geometry import box_area, rasterize
from florence_lite.images import load_image
from florence_lite.results.lettering import INK, MISSING_NOTE, PAPER, columns, ink_on, lettered, shortened, wrapped

SMALLEST_SIDE = 640  # pixels of the longer side, below which a picture is enlarged to carry readable letters
SHARP = 4  # times that a tiny picture is enlarged from which on its pixels stay squares
CROWD = 25  # instances above which letters become smaller
HIDDEN = 0.2  # share of the picture that labels may cover; above it they go into a list
LEAST_LISTED = 200  # pixels of the longer side, below which labels are cut instead
LONG = 0.6  # share of the picture's width above which a label goes there too

_FILL_ALPHA = 96  # of 255
# Chosen one after the other, each as far from those before it as colours of some strength can be (in OKLab).
_PARTS = iter(
    bytes.fromhex(
        "f03c3c 0000ff 00ff00 5ad2ff d200ff 1e6900 ffd25a ffa5f0 694ba5 69d287 b40f87 a56900 "
        "7800ff 0087ff 963c4b b478ff ff9669 c3f01e ff5ae1 879600 005a96 b469a5 8700b4 ff0087"
    )
)
_PALETTE = tuple(zip(_PARTS, _PARTS, _PARTS, strict=True))

Color = tuple[int, int, int]


def draw(
    image: Any,
    instances: Sequence[Instance],
    size_wh: tuple[int, int],
    text: str = "",
    max_side: int | None = None,
    colors: Sequence[Color] | None = None,
) -> Image.Image:
    """A new RGB picture of an answer; `Result.draw` is the way to call it.

    Boxes and quads are outlined, polygons filled translucently as well, each in the colour of its label, the paler the
    lower its score. The label and the score stand on a plate beside the shape, or, where plates would hide more than
    `HIDDEN` of the picture, a number there and the label in a list beside the picture. The words of an answer stand in
    a strip below it, and a note where no font has their letters.

    image: anything `florence_lite.images.load_image` takes.
    size_wh: width and height that the coordinates are for; where the image has another size, they are scaled to it.
    max_side: pixels that the longer side of the picture, without list and strip, may have at most. Without it a picture
        keeps its size, but is enlarged to `SMALLEST_SIDE`.
    colors: of the instances, instead of those of their labels.

    Raises ValueError for a max_side below 1, and as `load_image`.
    """
    if max_side is not None and max_side < 1:
        raise ValueError(f"max_side is {max_side}; it must be at least 1 pixel")
    canvas = _resized(load_image(image), max_side)
    scale = np.array(canvas.size) / np.array(size_wh)  # [2], x y
    if colors is None:
        of_label = label_colors(instance.label for instance in instances)
        colors = [of_label[instance.label] for instance in instances]
    found = [_Shape.of(item, text, scale, color) for item, color in zip(instances, colors, strict=True)]
    shapes = sorted((shape for shape in found if shape is not None), key=lambda shape: -shape.area)
    long, short = max(canvas.size), min(canvas.size)
    letters = max(12, round(min(long / (45 if len(shapes) <= CROWD else 60), short / 2)))
    plates = _plates(shapes, letters, canvas.size)
    line = max(3, round(min(long / 320, short / 20)))
    if numbered := plates is None:
        plates, line = _numbers(shapes, letters), max(2, round(line / 2))

    for shape in shapes:
        if shape.filled:
            _fill(canvas, shape)
    pen = ImageDraw.Draw(canvas)
    for shape in shapes:
        for ring in shape.polygons:
            _outline(pen, ring, shape, line)
    complete = _draw_plates(pen, plates, shapes, canvas.size, line, numbered)
    if numbered:
        ordered = enumerate(_in_order(shapes), start=1)
        listed = [(str(number), shape.label, shape.score, shape.color) for number, shape in ordered]
        aside, complete = columns(listed, letters, canvas.size)
        canvas = _beside(canvas, aside)
    return _with_strip(canvas, text.strip(), letters, complete)


def label_colors(labels: Iterable[str]) -> dict[str, Color]:
    """A colour, RGB 0–255, for each label of a picture: all different, up to the 24 of the palette.

    A label has the same colour in every picture, unless one that comes before it in the alphabet has taken it.
    """
    free: list[Color] = []
    colors: dict[str, Color] = {}
    for label in sorted(set(labels)):
        free = free or list(_PALETTE)
        wanted = _PALETTE[zlib.crc32(label.encode("utf-8", "replace")) % len(_PALETTE)]
        chosen = wanted if wanted in free else free[0]
        free.remove(chosen)
        colors[label] = chosen
    return colors


def tiled(pictures: Sequence[Image.Image], columns: int, gap: int = 8) -> Image.Image:
    """One picture of several: rows of `columns`, each as high as its highest, with white between them."""
    rows = [pictures[first : first + columns] for first in range(0, len(pictures), columns)]
    width = max(sum(picture.width + gap for picture in row) for row in rows) + gap
    height = sum(max(picture.height for picture in row) + gap for row in rows) + gap
    sheet = Image.new("RGB", (width, height), "white")
    y = gap
    for row in rows:
        x = gap
        for picture in row:
            sheet.paste(picture, (x, y))
            x += picture.width + gap
        y += max(picture.height for picture in row) + gap
    return sheet


def paler(color: Color, score: float | None) -> Color:
    """The colour, the more of white in it the lower the score; as it is without one."""
    white = 0 if score is None else 0.65 * (1 - score)
    red, green, blue = (round(part + (255 - part) * white) for part in color)
    return red, green, blue


@dataclass(frozen=True)
class _Shape:
    """An instance in the canvas's pixels. polygons: float64[n, 2] each; bounds: x0 y0 x1 y1; label: "" where the strip
    says it."""

    polygons: tuple[NDArray[np.float64], ...]
    bounds: Box
    kind: str
    label: str
    score: str
    color: Color
    opacity: float

    @classmethod
    def of(cls, instance: Instance, text: str, scale: NDArray[np.float64], color: Color) -> _Shape | None:
        """The shape of the instance; None where it has no coordinates. text: words of the answer."""
        if instance.bounds is None:
            return None
        return cls(
            polygons=tuple(np.array(ring) * scale for ring in instance.outlines),
            bounds=tuple((np.array(instance.bounds) * np.tile(scale, 2)).tolist()),
            kind=instance.kind,
            label="" if instance.label == text else " ".join(instance.label.split()),
            score="" if instance.score is None else f"{instance.score:.2f}",
            color=paler(color, instance.score),
            opacity=1 if instance.score is None else 0.4 + 0.6 * instance.score,
        )

    @property
    def filled(self) -> bool:
        return self.kind == "polygons"

    @property
    def area(self) -> float:
        """Square pixels of the bounds."""
        return float(box_area(self.bounds))

    def nearest_point(self, x: float, y: float) -> tuple[float, float]:
        """The corner of a filled shape, or the point of the bounds of another, that is nearest to (x, y)."""
        if self.filled:
            points = np.concatenate(self.polygons)
            return tuple(points[np.hypot(*(points - (x, y)).T).argmin()].tolist())
        x0, y0, x1, y1 = self.bounds
        return min(max(x, x0), x1), min(max(y, y0), y1)


def _resized(image: Image.Image, max_side: int | None) -> Image.Image:
    wanted = max(SMALLEST_SIDE, *image.size)
    if max_side is not None:
        wanted = min(wanted, max_side)
    scale = wanted / max(image.size)
    if scale == 1:
        return image
    filter = Image.Resampling.NEAREST if scale >= SHARP else Image.Resampling.BICUBIC
    return image.resize([max(1, round(side * scale)) for side in image.size], filter)


def _fill(canvas: Image.Image, shape: _Shape) -> None:
    x0, y0 = (max(0, int(value)) for value in shape.bounds[:2])
    x1, y1 = (min(int(value) + 1, side) for value, side in zip(shape.bounds[2:], canvas.size, strict=True))
    if x0 < x1 and y0 < y1:
        inside = rasterize([ring - (x0, y0) for ring in shape.polygons], (x1 - x0, y1 - y0))
        share = (x1 - x0) * (y1 - y0) / (canvas.width * canvas.height)
        alpha = round(
            _FILL_ALPHA * shape.opacity * (1 - 0.7 * share)
        )  # a shape as large as the picture must not drown it
        canvas.paste(shape.color, (x0, y0), Image.fromarray(inside.astype(np.uint8) * alpha))


def _outline(pen: ImageDraw.ImageDraw, ring: NDArray[np.float64], shape: _Shape, line: int) -> None:
    """A closed line on a thin dark edge that sets it off from a ground of its own colour.

    What runs along the border is kept inside the picture, to be seen; a box that reaches beyond is cut there. Other
    shapes that reach beyond keep their angles.
    """
    lowest = line / 2
    highest = np.maximum(lowest, np.array(pen.im.size) - 1 - lowest)
    inner = np.clip(ring, lowest, highest)
    if shape.kind != "box":
        inner = np.where(np.abs(inner - ring) <= line + 1, inner, ring)
    path = [tuple(point) for point in np.concatenate([inner, inner[:2]]).tolist()]  # the second again joins the corner
    pen.line(path, fill=INK, width=line + 2, joint="curve")
    pen.line(path, fill=shape.color, width=line, joint="curve")


@dataclass(frozen=True)
class _Plate:
    """What stands at a shape. size_wh: pixels; complete: whether the font has all letters of the text."""

    text: str
    font: Any
    size_wh: tuple[float, float]
    padding: int
    complete: bool

    @classmethod
    def of(cls, label: str, score: str, letters: int, width: float) -> _Plate:
        """letters: height in pixels. width: pixels that the plate may have; the label is cut, never the score."""
        padding = max(2, letters // 5)
        words = lettered(label, letters)
        text = shortened(words, f" {score}" if label and score else score, width - 2 * padding)
        size_wh = words.width(text) + 2 * padding, sum(words.font.getmetrics()) + padding
        return cls(text, words.font, size_wh, padding, words.complete)


def _plates(shapes: list[_Shape], letters: int, canvas_wh: tuple[int, int]) -> list[_Plate | None] | None:
    """A plate for each shape that has something to say; None where they would hide the picture."""
    small = max(canvas_wh) < LEAST_LISTED
    width = canvas_wh[0] - 1 if small else float("inf")
    plates = [_Plate.of(s.label, s.score, letters, width) if s.label or s.score else None for s in shapes]
    sizes = [plate.size_wh for plate in plates if plate is not None]
    hidden = sum(width * height for width, height in sizes) > HIDDEN * canvas_wh[0] * canvas_wh[1]
    too_long = any(width > LONG * canvas_wh[0] for width, _ in sizes)
    is_told = any(shape.label for shape in shapes)
    return None if is_told and not small and (hidden or too_long) else plates


def _numbers(shapes: list[_Shape], letters: int) -> list[_Plate | None]:
    """A plate with the number of each shape in the list, no higher than most of the shapes."""
    heights = [shape.bounds[3] - shape.bounds[1] for shape in shapes]
    letters = int(np.clip(0.5 * np.median(heights), 9, letters))
    numbers = {id(shape): str(number) for number, shape in enumerate(_in_order(shapes), start=1)}
    return [_Plate.of(numbers[id(shape)], "", letters, float("inf")) for shape in shapes]


def _in_order(shapes: list[_Shape]) -> list[_Shape]:
    """As they are read: from the top, and from the left."""
    return sorted(shapes, key=lambda shape: (shape.bounds[1], shape.bounds[0]))


def _draw_plates(
    pen: ImageDraw.ImageDraw,
    plates: list[_Plate | None],
    shapes: list[_Shape],
    canvas_wh: tuple[int, int],
    line: int,
    beside: bool,
) -> bool:
    """Plates in the colour of their shapes, small shapes first because they have the least room.

    A plate that found no place at its shape is tied to it by a line. beside: plates are best left of their shapes or
    right of them, as words stand above each other. Returns whether fonts have all letters.
    """
    bounds = np.array([shape.bounds for shape in shapes]).reshape(-1, 4)
    placed: list[tuple[Box, _Shape, _Plate]] = []
    for index, (shape, plate) in reversed(list(enumerate(zip(shapes, plates, strict=True)))):
        if plate is not None:
            place = _best_place(shapes, index, bounds, plate.size_wh, canvas_wh, [box for box, *_ in placed], beside)
            placed.append((place, shape, plate))

    for (x0, y0, x1, y1), shape, _ in placed:
        x, y = shape.nearest_point((x0 + x1) / 2, (y0 + y1) / 2)
        pen.line([(x, y), (min(max(x, x0), x1), min(max(y, y0), y1))], fill=shape.color, width=line)
    for box, shape, plate in placed:
        pen.rounded_rectangle(box, radius=plate.padding, fill=shape.color)
        corner = box[0] + plate.padding, box[1] + plate.padding / 2
        pen.text(corner, plate.text, font=plate.font, fill=ink_on(shape.color))
    return all(plate.complete for _, _, plate in placed)


def _best_place(
    shapes: list[_Shape],
    index: int,
    bounds: NDArray[np.float64],
    size_wh: tuple[float, float],
    canvas_wh: tuple[int, int],
    placed: list[Box],
    beside: bool,
) -> Box:
    """Where the plate of shape `index` hides least: other plates first of all, then shapes; near its own if it can be.

    bounds: float64[N, 4] of all shapes; size_wh: of the plate. The plate lies inside the canvas if it fits at all.
    """
    width, height = size_wh
    x0, y0, x1, y1 = bounds[index]
    rows = [y0 - height, y0, y1, y1 - height]
    rows += [y for step in range(1, 6) for y in (y0 - height * (step + 1), y1 + height * step)]
    corners = [(x, y) for y in rows for x in (x0, x1 - width, x1, x0 - width)]
    if beside:
        middle = (y0 + y1 - height) / 2
        corners = [(x0 - width, middle), (x1, middle), *corners]
    if shapes[index].filled:  # a corner of the bounds may be far from the outline
        points = np.concatenate(shapes[index].polygons)
        top, bottom = points[points[:, 1].argmin()], points[points[:, 1].argmax()]
        corners = [(top[0] - width / 2, top[1] - height), (bottom[0] - width / 2, bottom[1]), *corners]
    tops = np.clip(np.array(corners), 0, np.maximum(0, np.array(canvas_wh) - 1 - np.array(size_wh)))  # [C, 2]
    plates = np.concatenate([tops, tops + np.array(size_wh)], axis=1)  # [C, 4]

    hidden_plates = _covered(np.array(placed).reshape(-1, 4), plates).sum(0)
    hidden_shapes = _covered(bounds, plates)  # [N, C]
    gaps = np.maximum(0, np.maximum(bounds[index, :2] - plates[:, 2:], plates[:, :2] - bounds[index, 2:])).sum(1)
    cost = 20 * hidden_plates + hidden_shapes.sum(0) + 2 * hidden_shapes[index] + 0.3 * gaps / height
    return tuple(plates[int((cost + 0.02 * np.arange(len(corners))).argmin())].tolist())


def _covered(boxes: NDArray[np.float64], covers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each box's area that each cover hides: float64[N, 4], float64[C, 4] → float64[N, C]."""
    low = np.maximum(boxes[:, None, :2], covers[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], covers[None, :, 2:])
    return np.clip(high - low, 0, None).prod(-1) / np.maximum(box_area(boxes), 1)[:, None]


def _beside(canvas: Image.Image, aside: Image.Image) -> Image.Image:
    """The picture with a list on its right."""
    picture = Image.new("RGB", (canvas.width + aside.width, max(canvas.height, aside.height)), PAPER)
    picture.paste(canvas, (0, 0))
    picture.paste(aside, (canvas.width, 0))
    return picture


def _with_strip(canvas: Image.Image, text: str, letters: int, complete: bool) -> Image.Image:
    """The picture with the words of the answer below it, and a note where letters are missing; as it is without."""
    words = lettered(text, letters)
    note = "" if complete and words.complete else MISSING_NOTE
    if not text and not note:
        return canvas
    margin = letters // 2
    lines = [(line, words.font) for line in wrapped(words, canvas.width - 2 * margin) if text]
    lines += [(note, lettered(note, max(9, letters * 3 // 4)).font)] if note else []
    pitch = round(1.25 * letters)
    picture = Image.new("RGB", (canvas.width, canvas.height + len(lines) * pitch + 2 * margin), PAPER)
    picture.paste(canvas, (0, 0))
    pen = ImageDraw.Draw(picture)
    for row, (line, font) in enumerate(lines):
        pen.text((margin, canvas.height + margin + row * pitch), line, font=font, fill=INK)
    return picture
