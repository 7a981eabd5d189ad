"""Whatever a caller calls an image → an upright RGB picture of 8 bits a channel, or its size from the header alone.

Everything here that is encoded, a file, bytes or a picture that PIL has not decoded yet, goes through `open_image`.
"""

from __future__ import annotations

import io
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

# What is opened, tried in this order: TGA, which has no signature, comes last. Pillow also knows formats that run other
# programs to be drawn (EPS) or are no pictures (HDF5).
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "AVIF", "JPEG2000", "ICO", "PCX", "TGA")
OVERSHOOT = 0.1  # share of a range by which resampled floats may leave it

_WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_STRIP = 256  # rows that are converted together: whole pictures in wide types would be several times the result
_WARNS = ("GIF", "ICO", "TIFF")  # their decoders look at Pillow's limit themselves
_FILTERS = threading.Lock()


class ImageSizes(NamedTuple):
    """Width and height in pixels of an image, upright and as its file stores it."""

    upright: tuple[int, int]
    stored: tuple[int, int]


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
        own, size = opened is not source, _sizes(opened)
        if own and enough_wh is not None:
            opened.draft(None, enough_wh if size.upright == size.stored else enough_wh[::-1])
        return _decoded(opened, _name(source), own), size.upright


def is_image_source(value: Any) -> bool:
    """Whether it is of a kind that `load_image` takes, rather than a collection of images."""
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray)
    return isinstance(value, kinds) or hasattr(value, "movedim") or hasattr(value, "read")


def image_size(source: Any) -> tuple[int, int]:
    """Width and height of what `load_image` makes of `source`, from the header alone. Raises as `open_image`."""
    return image_sizes(source).upright


def image_sizes(source: Any) -> ImageSizes:
    """Width and height of what `load_image` makes of `source` and as it is stored, from the header alone.

    source: as in `load_image`, but no array. Raises as `open_image`.
    """
    with open_image(source) as opened:
        return _sizes(opened)


@contextmanager
def open_image(source: Any) -> Iterator[Image.Image]:
    """The PIL picture of a source, its header read and its pixels not; for use in a `with` statement.

    source: path, bytes, binary file or PIL image, as in `load_image`. A PIL image is yielded as it is.

    Only the formats of `FORMATS` are tried, whatever the name says. Raises FileNotFoundError and ValueError as
    `load_image`, but for damage that decoding alone shows.
    """
    what = _name(source)
    if isinstance(source, Image.Image):
        _check_picture(source, what)
        yield source
        return
    with _stream(source, what) as stream, _opened(stream, what) as image:
        _check_pixels(image, what)
        yield image


# ---- encoded images --------------------------------------------------------------------------------------------------


def _name(source: Any) -> str:
    """What errors call a source."""
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
    elif isinstance(source, Image.Image):
        name = getattr(source, "filename", "") or None
        if not name:
            return f"PIL image of mode {source.mode}"
    elif isinstance(source, bytes | bytearray | memoryview):
        return f"image of {len(source)} bytes"
    else:
        name = getattr(source, "name", None)
    if not isinstance(name, str | bytes):
        return f"image in a {type(source).__name__}"
    name = os.fsdecode(name)
    return f"image {name}" if len(name) <= 300 else f"image {name[:150]}…{name[-100:]}"


def _stream(source: Any, what: str) -> Any:
    """The encoded image as a binary stream that can be read anywhere, in a context that closes what is opened here."""
    if isinstance(source, str | os.PathLike):
        return _file(source, what)
    if isinstance(source, bytes | bytearray | memoryview):
        if not source:
            raise ValueError(f"{what} is empty")
        return io.BytesIO(source)
    if not hasattr(source, "read"):
        raise ValueError(
            f"an image is bytes, a file opened in binary mode, a path, a PIL image or an array, not "
            f"{type(source).__name__}"
        )
    if isinstance(source, io.TextIOBase):
        raise ValueError(f'{what} is opened as text; open it in binary mode, "rb"')
    try:
        if hasattr(source, "seekable") and source.seekable():
            source.seek(0)
            return nullcontext(source)
        return io.BytesIO(source.read())
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{what} cannot be read: {error}") from error


