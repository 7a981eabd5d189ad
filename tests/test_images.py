"""Every kind of image a caller may give, and every way in which it may be broken."""

import re
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from florence_lite.images import load_image

GREY, RED, HALF_RED_ON_WHITE = (128, 128, 128), (255, 0, 0), (255, 127, 127)


def palette_image(transparency=None):
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def keyed_image():
    """RGB in which one colour is declared transparent."""
    image = Image.new("RGB", (4, 3), RED)
    image.info["transparency"] = RED
    return image


PIL_IMAGES = {
    "1": (Image.new("1", (4, 3), 1), (255, 255, 255)),
    "L": (Image.new("L", (4, 3), 128), GREY),
    "LA opaque": (Image.new("LA", (4, 3), (128, 255)), GREY),
    "LA clear": (Image.new("LA", (4, 3), (128, 0)), (255, 255, 255)),
    "P": (palette_image(), RED),
    "P clear": (palette_image(transparency=1), (255, 255, 255)),
    "P other colour clear": (palette_image(transparency=0), RED),
    "PA": (palette_image().convert("PA"), RED),
    "RGB": (Image.new("RGB", (4, 3), RED), RED),
    "RGB keyed": (keyed_image(), (255, 255, 255)),
    "RGBA half": (Image.new("RGBA", (4, 3), (255, 0, 0, 128)), HALF_RED_ON_WHITE),
    "CMYK": (Image.new("CMYK", (4, 3), (0, 255, 255, 0)), RED),
    "YCbCr": (Image.new("YCbCr", (4, 3), (128, 128, 128)), GREY),
    "HSV": (Image.new("HSV", (4, 3), (0, 255, 255)), RED),
    "I;16": (Image.new("I;16", (4, 3), 128 * 257), GREY),
    "I;16B": (Image.new("I;16B", (4, 3), 128 * 257), GREY),
    "I of 8 bits": (Image.new("I", (4, 3), 128), GREY),
    "I of 16 bits": (Image.new("I", (4, 3), 128 * 257), GREY),
    "F of 0-1": (Image.new("F", (4, 3), 128 / 255), GREY),
    "F of 0-255": (Image.new("F", (4, 3), 128.0), GREY),
}
ARRAYS = {
    "uint8 HW": (np.full((3, 4), 128, np.uint8), GREY),
    "uint8 HW1": (np.full((3, 4, 1), 128, np.uint8), GREY),
    "uint8 HW3": (np.full((3, 4, 3), RED, np.uint8), RED),
    "uint8 HW4": (np.full((3, 4, 4), (255, 0, 0, 128), np.uint8), HALF_RED_ON_WHITE),
    "uint8 strided": (np.full((6, 8, 3), RED, np.uint8)[::2, ::-2], RED),
    "bool": (np.ones((3, 4), bool), (255, 255, 255)),
    "uint16": (np.full((3, 4), 128 * 257, np.uint16), GREY),
    "uint16 dark": (np.full((3, 4), 200, np.uint16), (1, 1, 1)),
    "uint16 colour": (np.full((3, 4, 3), (65535, 0, 0), ">u2"), RED),
    "int64": (np.full((3, 4), 128), GREY),
    "float32 of 0-1": (np.full((3, 4, 3), (1, 0, 0), np.float32), RED),
    "float64 of 0-255": (np.full((3, 4), 128.0), GREY),
    "float32 of 0-1, overshot": (np.array([[1.0001] * 4, [1.0] * 4, [1.1] * 4], np.float32), (255, 255, 255)),
    "float32 of 0-1, undershot": (np.array([[-0.09, 0, 0, 0]] * 3, np.float32), (0, 0, 0)),
    "float32 of 0-255, overshot": (np.array([[255.3] * 4, [255] * 4, [270.0] * 4], np.float32), (255, 255, 255)),
    "tensor": (torch.tensor(RED, dtype=torch.uint8)[:, None, None].expand(3, 3, 4), RED),
    "tensor bfloat16": (torch.ones(1, 3, 4, dtype=torch.bfloat16, requires_grad=True), (255, 255, 255)),
    "tensor HW": (torch.full((3, 4), 128, dtype=torch.uint8), GREY),
}


@pytest.mark.parametrize("kind", [*PIL_IMAGES, *ARRAYS])
def test_image_in_memory(kind):
    source, colour = {**PIL_IMAGES, **ARRAYS}[kind]
    image = load_image(source)
    assert (image.mode, image.size) == ("RGB", (4, 3))
    assert (np.asarray(image) == colour).all()


