"""Encoded images, as files, bytes and streams: their size before they are decoded, their limits, what is not opened."""

import io
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from florence_lite.image_files import FORMATS, image_size, image_sizes, open_image
from florence_lite.images import load_image

RED = (255, 0, 0)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"

# Where the red corner (0, 0) of 40×30 stored pixels lies in the upright picture, by EXIF's number.
CORNERS = {
    1: ((40, 30), "left top"),
    2: ((40, 30), "right top"),
    3: ((40, 30), "right bottom"),
    4: ((40, 30), "left bottom"),
    5: ((30, 40), "left top"),
    6: ((30, 40), "right top"),
    7: ((30, 40), "right bottom"),
    8: ((30, 40), "left bottom"),
}


def cornered():
    image = Image.new("RGB", (40, 30))
    image.paste(RED, (0, 0, 12, 12))
    return image


def encoded(format, image=None, **options):
    buffer = io.BytesIO()
    (image or cornered()).save(buffer, format=format, **options)
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def late(png, *chunks):
    """A PNG with more chunks behind its pixels."""
    end = chunk(b"IEND", b"")
    assert png.endswith(end)
    return png[: -len(end)] + b"".join(chunks) + end


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def exif_chunk(orientation):
    return chunk(b"eXIf", exif_of(orientation).tobytes()[6:])


def xmp_of(orientation):
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def xmp_chunk(orientation):
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp_of(orientation))


TURNED = {
    "jpeg": lambda turn: encoded("JPEG", exif=exif_of(turn), quality=95),
    "jpeg, xmp": lambda turn: encoded("JPEG", xmp=xmp_of(turn), quality=95),
    "mpo": lambda turn: encoded("MPO", exif=exif_of(turn), save_all=True, append_images=[cornered()], quality=95),
    "png": lambda turn: encoded("PNG", exif=exif_of(turn)),
    "png, xmp": lambda turn: encoded("PNG")[:33] + xmp_chunk(turn) + encoded("PNG")[33:],
    "png, late": lambda turn: late(
        encoded("PNG"), chunk(b"tEXt", b"a\0b"), chunk(b"eXIf", exif_of(turn).tobytes()[6:])
    ),
    "png, late xmp": lambda turn: late(encoded("PNG"), xmp_chunk(turn)),
    "webp": lambda turn: encoded("WEBP", exif=exif_of(turn), lossless=True),
    "tiff": lambda turn: encoded("TIFF", tiffinfo={274: turn}),
    "tiff, lzw": lambda turn: encoded("TIFF", tiffinfo={274: turn}, compression="tiff_lzw"),
    "tiff, xmp": lambda turn: encoded("TIFF", tiffinfo={700: xmp_of(turn)}),
    "avif": lambda turn: encoded("AVIF", exif=exif_of(turn), quality=95),
}


@pytest.mark.parametrize("orientation", CORNERS)
@pytest.mark.parametrize("kind", TURNED)
def test_header_says_the_size_of_the_upright_picture(kind, orientation, tmp_path):
    if kind == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    size, corner = CORNERS[orientation]
    data = TURNED[kind](orientation)
    file = tmp_path / "image.bin"
    file.write_bytes(data)
    with Image.open(file) as opened:
        sources = [file, str(file), data, io.BytesIO(data), opened]
        assert [image_size(source) for source in sources] == [size] * 5
        pictures = [load_image(source) for source in sources]
        assert image_size(opened) == size  # also once it is decoded
    assert image_sizes(data).stored == (40, 30)
    for picture in pictures:
        assert (picture.mode, picture.size) == ("RGB", size)
        at = [0 if side in corner else end - 1 for side, end in zip(("left", "top"), size, strict=True)]
        assert np.abs(np.subtract(picture.getpixel(tuple(at)), RED)).max() < 40
        assert image_size(picture) == load_image(picture).size == size  # it is not turned twice


@pytest.mark.parametrize("format", ["BMP", "GIF", "ICO", "JPEG2000", "PCX", "PPM", "TGA"])
def test_formats_without_an_orientation(format):
    data = encoded(format, sizes=[(40, 30)]) if format == "ICO" else encoded(format)
    assert image_size(data) == load_image(data).size == (40, 30)


