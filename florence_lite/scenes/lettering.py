"""Rendered words with exact quadrilaterals."""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from florence_lite.answers import Quad
from florence_lite.data.annotation import TextLine
from florence_lite.scenes.artwork import package_folder
from florence_lite.scenes.catalogue import WORDS
from florence_lite.scenes.variety import PLAIN, Variety

_FONT_FILES = (
    ("font_source_sans_pro", "SourceSansPro-Bold.ttf"),
    ("font_source_serif_pro", "SourceSerifPro-Bold.ttf"),
    ("font_fredoka_one", "FredokaOne-Regular.ttf"),
    ("font_lato", "Lato-Bold.ttf"),
    ("font_lato", "Lato-Black.ttf"),
)
_SMALLEST, _LARGEST = 0.12, 0.22  # font size as a share of the image's shorter side
_TURN = 10.0  # degrees
_CONTRAST = 95  # least difference between ink and ground, in grey levels
_TRIES = 8


@cache
def font_files() -> tuple[str | None, ...]:
    """Paths of the lettering fonts that are installed; the last entry, None, is Pillow's own font: there is always one.

    With the extra `scenes` installed all are there and scenes are the same on every machine.
    """
    places = [folder / "files" / name for package, name in _FONT_FILES if (folder := package_folder(package))]
    return tuple(str(place) for place in places if place.is_file()) + (None,)


@lru_cache(maxsize=512)
def _font(path: str | None, size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)
    return cast(ImageFont.FreeTypeFont, font)  # it is another where Pillow lacks FreeType


def choose_text(rng: np.random.Generator, variety: Variety = PLAIN) -> str:
    """A word, two short words or a number, in capitals, lower case or capitalised."""
    kind = rng.random()
    if kind < 0.2:
        return str(int(rng.integers(0, 10 ** int(rng.integers(1, 5)))))
    text = _word(rng, variety)
    if kind > 0.85 and len(text) <= 4:
        text += " " + _word(rng, variety)
    return (text.upper(), text, text.capitalize())[int(rng.choice(3, p=(0.55, 0.3, 0.15)))]


def _word(rng: np.random.Generator, variety: Variety) -> str:
    return variety.word(rng) or WORDS[int(rng.integers(len(WORDS)))]


def draw_line(
    rng: np.random.Generator, picture: Image.Image, taken: np.ndarray, variety: Variety = PLAIN
) -> TextLine | None:
    """Draw one line of text on the picture where nothing is taken, and mark its place in `taken` (bool[H, W]).

    The quad encloses the ink closely. Returns None, with nothing drawn, when no free place was found.
    """
    text = choose_text(rng, variety)
    fonts = font_files()
    path = fonts[int(rng.integers(len(fonts)))]
    ink = _ink(text, path, round(rng.uniform(_SMALLEST, _LARGEST) * min(picture.size)), 0.8 * picture.width)
    angle = float(rng.uniform(-_TURN, _TURN)) if rng.random() < 0.5 else 0.0
    plated = rng.random() < 0.5
    margin = 0.28 * ink.height
    turned = ink.rotate(angle, Image.Resampling.BICUBIC, expand=True) if angle else ink
    plate = _turned_rectangle(ink.width + 2 * margin, ink.height + 2 * margin, angle)
    reach = np.abs(plate).max(axis=0) + 1  # half width and half height of the upright box around the plate
    if (2 * reach > picture.size).any():
        return None
    for _ in range(_TRIES):
        left, top = (int(rng.uniform(reach[i], picture.size[i] - reach[i]) - turned.size[i] / 2) for i in (0, 1))
        centre = np.array([left + turned.width / 2, top + turned.height / 2])
        x0, y0 = np.floor(centre - reach).astype(int).clip(0)
        x1, y1 = np.ceil(centre + reach).astype(int)
        if taken[y0:y1, x0:x1].any():
            continue
        taken[y0:y1, x0:x1] = True
        ground, spread = _tone(picture.crop((x0, y0, x1, y1)))
        if plated or spread > 28:
            color = _contrasting(rng, ground)
            ImageDraw.Draw(picture).polygon([tuple(corner) for corner in plate + centre], fill=color)
            ground = _grey(color)
        picture.paste(_contrasting(rng, ground), (left, top), turned)
        quad = _turned_rectangle(ink.width, ink.height, angle) + centre
        return TextLine(text, cast(Quad, tuple(float(value) for value in quad.ravel())))
    return None


def _ink(text: str, path: str | None, size: int, widest: float) -> Image.Image:
    """The text as a closely cropped mask (mode L), its font made smaller where it would be wider than `widest`."""
    x0, _, x1, _ = _font(path, size).getbbox(text)
    if x1 - x0 > widest:
        size = int(size * widest / (x1 - x0))
    x0, y0, x1, y1 = _font(path, size).getbbox(text)
    mask = Image.new("L", (int(x1 - x0) + 4, int(y1 - y0) + 4))
    ImageDraw.Draw(mask).text((2 - x0, 2 - y0), text, font=_font(path, size), fill=255)
    return mask.crop(mask.getbbox())


@lru_cache(maxsize=4096)
def character_ends(text: str) -> np.ndarray:
    """Where each character of a line ends, as a share of its length, float [n]: by Pillow's own font, of which others
    differ a little."""
    lengths = np.array([_font(None, 64).getlength(text[: end + 1]) for end in range(len(text))])
    return lengths / lengths[-1]


def _turned_rectangle(width: float, height: float, angle: float) -> np.ndarray:
    """Corners float[4, 2] about the origin, clockwise from the top left, turned to the left by `angle` degrees."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    corners = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
    return np.stack([corners[:, 0] * cos + corners[:, 1] * sin, corners[:, 1] * cos - corners[:, 0] * sin], axis=1)


def _grey(rgb) -> float:
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def _tone(picture: Image.Image) -> tuple[float, float]:
    """Mean and standard deviation of the grey levels."""
    grey = np.asarray(picture.convert("L"))
    return float(grey.mean()), float(grey.std())


def _contrasting(rng: np.random.Generator, ground: float) -> tuple[int, int, int]:
    """A random colour at least `_CONTRAST` grey levels from the ground."""
    for _ in range(8):
        red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
        if abs(_grey((red, green, blue)) - ground) >= _CONTRAST:
            return red, green, blue
    return (20, 20, 20) if ground > 127 else (245, 245, 245)