@pytest.mark.parametrize(
    ("suffix", "mode", "value"),
    [
        (".png", "RGB", RED),
        (".png", "P", 1),
        (".png", "LA", (128, 255)),
        (".png", "I;16", 128 * 257),
        (".bmp", "RGB", RED),
        (".gif", "P", 1),
        (".jpg", "L", 128),
        (".jpg", "CMYK", (0, 255, 255, 0)),
        (".tif", "F", 0.5),
        (".tif", "I;16", 128 * 257),
        (".webp", "RGBA", (255, 0, 0, 255)),
        (".ppm", "RGB", RED),
    ],
)
def test_image_file(tmp_path, suffix, mode, value):
    source = palette_image() if mode == "P" else Image.new(mode, (4, 3), value)
    source.save(tmp_path / f"image{suffix}")
    expected = RED if mode in ("P", "RGB", "CMYK", "RGBA") else GREY
    for path in (tmp_path / f"image{suffix}", str(tmp_path / f"image{suffix}")):
        image = load_image(path)
        assert (image.mode, image.size) == ("RGB", (4, 3))
        assert np.abs(np.asarray(image).astype(int) - expected).max() <= 3  # JPEG is not exact


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_unreadable_exif_is_no_obstacle(tmp_path):
    Image.new("RGB", (4, 3), RED).save(tmp_path / "image.png", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert load_image(tmp_path / "image.png").getpixel((0, 0)) == RED


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 3), colour) for colour in (RED, (0, 0, 255))]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "film.gif").getpixel((0, 0)) == RED


def test_result_is_independent_of_its_source():
    source = Image.new("RGB", (4, 3), RED)
    load_image(source).putpixel((0, 0), (0, 0, 0))
    assert source.getpixel((0, 0)) == RED


def declared_png(width, height):
    """A PNG that declares a size and holds the data of one line."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    line = zlib.compress(bytes(width + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", line) + chunk(b"IEND", b"")


def save_cut_short(path):
    """A picture of noise of which the last two thirds are missing."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


BROKEN_FILES = {
    "text.jpg": (lambda path: path.write_text("not a picture at all"), "text.jpg holds no image of a known format"),
    "empty.png": (lambda path: path.write_bytes(b""), "empty.png is an empty file"),
    "folder.png": (lambda path: path.mkdir(), "folder.png is a folder"),
    "short.jpg": (save_cut_short, "short.jpg is damaged or cut short: .*truncated"),
    "short.png": (save_cut_short, "short.png is damaged or cut short"),
    "header.png": (lambda path: path.write_bytes(declared_png(64, 64)[:20]), "header.png cannot be read: Truncated"),
    "bomb.png": (lambda path: path.write_bytes(declared_png(20_000, 20_000)), "bomb.png is too large to be safe"),
    "script.eps": (
        lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"),
        "script.eps is of format EPS; convert it to one of .*PNG",
    ),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_broken_file_is_named_with_the_reason(tmp_path, name):
    make, message = BROKEN_FILES[name]
    make(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        load_image(tmp_path / name)


@pytest.mark.parametrize("name", ["absent.png", "no/such/folder.png", "C:\\pictures\\cat.jpg"])
def test_missing_file(name):
    with pytest.raises(FileNotFoundError, match=re.escape(f"image {name} does not exist")):
        load_image(name)


def test_a_folder_or_a_pattern_is_no_image_and_how_its_files_are_given_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"is a folder; give its files, such as list\(Path\('.*'\).glob\('\*.jpg'\)\)"):
        load_image(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"does not exist .*; for a pattern give glob.glob\('.*\*.png'\)"):
        load_image(tmp_path / "*.png")


@pytest.mark.parametrize(("name", "reason"), [("a car in front of a house " * 400, "too long"), ("a\0b", "null")])
def test_path_that_the_system_refuses(name, reason):
    with pytest.raises(ValueError, match=f"cannot be read: .*{reason}"):
        load_image(name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "a path, a PIL image or an array, not NoneType"),
        ([[0, 0], [0, 0]], "not list"),
        (np.zeros((3, 40, 30), np.uint8), r"shape \[3, 40, 30\]; .*; move the channels last"),
        (np.zeros((4, 3, 2), np.uint8), r"shape \[4, 3, 2\]"),
        (np.zeros((2, 4, 3, 3), np.uint8), r"shape \[2, 4, 3, 3\]"),
        (np.zeros((0, 3), np.uint8), r"shape \[0, 3\]"),
        (np.zeros(5, np.uint8), r"shape \[5\]"),
        (np.array([["a", "b"]]), "values of type <U1"),
        (np.full((3, 4), -0.5), "values from -0.5 to -0.5; bring them to 0–1"),
        (np.full((3, 4), np.nan), "values from nan to nan"),
        (np.full((3, 4), 70_000), "values from 70000 to 70000"),
        (np.full((3, 4), 1.5), "values from 1.5 to 1.5; bring them to 0–1"),
        (np.full((3, 4), [0, 0.5, 0.9, np.inf]), "values from 0.0 to inf"),
        (np.full((3, 4), [-1, 0, 2, 3]), "values from -1 to 3"),
        (torch.zeros(2, 3, 4), r"tensor has shape \[2, 3, 4\]"),
        (torch.zeros(1, 3, 3, 4), r"shape \[1, 3, 3, 4\]"),
        (Image.new("RGB", (0, 3)), "PIL image of mode RGB has no pixels: 0×3"),
        (Image.new("F", (4, 3), -1.0), "PIL image of mode F holds values from -1"),
    ],
)
def test_unusable_source(source, message):
    with pytest.raises(ValueError, match=message):
        load_image(source)


def test_global_state_of_pillow_is_left_alone(tmp_path):
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    for name, (make, _) in BROKEN_FILES.items():
        make(tmp_path / name)
        with pytest.raises(ValueError, match=name):
            load_image(tmp_path / name)
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before
