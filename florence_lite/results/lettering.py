"""Words in pictures: fonts for their script, lines of a given width, and lists in columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, cast

from PIL import Image, ImageDraw, ImageFont

from florence_lite.printable import printable

Font = ImageFont.FreeTypeFont

MISSING_NOTE = "Boxes stand for letters that no font of this system has."

# Common fonts by file name, for what Pillow's own lacks, which has little beyond ASCII: those of many scripts first.
_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "segoeui.ttf",
    "msyh.ttc",
    "malgun.ttf",
    "Nirmala.ttf",
    "PingFang.ttc",
    "NotoSansArabic-Regular.ttf",
    "NotoSansHebrew-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "NotoEmoji-Regular.ttf",
    "seguisym.ttf",
    "DroidSansFallbackFull.ttf",
)


class Lettered(NamedTuple):
    """A text on one line, or several, with a font for it; complete: whether the font has all its letters."""

    text: str
    font: Font
    complete: bool

    def width(self, text: str | None = None) -> float:
        """Pixels of another text in this font, or of its own."""
        return self.font.getlength(self.text if text is None else text)


def lettered(text: str, size: int) -> Lettered:
    """The text as it can be shown, in letters of `size` pixels.

    Pillow's own font is taken if it has all letters, else a common one of the system that has them, else, without the
    accents, the one that has the most. Letters that it lacks are drawn as its box for them. Characters that steer are
    left out.
    """
    lines = ("".join(c for c in line if printable(c) == c) for line in text.split("\n"))
    text = "\n".join("".join(c for c in line if not _is_unseen(c)) for line in lines)
    fonts = [font for name in (None, *_FONTS) if (font := _font(name, size)) is not None]
    for font in fonts:
        if not _lacking(font, text):
            return Lettered(text, font, True)
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    best = min(fonts, key=lambda font: len(_lacking(font, plain)))
    return Lettered(plain, best, not _lacking(best, plain)) if plain.strip() else Lettered(text, fonts[0], False)


def wrapped(words: Lettered, width: float) -> list[str]:
    """Lines no wider than `width` pixels, broken at spaces, or anywhere in a word that is wider alone."""
    return [line for paragraph in words.text.split("\n") for line in _wrapped(paragraph, words.font, width)]


def shortened(label: Lettered, ending: str, width: float) -> str:
    """The label and its ending, such as a score, in `width` pixels: if they are too wide, the label is cut."""
    if label.width(whole := f"{label.text}{ending}") <= width:
        return whole
    text = label.text
    while text and label.width(f"{text}…{ending}") > width:
        text = text[:-1]
    return f"{text.rstrip()}…{ending}" if text else ending.strip()


def columns(
    items: Sequence[tuple[str, str, str, tuple[int, int, int]]], size: int, canvas_wh: tuple[int, int]
) -> tuple[Image.Image, bool]:
    """A list beside or below a picture: for each item a number, words, their score and the colour of the number.

    The letters are `size` pixels high at most, smaller where that lets the list end with the picture, and legible. As
    many columns as fit into the width of the picture are used before the list grows longer than it. Returns the list
    on white, and whether the fonts have all its letters.
    """
    height = max(canvas_wh[1], 200)
    size = max(min(size, _LEAST_LETTERS), min(size, int(height / (1.3 * (len(items) + 1)))))
    pad, pitch = max(4, size // 2), round(1.3 * size)
    gutter = max(lettered(number, size).width() for number, *_ in items) + 2 * pad
    rows, widest = [], 0.0
    room = max(0.75 * canvas_wh[0], 20 * size)
    complete = True
    for number, label, score, color in items:
        words = lettered(f"{label} {score}".strip(), size)
        complete &= words.complete
        for index, line in enumerate(wrapped(words, room)):
            rows.append((number if index == 0 else "", line, words.font, color))
            widest = max(widest, words.width(line))
    width = round(gutter + widest + 2 * pad)
    fitting = max(1, (height - 2 * pad) // pitch)
    count = min(-(-len(rows) // fitting), max(1, canvas_wh[0] // width))
    deep = max(min(fitting, len(rows)), -(-len(rows) // count))
    image = Image.new("RGB", (count * width, deep * pitch + 2 * pad), PAPER)
    pen = ImageDraw.Draw(image)
    for place, (number, line, font, color) in enumerate(rows):
        x, y = place // deep * width + pad, place % deep * pitch + pad
        if number:
            own = lettered(number, size)
            pen.rounded_rectangle((x, y, x + own.width() + pad, y + pitch - 2), radius=pad // 2, fill=color)
            pen.text((x + pad / 2, y), number, font=own.font, fill=ink_on(color))
        pen.text((x + gutter, y), line, font=font, fill=INK)
    return image, complete


PAPER, INK = (255, 255, 255), (24, 24, 24)
_LEAST_LETTERS = 11  # pixels that can still be read


def ink_on(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever is read better on a colour."""
    red, green, blue = color
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else PAPER


def _wrapped(paragraph: str, font: Font, width: float) -> list[str]:
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


def _is_unseen(character: str) -> bool:
    """Joiners and variation selectors, which mean something between other letters alone."""
    return character in "\u200c\u200d" or "\ufe00" <= character <= "\ufe0f"


@cache
def _font(name: str | None, size: int) -> Font | None:
    """A font by file name, None where the system lacks it; without a name Pillow's own."""
    if name is None:
        return cast(Font, ImageFont.load_default(size))  # it is another where Pillow lacks FreeType
    path = _font_file(name)
    return None if path is None else ImageFont.truetype(path, size)


@cache
def _font_file(name: str) -> str | None:
    """Where the system keeps a font; it is searched once, whatever the sizes."""
    try:
        return str(ImageFont.truetype(name, 10).path)
    except OSError:
        return None


def _lacking(font: Font, text: str) -> set[str]:
    """The characters that the font has no picture of its own for."""
    return {character for character in set(text) if not character.isspace() and not _has(font, character)}


@cache
def _has(font: Font, character: str) -> bool:
    return bytes(font.getmask(character)) != bytes(font.getmask("\uffff"))
