"""An answer drawn on its image: shapes, labels with scores, and words in a strip below.

Everything is sized by the picture, so that it looks the same on a thumbnail and on a photograph of 4000 pixels.
"""

from __future__ import annotations

import colorsys
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from florence_lite.answers import Box, Instance
from florence_lite.geometry import box_area, rasterize
from florence_lite.images import load_image

SMALLEST_SIDE = 640  # pixels of the longer side, below which a picture is enlarged to carry readable letters
CROWD = 25  # instances above which letters become smaller

_FILL_ALPHA = 96  # of 255
_WIDE_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arial.ttf")
_PAPER, _INK = (255, 255, 255), (24, 24, 24)

Color = tuple[int, int, int]


def draw(
    image: Any,
    instances: Sequence[Instance],
    size_wh: tuple[int, int],
    text: str = "",
    max_side: int | None = None,
) -> Image.Image:
    """A new RGB picture of an answer; `Result.draw` is the way to call it.

    Boxes and quads are outlined, polygons filled translucently as well, each in the colour of its label; the label and
    the score stand on a plate beside the shape. The words of an answer stand in a strip below the picture.

    image: anything `florence_lite.images.load_image` takes.
    size_wh: width and height that the coordinates are for; where the image has another size, they are scaled to it.
    max_side: pixels that the longer side of the picture, without the strip, may have at most. Without it a picture
        keeps its size, but is enlarged to `SMALLEST_SIDE`.

    Raises ValueError for a max_side below 1, and as `load_image`.
    """
    if max_side is not None and max_side < 1:
        raise ValueError(f"max_side is {max_side}; it must be at least 1 pixel")
    canvas = _resized(load_image(image), max_side)
    scale = np.array(canvas.size) / np.array(size_wh)  # [2], x y
    shapes = [_Shape.of(number, instance, text, scale) for number, instance in enumerate(instances)]
    shapes = sorted((shape for shape in shapes if shape is not None), key=lambda shape: -shape.area)
    long, short = max(canvas.size), min(canvas.size)
    line = max(2, round(min(long / 320, short / 20)))
    letters = max(12, round(min(long / (45 if len(shapes) <= CROWD else 60), short / 2)))

    for shape in shapes:
        if shape.filled:
            _fill(canvas, shape)
    pen = ImageDraw.Draw(canvas)
    for shape in shapes:
        for ring in shape.polygons:
            _outline(pen, ring, shape.color, line)
    _draw_plates(pen, shapes, canvas.size, letters, line)
    return _with_strip(canvas, text, letters) if text.strip() else canvas


def label_color(label: str) -> Color:
    """The colour of a label, RGB 0–255: always the same for the same words."""
    number = zlib.crc32(label.encode("utf-8"))
    lightness, saturation = (0.5, 0.95) if number >> 16 & 1 else (0.62, 0.85)
    red, green, blue = colorsys.hls_to_rgb(number % 24 / 24, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


@dataclass(frozen=True)
class _Shape:
    """An instance in the canvas's pixels. polygons: float64[n, 2] each; bounds: x0 y0 x1 y1; text: for its plate."""

    polygons: tuple[NDArray[np.float64], ...]
    bounds: Box
    filled: bool
    text: str
    color: Color

    @classmethod
    def of(cls, number: int, instance: Instance, text: str, scale: NDArray[np.float64]) -> _Shape | None:
        """The shape of the instance; None where it has no coordinates. text: words of the answer."""
        if instance.bounds is None:
            return None
        label = "" if instance.label == text else " ".join(instance.label.split())  # the strip says it already
        score = "" if instance.score is None else f"{instance.score:.2f}"
        return cls(
            polygons=tuple(np.array(ring) * scale for ring in instance.outlines),
            bounds=tuple((np.array(instance.bounds) * np.tile(scale, 2)).tolist()),
            filled=bool(instance.polygons),
            text=" ".join(filter(None, (label, score))),
            color=label_color(instance.label or f"instance {number}"),
        )

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
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)


def _fill(canvas: Image.Image, shape: _Shape) -> None:
    x0, y0 = (max(0, int(value)) for value in shape.bounds[:2])
    x1, y1 = (min(int(value) + 1, side) for value, side in zip(shape.bounds[2:], canvas.size, strict=True))
    if x0 < x1 and y0 < y1:
        inside = rasterize([ring - (x0, y0) for ring in shape.polygons], (x1 - x0, y1 - y0))
        share = (x1 - x0) * (y1 - y0) / (canvas.width * canvas.height)
        alpha = round(_FILL_ALPHA * (1 - 0.7 * share))  # a shape as large as the picture must not drown it
        canvas.paste(shape.color, (x0, y0), Image.fromarray(inside.astype(np.uint8) * alpha))


