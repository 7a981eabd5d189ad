"""Pictures of answers: what is drawn where, and that it stays legible at every size."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from florence_lite.answers import Instance
from florence_lite.results import Result
from florence_lite.results.pictures import SMALLEST_SIDE, _font_for, _shortened, _wrapped, label_color

GROUND = (90, 110, 100)


def blank(width, height):
    return Image.new("RGB", (width, height), GROUND)


def result(size_wh, *instances, text=""):
    return Result("<OD>", size_wh, text=text, instances=instances)


def draw(image, answer, max_side=None):
    return answer.draw(image, max_side)


def square(x0, y0, x1, y1):
    return ((x0, y0), (x1, y0), (x1, y1), (x0, y1))


@pytest.fixture
def plates(monkeypatch):
    """The label plates that are drawn, as x0 y0 x1 y1."""
    drawn = []
    original = ImageDraw.ImageDraw.rounded_rectangle

    def record(self, plate, *args, **kwargs):
        drawn.append(tuple(plate))
        return original(self, plate, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "rounded_rectangle", record)
    return drawn


@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [
        ((64, 48), None, (640, 480)),
        ((1, 1), None, (640, 640)),
        ((1000, 20), None, (1000, 20)),
        ((4000, 3000), None, (4000, 3000)),
        ((4000, 3000), 800, (800, 600)),
        ((64, 48), 320, (320, 240)),
        ((1000, 1), 10, (10, 1)),
    ],
)
def test_size_of_the_picture(size, max_side, expected):
    answer = result(size, Instance("dog", box=(0, 0, size[0] / 2, size[1] / 2), score=0.5))
    picture = draw(blank(*size), answer, max_side)
    assert (picture.mode, picture.size) == ("RGB", expected)


def test_max_side_must_be_positive():
    with pytest.raises(ValueError, match="max_side is 0; it must be at least 1"):
        draw(blank(10, 10), result((10, 10)), max_side=0)


def test_nothing_to_draw_leaves_the_picture_alone():
    image = blank(700, 500)
    for answer in (result((700, 500)), result((700, 500), Instance("a label without a place", score=0.9))):
        assert draw(image, answer).tobytes() == image.tobytes()


def test_source_image_is_not_drawn_on():
    image = blank(700, 500)
    draw(image, result((700, 500), Instance("dog", box=(0, 0, 700, 500)), text="a dog"))
    assert image.tobytes() == blank(700, 500).tobytes()


@pytest.mark.parametrize(
    "instance",
    [
        Instance("dog", box=(100, 100, 300, 300)),
        Instance("dog", quad=(100, 100, 300, 100, 300, 300, 100, 300)),
        Instance("dog", polygons=(square(100, 100, 300, 300),)),
    ],
    ids=["box", "quad", "polygons"],
)
def test_outline_in_the_colour_of_the_label(instance):
    picture = draw(blank(700, 500), result((700, 500), instance))
    for point in [(100, 200), (300, 200), (200, 300)]:
        assert picture.getpixel(point) == label_color("dog")
    assert picture.getpixel((600, 400)) == GROUND


def test_only_polygons_are_filled_and_holes_are_not():
    ring = Instance("ring", polygons=(square(100, 100, 300, 300), square(150, 150, 250, 250)))
    picture = draw(blank(700, 500), result((700, 500), ring))
    assert picture.getpixel((125, 200)) not in (GROUND, label_color("ring"))
    assert picture.getpixel((200, 200)) == GROUND
    picture = draw(blank(700, 500), result((700, 500), Instance("ring", box=(100, 100, 300, 300))))
    assert picture.getpixel((125, 200)) == GROUND


def test_coordinates_follow_a_thumbnail():
    answer = result((7000, 5000), Instance("dog", box=(1000, 1000, 3000, 3000)))
    assert draw(blank(700, 500), answer).getpixel((100, 200)) == label_color("dog")


def test_outline_at_the_border_stays_visible():
    picture = draw(blank(700, 500), result((700, 500), Instance("dog", box=(0, 0, 700, 500))))
    seen = np.asarray(picture)
    for strip in (seen[250, :6], seen[250, -6:], seen[-6:, 350]):
        assert (strip == label_color("dog")).all(-1).any()


def test_a_label_has_the_same_colour_everywhere():
    assert label_color("dog") == (76, 199, 240)  # a number, for Python's own hash differs between processes
    assert len({label_color(f"label {number}") for number in range(200)}) > 40


@pytest.mark.parametrize("size", [(64, 48), (700, 500), (4000, 3000)])
def test_plates_scale_with_the_picture(size, plates):
    x, y = size
    picture = draw(blank(*size), result(size, Instance("dog", box=(x / 4, y / 4, x / 2, y / 2), score=0.875)))
    (plate,) = plates
    assert 1 / 45 < (plate[3] - plate[1]) / max(picture.size) < 1 / 25
    assert plate[3] == pytest.approx(picture.height / 4, abs=1)


@pytest.mark.parametrize(
    "box", [(0, 0, 30, 30), (670, 0, 700, 30), (0, 470, 30, 500), (670, 470, 700, 500), (0, 0, 700, 500)]
)
def test_plates_stay_inside_the_picture(box, plates):
    draw(blank(700, 500), result((700, 500), Instance("a rather long label", box=box, score=0.5)))
    (plate,) = plates
    assert min(plate) >= 0
    assert plate[2] < 700
    assert plate[3] < 500


def test_plates_of_a_crowd_do_not_cover_each_other(plates):
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, (560, 400), (20, 2))
    boxes = np.concatenate([starts, starts + rng.uniform(20, 100, (20, 2))], axis=1)
    draw(blank(700, 500), result((700, 500), *(Instance("dog", box=box, score=0.5) for box in boxes)))
    low, high = np.array(plates)[:, :2], np.array(plates)[:, 2:]
    shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)  # [N, N, 2]
    assert len(plates) == 20
    assert not (np.triu((shared > 0).all(-1), k=1)).any()


def test_words_stand_in_a_strip_below():
    image = blank(700, 500)
    short, long = (draw(image, result((700, 500), text=text)) for text in ("a dog", "a dog on a lawn " * 20))
    assert short.width == long.width == 700
    assert 500 < short.height < long.height
    assert short.crop((0, 0, 700, 500)).tobytes() == image.tobytes()
    strip = np.asarray(short)[500:]
    assert strip.max() == 255
    assert strip.min() < 64


def test_words_of_a_region_are_not_said_twice(plates):
    region = Instance("a brown dog", box=(100, 100, 300, 300))
    picture = draw(blank(700, 500), result((700, 500), region, text="a brown dog"))
    assert picture.height > 500
    assert picture.getpixel((100, 200)) == label_color("a brown dog")
    assert plates == []


@pytest.mark.parametrize("label", ["café", "猫", "two\nlines", "x" * 500, "a<b sign", "\u200b", "🙂", "tab\tbed"])
def test_any_label_can_be_drawn(label, plates):
    answer = result((700, 500), Instance(label, box=(100, 100, 300, 300), score=0.5), text=label + ".")
    assert draw(blank(700, 500), answer).height > 500
    assert plates[0][2] < 700


def test_missing_accents_are_left_out_where_no_font_has_them(monkeypatch):
    monkeypatch.setattr("florence_lite.results.pictures._WIDE_FONTS", ())
    assert _font_for("café", 14)[1] == "cafe"
    assert _font_for("cafe", 14)[1] == "cafe"


def test_wrapping_keeps_every_word_and_the_width():
    font = ImageFont.load_default(14)
    paragraph = "a dog and " + "w" * 60 + " on a lawn"
    lines = _wrapped(paragraph, font, 200)
    assert max(font.getlength(line) for line in lines) <= 200
    assert "".join(lines).replace(" ", "") == paragraph.replace(" ", "")
    assert _wrapped("", font, 200) == [""]


def test_shortening():
    font = ImageFont.load_default(14)
    short = _shortened("a rather long label", font, 60)
    assert short.endswith("…")
    assert font.getlength(short) <= 60
    assert _shortened("dog", font, 60) == "dog"


def test_small_pictures_are_enlarged_to_the_documented_side():
    assert max(draw(blank(10, 5), result((10, 5))).size) == SMALLEST_SIDE