def test_png_of_which_only_the_header_is_there_has_a_size():
    """So nothing is decoded for it."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8))
    data = encoded("PNG", noise)[:200]
    assert image_size(data) == (48, 64)
    with pytest.raises(ValueError, match="image of 200 bytes is damaged or cut short"):
        load_image(data)


def test_a_header_that_contradicts_the_pixels_is_refused(monkeypatch):
    from PIL import BmpImagePlugin

    def load(self):
        self._size = (10, 10)
        return Image.Image.load(self)

    monkeypatch.setattr(BmpImagePlugin.BmpImageFile, "load", load)
    with pytest.raises(ValueError, match="damaged"):
        load_image(encoded("BMP"))


# ---- streams ---------------------------------------------------------------------------------------------------------


def test_streams_are_read_from_their_beginning_and_stay_open(tmp_path):
    (tmp_path / "image.png").write_bytes(encoded("PNG"))
    buffer = io.BytesIO(encoded("PNG"))
    buffer.seek(0, os.SEEK_END)
    with (tmp_path / "image.png").open("rb") as file:
        for stream in (buffer, file):
            assert load_image(stream).size == load_image(stream).size == image_size(stream) == (40, 30)
            assert not stream.closed
    assert load_image(memoryview(encoded("PNG"))).size == load_image(bytearray(encoded("PNG"))).size == (40, 30)


def test_a_pipe_is_read():
    data = encoded("PNG")
    reading, writing = os.pipe()
    writer = threading.Thread(target=lambda: [os.write(writing, data), os.close(writing)])
    writer.start()
    with os.fdopen(reading, "rb") as pipe:
        assert load_image(pipe).size == (40, 30)
    writer.join()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "image of 0 bytes is empty"),
        (b"not a picture", "image of 13 bytes holds no image of a known format"),
        (io.BytesIO(b""), "image in a BytesIO holds no image of a known format"),
        (io.StringIO("text"), 'image in a StringIO is opened as text; open it in binary mode, "rb"'),
        ("https://example.org/cat.jpg", "cat.jpg is an address; download it first"),
        ("HTTP://example.org/cat.jpg", "is an address; download it first"),
        (Path("https://example.org/cat.jpg"), "is an address; download it first"),
        ("s3://bucket/cat.jpg", "is an address; download it first"),
        ("file:///tmp/cat.jpg", "is an address"),
    ],
)
def test_source_without_an_image(source, message):
    for opened in (load_image, image_size):
        with pytest.raises(ValueError, match=message):
            opened(source)


def test_closed_stream():
    stream = io.BytesIO(encoded("PNG"))
    stream.close()
    with pytest.raises(ValueError, match="image in a BytesIO cannot be read: .*closed"):
        load_image(stream)


def test_errors_stay_short():
    with pytest.raises(ValueError) as caught:
        load_image("data:image/png;base64," + "A" * 100_000)
    assert len(str(caught.value)) < 500


# ---- foreign formats -------------------------------------------------------------------------------------------------


@pytest.fixture
def no_programs(monkeypatch):
    import subprocess

    def refuse(*args, **options):
        raise AssertionError("a program was started")

    for name in ("Popen", "check_call", "run"):
        monkeypatch.setattr(subprocess, name, refuse)


@pytest.mark.parametrize("wrap", [lambda data: data, io.BytesIO, lambda data: Image.open(io.BytesIO(data))])
def test_postscript_is_refused_in_every_wrapping(wrap, no_programs):
    for opened in (image_size, load_image):
        with pytest.raises(ValueError, match="is of format EPS.*convert it to one of .*PNG"):
            opened(wrap(POSTSCRIPT))


def test_picture_of_a_foreign_format_that_pil_has_decoded_is_one():
    picture = Image.open(io.BytesIO(encoded("SGI")))
    with pytest.raises(ValueError, match="format SGI and not decoded yet"):
        load_image(picture)
    assert load_image(picture.copy()).size == (40, 30)  # copying decodes
    assert load_image(picture).size == image_size(picture) == (40, 30)


def test_formats_need_no_plugin(monkeypatch):
    """An older Pillow has no AVIF."""
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    assert "AVIF" in FORMATS
    with pytest.raises(ValueError, match="no image of a known format"):
        load_image(b"\0\0\0\x20ftypavif" + bytes(40))


# ---- many pixels -----------------------------------------------------------------------------------------------------


def declared_png(width, height):
    """A PNG that declares a size and holds the data of one line."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    line = zlib.compress(bytes(width + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", line) + chunk(b"IEND", b"")


LARGE = {
    "png": lambda: encoded("PNG", Image.new("1", (60, 50))),
    "tiff": lambda: encoded("TIFF", Image.new("1", (60, 50)), compression="group4"),
    "gif": lambda: encoded("GIF", Image.new("L", (60, 50))),
    "ico": lambda: encoded("ICO", Image.new("RGB", (60, 50)), sizes=[(60, 50)]),
    "jpeg": lambda: encoded("JPEG", Image.new("L", (60, 50))),
    "webp": lambda: encoded("WEBP", Image.new("RGB", (60, 50))),
    "bmp": lambda: encoded("BMP", Image.new("RGB", (60, 50))),
}


@pytest.mark.parametrize("kind", LARGE)
def test_many_pixels_below_the_limit_are_read_without_a_warning(kind, monkeypatch):
    data = LARGE[kind]()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # Pillow warns above it and refuses above twice as many
    for action in ("error", "always"):
        with warnings.catch_warnings(record=action == "always") as caught:
            warnings.simplefilter(action)
            assert load_image(data).size == image_size(data) == (60, 50)
        assert not caught


@pytest.mark.parametrize("kind", LARGE)
def test_more_pixels_than_the_limit_are_refused_and_the_limit_can_be_raised(kind, monkeypatch):
    data = LARGE[kind]()
    picture = Image.open(io.BytesIO(data))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1400)
    if kind != "ico":  # which PIL decodes while opening it
        with pytest.raises(ValueError, match="too large to be safe: .*PIL.Image.MAX_IMAGE_PIXELS = 1500"):
            load_image(picture)
    for opened in (image_size, load_image):
        with pytest.raises(ValueError, match="too large to be safe: .*raise the limit: PIL.Image.MAX_IMAGE_PIXELS"):
            opened(data)
    for enough in (1500, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", enough)
        assert image_size(data) == load_image(data).size == load_image(picture).size == (60, 50)


def test_a_bomb_is_refused_by_its_header():
    with pytest.raises(ValueError, match="20000×20000 is more than 178,956,970 pixels; if you trust it"):
        load_image(declared_png(20_000, 20_000))


def test_the_picture_is_closed_behind_the_block(tmp_path):
    (tmp_path / "image.png").write_bytes(encoded("PNG"))
    with open_image(tmp_path / "image.png") as opened:
        stream = opened.fp
        assert (opened.size, opened.format) == ((40, 30), "PNG")
    assert stream.closed
