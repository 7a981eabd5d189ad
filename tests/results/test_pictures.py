"""Pictures of answers: what is drawn where, and that it stays legible at every size."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from florence_lite.answers import Instance
from florence_lite.results import Result
from florence_lite.results.lettering import MISSING_NOTE, lettered, shortened, wrapped
from florence_lite.results.pictures import HIDDEN, SMALLEST_SIDE, label_colors, paler

GROUND = (90, 110, 100)


def blank(width, height):
    return Image.new("RGB", (width, height), GROUND)


def result(size_wh, *instances, text=""):
    return Result("<OD>", size_wh, text=text, instances=instances)


def draw(image, answer, max_side=None):
    return answer.draw(image, max_side)


def label_color(label):
    """Of a picture with this label alone."""
    return label_colors([label])[label]


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


def test_colours_are_distinct_within_a_picture_and_mostly_the_same_everywhere():
    names = ["person", "car", "dog", "cat", "bus", "bicycle", "chair", "bottle", "cup", "sheep", "horse", "train"]
    colors = label_colors(names)
    assert len(set(colors.values())) == len(names)
    assert label_colors(reversed(names)) == colors
    assert label_color("dog") == (0, 135, 255)  # a number, for Python's own hash differs between processes
    assert sum(label_color(name) == colors[name] for name in names) > len(names) / 2
    many = label_colors(f"label {number}" for number in range(60)).values()
    assert len(set(many)) == 24 and max(map(list(many).count, many)) == 3


def test_low_scores_are_paler():
    color = label_color("dog")
    whites = [sum(paler(color, score)) for score in (None, 1, 0.7, 0.3, 0)]
    assert whites == sorted(whites) and paler(color, 1) == paler(color, None) == color
    sure, unsure = (
        draw(blank(700, 500), result((700, 500), Instance("dog", polygons=(square(100, 100, 300, 300),), score=score)))
        for score in (1, 0.1)
    )
    assert unsure.getpixel((100, 200)) == paler(color, 0.1) != sure.getpixel((100, 200)) == color
    distance = [np.abs(np.array(drawn.getpixel((200, 200))) - GROUND).sum() for drawn in (unsure, sure)]
    assert 0 < distance[0] < distance[1]


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


@pytest.mark.parametrize(
    "label",
    [
        "café",
        "猫",
        "two\nlines",
        "x" * 500,
        "a<b sign",
        "\u200b",
        "🙂",
        "tab\tbed",
        "مرحبا",
        "नमस्ते",
        "\udcff",
        "\u202edog",
    ],
)
def test_any_label_can_be_drawn(label, plates):
    answer = result((700, 500), Instance(label, box=(100, 100, 300, 300), score=0.5), text=label + ".")
    assert draw(blank(700, 500), answer).height > 500
    assert plates[0][2] < 700


def shown(monkeypatch) -> list[str]:
    """The texts that will be drawn."""
    texts = []
    original = ImageDraw.ImageDraw.text

    def record(self, xy, text, *args, **kwargs):
        texts.append(text)
        return original(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    return texts


def test_letters_that_no_font_has_are_noted(monkeypatch):
    monkeypatch.setattr("florence_lite.results.lettering._FONTS", ())
    texts = shown(monkeypatch)
    for label, noted in [("猫", True), ("dog", False), ("café", False), ("x" * 200 + "猫", True)]:
        texts.clear()
        picture = draw(blank(700, 500), result((700, 500), Instance(label, box=(100, 100, 300, 300), score=0.5)))
        assert (MISSING_NOTE in texts) == noted == (picture.height > 500), label
    texts.clear()
    draw(blank(700, 500), result((700, 500), text="猫"))
    assert MISSING_NOTE in texts


def test_accents_are_left_out_where_no_font_has_them(monkeypatch):
    monkeypatch.setattr("florence_lite.results.lettering._FONTS", ())
    assert lettered("café", 14).text == "cafe" and lettered("café", 14).complete
    assert not lettered("猫", 14).complete
    assert lettered("\x1b\u202ea\u200d\ufe0fb\nc", 14).text == "ab\nc"  # nothing that steers or has no picture


def test_wrapping_keeps_every_word_and_the_width():
    paragraph = "a dog and " + "w" * 60 + " on a lawn\nand a cat"
    words = lettered(paragraph, 14)
    lines = wrapped(words, 200)
    assert max(map(words.width, lines)) <= 200
    assert "".join(lines).replace(" ", "") == "".join(paragraph.split())
    assert "and a cat" in lines
    assert wrapped(lettered("", 14), 200) == [""]


def test_a_label_is_cut_and_its_score_never():
    label = lettered("a rather long label", 14)
    for width in (10, 40, 60, 100):
        short = shortened(label, " 0.57", width)
        assert short.endswith("0.57")
        assert label.width(short) <= max(width, label.width("0.57"))
    assert "…" in shortened(label, " 0.57", 100)
    assert shortened(label, " 0.57", 1000) == "a rather long label 0.57"


def test_small_pictures_are_enlarged_to_the_documented_side():
    assert max(draw(blank(10, 5), result((10, 5))).size) == SMALLEST_SIDE


def test_pixels_of_tiny_pictures_stay_squares():
    rng = np.random.default_rng(0)
    tiny = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    drawn = np.asarray(draw(Image.fromarray(tiny), result((8, 8))))
    assert (drawn == tiny.repeat(80, 0).repeat(80, 1)).all()


# ---- pages -----------------------------------------------------------------------------------------------------------


def page(lines=60):
    """A page of text, 900×1200 pixels, a line above the other."""
    tops = 20 + np.arange(lines) * 1150 / lines
    words = "a line of a letter that somebody wrote to somebody else {}"
    quads = [(100, y, 800, y, 800, y + 12, 100, y + 12) for y in tops]
    return result((900, 1200), *(Instance(words.format(n), quad=quad, score=0.5) for n, quad in enumerate(quads)))


def test_labels_of_a_page_stand_beside_it(plates, monkeypatch):
    texts = shown(monkeypatch)
    answer = page()
    picture = draw(blank(900, 1200), answer)
    assert picture.width > 900 and picture.height <= 1.1 * 1200
    assert [f"{label} 0.50" for label in answer.labels] == [text for text in texts if text.startswith("a line")]
    assert [text for text in texts if text.isdigit()].count("60") == 2  # at the line and in the list
    on_page = np.array(plates[:60])  # those of the list come behind
    covers = np.minimum(on_page[:, 2], 800) - np.maximum(on_page[:, 0], 100)
    assert (covers <= 1).all()  # beside the lines, not on them


@pytest.mark.parametrize("size", [(900, 1200), (300, 200), (1600, 200), (100, 900), (60, 60)])
@pytest.mark.parametrize("count", [1, 7, 300])
def test_a_list_has_every_label_and_score(size, count, monkeypatch):
    texts = shown(monkeypatch)
    x, y = size
    box = (x / 4, y / 4, x / 2, y / 2)
    items = [
        Instance(f"a very long phrase, so that it goes beside: {'long ' * 20}{n}", box=box, score=0.25)
        for n in range(count)
    ]
    picture = draw(blank(*size), result(size, *items))
    whole = " ".join(texts)
    assert all(f"{n} 0.25" in whole for n in range(count))
    assert picture.width > 0 and "…" not in whole


def test_labels_hide_no_more_than_they_may(plates):
    rng = np.random.default_rng(0)
    for count in (5, 20, 40, 80, 160):
        plates.clear()
        starts = rng.uniform(0, (900, 700), (count, 2))
        items = [Instance("traffic light", box=(x, y, x + 80, y + 60), score=0.5) for x, y in starts]
        draw(blank(1000, 800), result((1000, 800), *items))
        areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in plates[:count]]
        assert len(areas) == count and sum(areas) <= HIDDEN * 1000 * 800
        assert (len(plates) == 2 * count) == (count > 40)  # numbers and a list


# ---- the border ------------------------------------------------------------------------------------------------------


def test_quads_beyond_the_border_keep_their_angles():
    color = label_color("dog")
    slanted = Instance("dog", quad=(-300, -100, 500, 300, 480, 340, -320, -60))
    picture = np.asarray(draw(blank(700, 500), result((700, 500), slanted)))
    for x in (20, 200, 400):  # on the upper edge, which runs from (-300, -100) to (500, 300)
        y = round(-100 + (x + 300) / 2)
        assert (picture[y - 1 : y + 2, x] == color).all(-1).any()
    assert not (picture[250:, :2] == color).all(-1).any()  # nothing runs down the border
