"""Whatever a caller calls an image → an upright RGB picture of 8 bits a channel.

Everything that is encoded, a file, bytes or a picture that PIL has not decoded yet, goes through
`florence_lite.image_files`.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from florence_lite.image_files import (
    WARNING_FORMATS,
    is_decoded,
    no_warning_of_many_pixels,
    open_image,
    orientation_of,
    shown_size,
    sizes_of,
    source_name,
)

OVERSHOOT = 0.1  # share of a range by which resampled floats may leave it

_WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_STRIP = 256  # rows that are converted together: whole pictures in wide types would be several times the result


def load_image(source: Any) -> Image.Image:
    """The image as a new PIL picture of mode RGB, turned upright by its EXIF orientation, alpha laid over white.

    source: one of
        path of a file in one of `FORMATS`; the first frame of an animation;
        bytes of such a file, or the file opened in binary mode (`io.BytesIO` too), which stays open;
        PIL image of any mode, decoded already or of one of `FORMATS`;
        array [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA), or a torch tensor with the channels first;
    Arrays of bool and uint8 stand for themselves and uint16 means 0–65535. Other numbers, and PIL's modes I and F, mean
    the smallest of 0–1 (floats only), 0–255 and 0–65535 that holds them all; floats may leave it by `OVERSHOOT`, as
    resampling makes them, and are clipped.

    Raises FileNotFoundError for a path without a file and ValueError, naming the file and the reason, for a file that
    is no image, is damaged or has more pixels than Pillow opens (twice `PIL.Image.MAX_IMAGE_PIXELS`, which may be
    raised), for an address of the web and for arrays of other shapes or ranges.
    """
    return load_enough(source, None)[0]


def load_enough(source: Any, enough_wh: tuple[int, int] | None) -> tuple[Image.Image, tuple[int, int]]:
    """What `load_image` returns, or a smaller picture that is enough; and the width and height of the former.

    enough_wh: an encoded JPEG that is at least twice as wide and high is made smaller while it is decoded, to no less
        than this, which takes a fraction of the memory and time. Other formats cannot do that.
    """
    if hasattr(source, "movedim") or isinstance(source, np.ndarray):
        picture = _from_array(source) if isinstance(source, np.ndarray) else _from_tensor(source)
        return picture, picture.size
    with open_image(source) as opened:
        own, size = opened is not source, sizes_of(opened)
        if own and enough_wh is not None:
            opened.draft(None, enough_wh if size.upright == size.stored else enough_wh[::-1])
        return _decoded(opened, source_name(source), own), size.upright


def is_image_source(value: Any) -> bool:
    """Whether it is of a kind that `load_image` takes, rather than a collection of images."""
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray)
    return isinstance(value, kinds) or hasattr(value, "movedim") or hasattr(value, "read")


# ---- upright ---------------------------------------------------------------------------------------------------------


def _upright(image: Image.Image, own: bool) -> Image.Image:
    """The decoded picture, turned; in its place if it is our own."""
    if orientation_of(image) == 1:
        return image
    try:
        if not own:
            return ImageOps.exif_transpose(image)
        ImageOps.exif_transpose(image, in_place=True)
        return image
    except Exception:  # EXIF data that cannot be written back either
        return image


# ---- colours ---------------------------------------------------------------------------------------------------------


def _decoded(image: Image.Image, what: str, own: bool) -> Image.Image:
    """`image`, decoded and made RGB; `what` names it in errors. own: it may be changed."""
    size = sizes_of(image).upright
    limit, pixels = Image.MAX_IMAGE_PIXELS, size[0] * size[1]
    may_warn = image.format in WARNING_FORMATS and limit is not None and pixels > limit and not is_decoded(image)
    try:
        with no_warning_of_many_pixels() if may_warn else nullcontext():
            image.load()
    except Exception as error:  # decoders of damaged data raise OSError, SyntaxError, struct.error, EOFError and more
        raise ValueError(f"{what} is damaged or cut short: {error}") from error
    image = _upright(image, own)
    if image.size != size:
        raise ValueError(f"{what} is damaged: its header says {shown_size(size)}, it holds {shown_size(image.size)}")
    if image.mode in _WIDE_MODES:
        return Image.fromarray(_as_uint8(np.asarray(image), what)).convert("RGB")
    if image.has_transparency_data:
        return _over_white(image)
    return image.convert("RGB")  # a copy of what is RGB already


def _over_white(image: Image.Image) -> Image.Image:
    result = Image.new("RGB", image.size)
    for top in range(0, image.height, _STRIP):
        strip = image.crop((0, top, image.width, min(top + _STRIP, image.height))).convert("RGBA")
        strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
        result.paste(strip.convert("RGB"), (0, top))
    return result


# ---- arrays ----------------------------------------------------------------------------------------------------------


def _from_tensor(tensor: Any) -> Image.Image:
    if tensor.ndim == 3:
        if tensor.shape[0] not in (1, 3, 4):
            raise ValueError(f"image tensor has shape {list(tensor.shape)}; it must be [1, 3 or 4, H, W] or [H, W]")
        tensor = tensor.movedim(0, -1)
    if tensor.is_floating_point():
        tensor = tensor.float()  # numpy has no bfloat16
    return _from_array(tensor.detach().cpu().numpy())


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if 0 in array.shape or not (array.ndim == 2 or array.ndim == 3 and array.shape[-1] in (3, 4)):
        hint = "; move the channels last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise ValueError(f"image array has shape {list(array.shape)}; it must be [H, W] or [H, W, 1, 3 or 4]{hint}")
    picture = Image.fromarray(np.ascontiguousarray(_as_uint8(array, "image array")))
    return _over_white(picture) if picture.mode == "RGBA" else picture.convert("RGB")


def _as_uint8(values: np.ndarray, what: str) -> np.ndarray:
    """Brightness values of any number type as uint8, by the ranges that `load_image` documents."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype.kind not in "uif":
        raise ValueError(f"{what} holds values of type {values.dtype}; they must be numbers")
    least, most = values.min(), values.max()
    top = _range_of(values.dtype, most)
    overshoot = OVERSHOOT * top if values.dtype.kind == "f" else 0
    if not (least >= -overshoot and most <= top + overshoot):  # also true for NaN
        raise ValueError(f"{what} holds values from {least} to {most}; bring them to 0–1 as floats or 0–255 as uint8")
    bright = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), _STRIP):
        scaled = values[row : row + _STRIP].astype(np.float64) * (255 / top)
        bright[row : row + _STRIP] = np.round(scaled.clip(0, 255))
    return bright


def _range_of(dtype: np.dtype, most: float) -> int:
    """What white is: the smallest range that holds the greatest value, which floats may exceed a little."""
    if dtype.kind == "u" and dtype.itemsize == 2:
        return 65535
    if dtype.kind != "f":
        return 255 if most <= 255 else 65535
    # Between the overshoot of one range and 2 nothing is meant that could be seen: no range, and so an error, fits.
    return next((top for top, least in ((1, 0), (255, 2), (65535, 255)) if least <= most <= top * (1 + OVERSHOOT)), 1)