def _outline(pen: ImageDraw.ImageDraw, ring: NDArray[np.float64], color: Color, line: int) -> None:
    """A closed line kept inside the picture, on a thin dark edge that sets it off from a ground of its own colour."""
    width, height = pen.im.size
    margin = line / 2
    inner = np.clip(ring, margin, np.maximum(margin, np.array([width, height]) - 1 - margin))
    path = [tuple(point) for point in np.concatenate([inner, inner[:2]]).tolist()]  # the second again joins the corner
    pen.line(path, fill=_INK, width=line + 2, joint="curve")
    pen.line(path, fill=color, width=line, joint="curve")


def _draw_plates(
    pen: ImageDraw.ImageDraw, shapes: list[_Shape], canvas_wh: tuple[int, int], letters: int, line: int
) -> None:
    """Labels on plates of their shape's colour, small shapes first because they have the least room.

    A plate that found no place at its shape is tied to it by a line.
    """
    padding = max(2, letters // 5)
    bounds = np.array([shape.bounds for shape in shapes]).reshape(-1, 4)
    plates: list[tuple[Box, _Shape, ImageFont.FreeTypeFont, str]] = []
    for index, shape in reversed(list(enumerate(shapes))):
        if not shape.text:
            continue
        font, text = _font_for(shape.text, letters)
        text = _shortened(text, font, canvas_wh[0] - 2 * padding)
        size_wh = (font.getlength(text) + 2 * padding, sum(font.getmetrics()) + padding)
        place = _best_place(shapes, index, bounds, size_wh, canvas_wh, [plate for plate, *_ in plates])
        plates.append((place, shape, font, text))

    for (x0, y0, x1, y1), shape, _, _ in plates:
        x, y = shape.nearest_point((x0 + x1) / 2, (y0 + y1) / 2)
        pen.line([(x, y), (min(max(x, x0), x1), min(max(y, y0), y1))], fill=shape.color, width=line)
    for plate, shape, font, text in plates:
        pen.rounded_rectangle(plate, radius=padding, fill=shape.color)
        red, green, blue = shape.color
        ink = _INK if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else _PAPER
        pen.text((plate[0] + padding, plate[1] + padding / 2), text, font=font, fill=ink)


def _best_place(
    shapes: list[_Shape],
    index: int,
    bounds: NDArray[np.float64],
    size_wh: tuple[float, float],
    canvas_wh: tuple[int, int],
    placed: list[Box],
) -> Box:
    """Where the plate of shape `index` hides least: other plates first of all, then shapes; near its own if it can be.

    bounds: float64[N, 4] of all shapes; size_wh: of the plate. The plate lies inside the canvas if it fits at all.
    """
    width, height = size_wh
    x0, y0, x1, y1 = bounds[index]
    rows = [y0 - height, y0, y1, y1 - height]
    rows += [y for step in range(1, 6) for y in (y0 - height * (step + 1), y1 + height * step)]
    corners = [(x, y) for y in rows for x in (x0, x1 - width, x1, x0 - width)]
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


def _with_strip(canvas: Image.Image, text: str, letters: int) -> Image.Image:
    font, text = _font_for(text.strip(), letters)
    margin = letters // 2
    lines = [line for paragraph in text.split("\n") for line in _wrapped(paragraph, font, canvas.width - 2 * margin)]
    pitch = round(1.25 * letters)
    picture = Image.new("RGB", (canvas.width, canvas.height + len(lines) * pitch + 2 * margin), _PAPER)
    picture.paste(canvas, (0, 0))
    pen = ImageDraw.Draw(picture)
    for row, line in enumerate(lines):
        pen.text((margin, canvas.height + margin + row * pitch), line, font=font, fill=_INK)
    return picture


def _wrapped(paragraph: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Lines no wider than `width` pixels, broken at spaces, or anywhere in a word that is wider alone."""
    lines, line = [], ""
    for word in paragraph.split():
        joined = f"{line} {word}" if line else word
        if font.getlength(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        line = ""
        for character in word:
            if line and font.getlength(line + character) > width:
                lines.append(line)
                line = ""
            line += character
    return [*lines, line]


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _font_for(text: str, size: int) -> tuple[ImageFont.FreeTypeFont, str]:
    """A font for the text, and the text as the font can show it.

    Pillow's own font has little beyond ASCII: for other letters a common font of the system is taken where there is
    one, and without one accents are left out.
    """
    own = _font(None, size)
    if _shows(own, text):
        return own, text
    for name in _WIDE_FONTS:
        font = _font(name, size)
        if font is not None and _shows(font, text):
            return font, text
    decomposed = unicodedata.normalize("NFKD", text)
    return own, "".join(character for character in decomposed if not unicodedata.combining(character))


@cache
def _font(name: str | None, size: int) -> ImageFont.FreeTypeFont | None:
    """A font by file name, None where the system lacks it; without a name Pillow's own."""
    if name is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _shows(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """Whether the font has a picture of its own for every character."""
    unknown = bytes(font.getmask("\uffff"))
    return all(character.isspace() or bytes(font.getmask(character)) != unknown for character in set(text))