def _file(source: str | os.PathLike, what: str) -> BinaryIO:
    path = Path(source)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        if re.match(r"[a-z][a-z0-9+.-]+:/", os.fspath(source), re.IGNORECASE):
            raise ValueError(f"{what} is an address; download it first and give the file or its bytes") from None
        raise FileNotFoundError(f"{what} does not exist") from None
    except (OSError, ValueError) as error:  # a name that the system refuses
        raise ValueError(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not path.is_file():
        raise ValueError(f"{what} is a folder or device, not a file")
    if size == 0:
        raise ValueError(f"{what} is an empty file")
    try:
        return path.open("rb")
    except OSError as error:
        raise ValueError(f"{what} cannot be read: {error}") from error


@contextmanager
def _opened(stream: BinaryIO, what: str) -> Iterator[Image.Image]:
    """As `Image.open` with the list of formats, but without its warning of many pixels: our limit is looked at next."""
    Image.init()
    prefix = stream.read(16)
    image, reason = None, None
    for name in FORMATS:
        factory, accepts = Image.OPEN.get(name, (None, None))
        if factory is None or not _accepts(accepts, prefix):
            continue
        stream.seek(0)
        try:
            with _no_warning_of_many_pixels() if name in _WARNS else nullcontext():
                image = factory(stream, "")
            break
        except (SyntaxError, IndexError, TypeError, struct.error):  # another format, says Pillow
            continue
        except Image.DecompressionBombError as error:
            raise _too_large(what, str(error)) from error
        except Exception as error:  # the header is damaged
            reason = reason or error
    if image is None:
        if reason is not None:
            raise ValueError(f"{what} cannot be read: {reason}") from reason
        if foreign := _foreign_format(prefix):
            raise ValueError(f"{what} is of format {foreign}; convert it to one of {', '.join(FORMATS)}")
        raise ValueError(f"{what} holds no image of a known format, whatever its name says")
    with image:
        yield image


def _foreign_format(prefix: bytes) -> str | None:
    """The format, not one of ours, that a file begins as. Nothing of it is opened."""
    known = ((name, accepts) for name, (_, accepts) in Image.OPEN.items() if name not in FORMATS and accepts)
    return next((name for name, accepts in known if _accepts(accepts, prefix)), None)


def _accepts(accepts: Any, prefix: bytes) -> bool:
    """Whether Pillow's look at the first bytes of a file finds a format there that it can open."""
    try:
        answer = accepts is None or accepts(prefix)  # a text says why this Pillow cannot
        return bool(answer) and not isinstance(answer, str)
    except (IndexError, struct.error):  # the file is shorter than that
        return False


def _check_picture(image: Image.Image, what: str) -> None:
    """ValueError for a PIL picture that is too large, or that would be decoded by a format outside of the list."""
    if not _is_decoded(image) and image.format not in FORMATS:
        raise ValueError(
            f"{what} is of format {image.format} and not decoded yet; convert it to one of {', '.join(FORMATS)}"
        )
    _check_pixels(image, what)


def _is_decoded(image: Image.Image) -> bool:
    if not isinstance(image, ImageFile.ImageFile):
        return True
    pixels = vars(image).get("_im", vars(image).get("im"))  # called so since, and before, Pillow 11
    return pixels is not None and not image.tile


def _check_pixels(image: Image.Image, what: str) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ValueError(f"{what} has no pixels: {_by(image.size)}")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > 2 * limit and not _is_decoded(image):
        raise _too_large(what, f"{_by(image.size)} is more than {2 * limit:,} pixels", -(-width * height // 2))


def _too_large(what: str, why: str, enough: int | None = None) -> ValueError:
    remedy = "PIL.Image.MAX_IMAGE_PIXELS" + (f" = {enough}" if enough else "")
    return ValueError(f"{what} is too large to be safe: {why}; if you trust it, raise the limit: {remedy}")


@contextmanager
def _no_warning_of_many_pixels() -> Iterator[None]:
    """Without Pillow's DecompressionBombWarning, also where warnings are errors."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


# ---- upright ---------------------------------------------------------------------------------------------------------


def _sizes(image: Image.Image) -> ImageSizes:
    """The sizes of a picture, decoded or not."""
    decoded, tags = _is_decoded(image), getattr(image, "tag_v2", {})
    stored = image.size
    if not decoded and isinstance(tags.get(256), int) and isinstance(tags.get(257), int):
        stored = tags[256], tags[257]  # Pillow turns a TIFF while decoding it, and some versions say its size turned
    return ImageSizes(stored[::-1] if _orientation(image) in _TURNED else stored, stored)


def _orientation(image: Image.Image) -> int:
    """EXIF's number of how the stored pixels lie, 1 for upright; data that cannot be read says nothing."""
    try:
        if image.format == "PNG" and not _is_decoded(image):
            if _has_late_exif(image.fp):
                image.load()
            # A PNG's own method would decode every picture without EXIF data, to look for it behind the pixels.
            return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1


def _has_late_exif(stream: BinaryIO) -> bool:
    """Whether a PNG may hold an orientation behind its pixels, where some programs write it. The position is kept."""
    place, pixels = stream.tell(), False
    try:
        stream.seek(8)  # behind the signature
        while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
            length, kind = int.from_bytes(head[:4]), head[4:]
            pixels = pixels or kind == b"IDAT"
            if pixels and kind == b"eXIf":
                return True
            if pixels and kind in (b"tEXt", b"zTXt", b"iTXt"):
                keyword = stream.read(min(length, 24))
                if keyword.startswith((b"XML:com.adobe.xmp", b"Raw profile type exif")):
                    return True
                length -= len(keyword)
            stream.seek(length + 4, os.SEEK_CUR)  # with the check sum
        return False
    finally:
        stream.seek(place)


def _upright(image: Image.Image, own: bool) -> Image.Image:
    """The decoded picture, turned; in its place if it is our own."""
    if _orientation(image) == 1:
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
    size = _sizes(image).upright
    limit, pixels = Image.MAX_IMAGE_PIXELS, size[0] * size[1]
    may_warn = image.format in _WARNS and limit is not None and pixels > limit and not _is_decoded(image)
    try:
        with _no_warning_of_many_pixels() if may_warn else nullcontext():
            image.load()
    except Exception as error:  # decoders of damaged data raise OSError, SyntaxError, struct.error, EOFError and more
        raise ValueError(f"{what} is damaged or cut short: {error}") from error
    image = _upright(image, own)
    if image.size != size:
        raise ValueError(f"{what} is damaged: its header says {_by(size)}, it holds {_by(image.size)}")
    if image.mode in _WIDE_MODES:
        return Image.fromarray(_as_uint8(np.asarray(image), what)).convert("RGB")
    if image.has_transparency_data:
        return _over_white(image)
    return image.convert("RGB")  # a copy of what is RGB already


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


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
