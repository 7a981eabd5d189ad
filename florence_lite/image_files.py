"""Files, bytes and PIL pictures whose pixels are still encoded: opened in one way, their sizes known before anything is
decoded.

Only the formats of `FORMATS` are tried. `florence_lite.images` makes pictures of them.
"""

from __future__ import annotations

import glob
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

from PIL import ExifTags, Image, ImageFile

# What is opened, tried in this order: TGA, which has no signature, comes last. Pillow also knows formats that run other
# programs to be drawn (EPS) or are no pictures (HDF5).
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "AVIF", "JPEG2000", "ICO", "PCX", "TGA")

_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
WARNING_FORMATS = ("GIF", "ICO", "TIFF")  # their decoders look at Pillow's limit themselves
_FILTERS = threading.Lock()


class TooLarge(ValueError):
    """An image of more pixels than Pillow's limit allows."""


class ImageSizes(NamedTuple):
    """Width and height in pixels of an image, upright and as its file stores it."""

    upright: tuple[int, int]
    stored: tuple[int, int]


def image_size(source: Any) -> tuple[int, int]:
    """Width and height of what `load_image` makes of `source`, from the header alone. Raises as `open_image`."""
    return image_sizes(source).upright


def image_sizes(source: Any) -> ImageSizes:
    """Width and height of what `load_image` makes of `source` and as it is stored, from the header alone.

    source: as in `load_image`, but no array. Raises as `open_image`.
    """
    with open_image(source) as opened:
        return sizes_of(opened)


@contextmanager
def open_image(source: Any) -> Iterator[Image.Image]:
    """The PIL picture of a source, its header read and its pixels not; for use in a `with` statement.

    source: path, bytes, binary file or PIL image, as in `load_image`. A PIL image is yielded as it is.

    Only the formats of `FORMATS` are tried, whatever the name says. Raises FileNotFoundError and ValueError as
    `load_image`, but for damage that decoding alone shows.
    """
    what = source_name(source)
    if isinstance(source, Image.Image):
        _check_picture(source, what)
        yield source
        return
    with _stream(source, what) as stream, _opened(stream, what) as image:
        _check_pixels(image, what)
        yield image


def is_image_name(name: str) -> bool:
    """Whether a file of this name should hold an image that can be opened."""
    return Image.registered_extensions().get(os.path.splitext(name)[1].lower()) in FORMATS


# ---- encoded images --------------------------------------------------------------------------------------------------


def source_name(source: Any) -> str:
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
        pattern = f"; for a pattern give glob.glob({str(source)!r})" if glob.has_magic(os.fspath(source)) else ""
        raise FileNotFoundError(f"{what} does not exist (looked in {path.absolute().parent}){pattern}") from None
    except (OSError, ValueError) as error:  # a name that the system refuses
        raise ValueError(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if path.is_dir():
        raise ValueError(f"{what} is a folder; give its files, such as list(Path({str(path)!r}).glob('*.jpg'))")
    if not path.is_file():
        raise ValueError(f"{what} is a device, not a file")
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
            with no_warning_of_many_pixels() if name in WARNING_FORMATS else nullcontext():
                image = factory(stream, "")
            break
        except (SyntaxError, IndexError, TypeError, struct.error):  # another format, says Pillow
            continue
        except Image.DecompressionBombError as error:
            raise too_large(what, str(error)) from error
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
    if not is_decoded(image) and image.format not in FORMATS:
        raise ValueError(
            f"{what} is of format {image.format} and not decoded yet; convert it to one of {', '.join(FORMATS)}"
        )
    _check_pixels(image, what)


def is_decoded(image: Image.Image) -> bool:
    if not isinstance(image, ImageFile.ImageFile):
        return True
    pixels = vars(image).get("_im", vars(image).get("im"))  # called so since, and before, Pillow 11
    return pixels is not None and not image.tile


def _check_pixels(image: Image.Image, what: str) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ValueError(f"{what} has no pixels: {shown_size(image.size)}")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > 2 * limit and not is_decoded(image):
        raise too_large(what, f"{shown_size(image.size)} is more than {2 * limit:,} pixels", -(-width * height // 2))


def too_large(what: str, why: str, enough: int | None = None) -> TooLarge:
    remedy = "PIL.Image.MAX_IMAGE_PIXELS" + (f" = {enough}" if enough else "")
    return TooLarge(f"{what} is too large to be safe: {why}; if you trust it, raise the limit: {remedy}")


@contextmanager
def no_warning_of_many_pixels() -> Iterator[None]:
    """Without Pillow's DecompressionBombWarning, also where warnings are errors."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def shown_size(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


# ---- upright ---------------------------------------------------------------------------------------------------------


def sizes_of(image: Image.Image) -> ImageSizes:
    """The sizes of a picture, decoded or not."""
    decoded, tags = is_decoded(image), getattr(image, "tag_v2", {})
    stored = image.size
    if not decoded and isinstance(tags.get(256), int) and isinstance(tags.get(257), int):
        stored = tags[256], tags[257]  # Pillow turns a TIFF while decoding it, and some versions say its size turned
    return ImageSizes(stored[::-1] if orientation_of(image) in _TURNED else stored, stored)


def orientation_of(image: Image.Image) -> int:
    """EXIF's number of how the stored pixels lie, 1 for upright; data that cannot be read says nothing."""
    try:
        if image.format == "PNG" and not is_decoded(image):
            if _has_late_exif(image.fp):  # type: ignore[attr-defined]  # of a file that is still open
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
