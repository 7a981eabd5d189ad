"""Whatever a caller calls an image → an upright RGB picture of 8 bits a channel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow also opens formats that run other programs to be drawn (EPS) or are no pictures (HDF5, PDF).
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP")
_WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def load_image(source: str | os.PathLike | Image.Image | Any) -> Image.Image:
    """The image as a new PIL picture of mode RGB, turned upright by its EXIF orientation, alpha laid over white.

    source: one of
        path of a file in one of `FORMATS`; the first frame of an animation;
        PIL image of any mode;
        array [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA), or a torch tensor with the channels first;
    Arrays of bool and uint8 stand for themselves and uint16 means 0–65535. Other numbers, and PIL's modes I and F, mean
    the smallest of 0–1 (floats only), 0–255 and 0–65535 that holds them all.

    Raises FileNotFoundError for a path without a file and ValueError, naming the file and the reason, for a file that
    is no image, is damaged or has more pixels than Pillow's limit for decompression bombs, and for arrays of other
    shapes or ranges.
    """
    if isinstance(source, str | os.PathLike):
        return _from_file(Path(source))
    if isinstance(source, Image.Image):
        return _decoded(source, f"PIL image of mode {source.mode}")
    if hasattr(source, "detach"):
        return _from_tensor(source)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    raise ValueError(f"an image is a path, a PIL image or an array, not {type(source).__name__}")


def _from_file(path: Path) -> Image.Image:
    what = f"image {path}"
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise FileNotFoundError(f"{what} does not exist") from None
    except (OSError, ValueError) as error:  # a name that the system refuses
        raise ValueError(f"{what} cannot be read: {error}") from error
    if not path.is_file():
        raise ValueError(f"{what} is a folder or device, not a file")
    if size == 0:
        raise ValueError(f"{what} is an empty file")
    try:
        image = Image.open(path)
    except UnidentifiedImageError:
        raise ValueError(f"{what} holds no image of a known format, whatever its name says") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{what} is too large to be safe: {error}") from error
    except Exception as error:  # the file may not be read, or its header is damaged
        raise ValueError(f"{what} cannot be read: {error}") from error
    with image:
        if image.format not in FORMATS:
            raise ValueError(f"{what} is of format {image.format}; convert it to one of {', '.join(FORMATS)}")
        return _decoded(image, what)


def _decoded(image: Image.Image, what: str) -> Image.Image:
    """`image`, decoded and made RGB; `what` names it in errors."""
    if 0 in image.size:
        raise ValueError(f"{what} has no pixels: {image.width}×{image.height}")
    try:
        image.load()
    except Exception as error:  # decoders of damaged data raise OSError, SyntaxError, struct.error, EOFError and more
        raise ValueError(f"{what} is damaged or cut short: {error}") from error
    image = _upright(image)
    if image.mode in _WIDE_MODES:
        return Image.fromarray(_as_uint8(np.asarray(image), what)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF data that cannot be read says nothing about the picture
        return image


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
    return _decoded(Image.fromarray(np.ascontiguousarray(_as_uint8(array, "image array"))), "image array")


def _as_uint8(values: np.ndarray, what: str) -> np.ndarray:
    """Brightness values of any number type as uint8, by the ranges that `load_image` documents."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype.kind not in "uif":
        raise ValueError(f"{what} holds values of type {values.dtype}; they must be numbers")
    least, most = values.min(), values.max()
    if not (least >= 0 and most <= 65535):  # also true for NaN
        raise ValueError(f"{what} holds values from {least} to {most}; bring them to 0–1 as floats or 0–255 as uint8")
    if values.dtype.kind == "f" and most <= 1:
        top = 1
    elif values.dtype.itemsize == 2 and values.dtype.kind == "u" or most > 255:
        top = 65535
    else:
        top = 255
    return np.round(values.astype(np.float64) * (255 / top)).astype(np.uint8)
