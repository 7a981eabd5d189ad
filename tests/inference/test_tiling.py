"""Tiling with a stand-in for the network that finds in each tile exactly what is visible there."""

import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont

from florence_lite import Instance, Prompt, Result
from florence_lite.cards import task, tasks
from florence_lite.geometry import box_iou, clip_ring, mask_iou, rasterize
from florence_lite.inference.answering import Asked
from florence_lite.inference.many_images import ImageError
from florence_lite.inference.stitching import joined_words, stitched
from florence_lite.inference.tiling import Tiling, as_tiling, tile_boxes, tiled

SIDE = 4096  # up to which a colour can say where a pixel lies
OD, WORDS, OUTLINES = "<OD>", "<OCR_WITH_REGION>", "<REFERRING_EXPRESSION_SEGMENTATION>"


@cache
def map_of_places() -> np.ndarray:
    """uint8[SIDE, SIDE, 3]: of the 24 bits of a colour the first 12 are y, the others x."""
    places = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    x = np.arange(SIDE)
    y = x[:, None]
    places[..., 0], places[..., 1], places[..., 2] = y >> 4, (y & 15) << 4 | x >> 8, x & 255
    return places


def canvas(width: int, height: int) -> Image.Image:
    return Image.fromarray(map_of_places()[:height, :width])


def window_of(picture: Image.Image) -> tuple[int, int, int, int]:
    """Which part of the canvas a picture shows."""
    red, green, blue = picture.getpixel((0, 0))
    place = red << 16 | green << 8 | blue
    x, y = place & 4095, place >> 12
    return x, y, x + picture.width, y + picture.height


@dataclass
class Letters:
    """A line of text on the canvas. edges: x of the n + 1 borders of its letters; top, bottom: its height."""

    text: str
    edges: Sequence[float]
    top: float
    bottom: float

    @property
    def quad(self) -> tuple[float, ...]:
        x0, x1 = self.edges[0], self.edges[-1]
        return (x0, self.top, x1, self.top, x1, self.bottom, x0, self.bottom)

    def read(self, window) -> Instance | None:
        """What can be read in a window: of a letter that is cut, something else, or nothing if little of it shows."""
        x0, y0, x1, y1 = window
        top, bottom = max(self.top, y0), min(self.bottom, y1)
        if bottom - top < 1:
            return None
        legible = bottom - top > 0.7 * (self.bottom - self.top)
        shown, read = [], ""
        for letter, left, right in zip(self.text, self.edges, self.edges[1:], strict=False):
            share = (min(right, x1) - max(left, x0)) / (right - left)
            if share > 0.1:
                read += letter if share > 0.7 and legible else "#"
                shown += [max(left, x0), min(right, x1)]
        if not read.strip():
            return None
        start, end = shown[0], shown[-1]
        return Instance(read, quad=(start, top, end, top, end, bottom, start, bottom), score=0.5)


class Oracle:
    """Answers about windows of the canvas from the truth: boxes, outlines or lines of text, cut at the window's border,
    in coordinates of the window. What is smaller than `least` of the window is not seen.

    With bins, places are as coarse as those of a network that writes them in so many. In windows of more than `largest`
    pixels it finds nothing.
    """

    def __init__(self, things: Sequence[Instance] = (), lines: Sequence[Letters] = (), least=0.0, bins=0, largest=SIDE):
        self.things, self.lines, self.least, self.bins, self.largest = things, lines, least, bins, largest
        self.windows: list[tuple[int, int, int, int]] = []

    def __call__(self, pieces) -> Iterator[list[Result] | ImageError]:
        for picture, asked in pieces:
            self.windows.append(window_of(picture))
            yield [self.result(each.card.name, self.windows[-1]) for each in asked]

    def result(self, name: str, window) -> Result:
        x0, y0, x1, y1 = window
        seen = (
            [line.read(window) for line in self.lines] if name == WORDS else [self.cut(t, window) for t in self.things]
        )
        items = [self.placed(item, window) for item in seen if item is not None]
        items = items if x1 - x0 <= self.largest else []
        tokens = tuple(range(len(items)))
        return Result(name, (x1 - x0, y1 - y0), instances=items, token_ids=tokens, parse_errors=1, dropped=2)

    def cut(self, thing: Instance, window) -> Instance | None:
        low, high = np.maximum(thing.bounds[:2], window[:2]), np.minimum(thing.bounds[2:], window[2:])
        if (high - low).min() <= 0 or (high - low).max() < self.least * (window[2] - window[0]):
            return None
        if thing.box:
            return replace(thing, box=(*low, *high))
        rings = [clip_ring(ring, window) for ring in thing.polygons]
        return replace(thing, polygons=[ring for ring in rings if len(ring) >= 3])

    def placed(self, item: Instance, window) -> Instance:
        corner, sides = np.array(window[:2]), np.array([window[2] - window[0], window[3] - window[1]])

        def place(values) -> list[float]:
            points = np.array(values).reshape(-1, 2) - corner
            if self.bins:
                points = (np.clip(np.floor(points / sides * self.bins), 0, self.bins - 1) + 0.5) * sides / self.bins
            return points.ravel().tolist()

        return replace(
            item,
            box=item.box and place(item.box),
            quad=item.quad and place(item.quad),
            polygons=[np.array(place(ring)).reshape(-1, 2) for ring in item.polygons],
        )


def ask(oracle: Oracle, size_wh: tuple[int, int], tile: tuple[int, int], name: str = OD) -> Result:
    asked = [Asked(task(name), Prompt(name))]
    [[result]] = tiled([(canvas(*size_wh), asked)], Tiling(*tile), oracle, False)
    assert result.size_wh == size_wh
    return result


def assert_same(found: Sequence[Instance], truth: Sequence[Instance], least: float = 0.99) -> None:
    """Every true instance once and nothing else: labels and boxes."""
    assert Counter(item.label for item in found) == Counter(item.label for item in truth)
    ious = box_iou([item.bounds for item in found], [item.bounds for item in truth])
    ious *= np.array([[one.label == other.label for other in truth] for one in found], dtype=float).reshape(ious.shape)
    assert (ious.max(0, initial=0) >= least).all() and (ious.max(1, initial=0) >= least).all()


def scattered(rng: np.random.Generator, count: int, size_wh, longest: float, shortest=6.0, gap=2.0) -> list[Instance]:
    """Boxes of different sizes that do not touch each other."""
    boxes = np.zeros((0, 4))
    for _ in range(20 * count):
        side = rng.uniform(min(shortest, longest), longest, 2)
        corner = rng.uniform(0, np.array(size_wh) - side)
        box = np.concatenate([corner, corner + side])
        apart = (boxes[:, :2] > box[2:] + gap).any(1) | (boxes[:, 2:] < box[:2] - gap).any(1)
        if apart.all():
            boxes = np.concatenate([boxes, box[None]])
        if len(boxes) == count:
            break
    return [Instance(str(rng.choice(["dog", "cat", "bus"])), box=box, score=rng.uniform()) for box in boxes]


# ---- where tiles lie


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(2, 900), st.floats(0, 0.95))
def test_tiles_cover_the_image_evenly_and_share_the_overlap(width, height, size, share):
    overlap = int(share * size)
    tiling = Tiling(size, overlap)
    if max(width, height) / (size - overlap) > 90:
        return
    boxes = tile_boxes((width, height), tiling)
    columns, rows = sorted({(x0, x1) for x0, _, x1, _ in boxes}), sorted({(y0, y1) for _, y0, _, y1 in boxes})
    assert boxes == [(x0, y0, x1, y1) for y0, y1 in rows for x0, x1 in columns]
    for side, spans in ((width, columns), (height, rows)):
        assert spans[0][0] == 0 and spans[-1][1] == side
        assert {end - start for start, end in spans} == {min(size, side)}
        shared = [end - start for (_, end), (start, _) in zip(spans, spans[1:], strict=False)]
        assert all(each >= overlap for each in shared)
        assert not shared or max(shared) - min(shared) <= 1
        fewer = len(spans) - 1
        assert fewer == 0 or fewer * size - (fewer - 1) * overlap < side  # with one tile less there would be a hole


# ---- every thing once and whole


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.integers(120, 400), st.floats(0.1, 0.5), st.integers(100, 900), st.integers(100, 600))
def test_things_up_to_the_overlap_are_found_once(seed, size, share, width, height):
    overlap = int(share * size)
    things = scattered(np.random.default_rng(seed), 40, (width, height), min(overlap, width, height))
    found = ask(Oracle(things), (width, height), (size, overlap))
    assert_same(found.instances, things)


def test_a_scene_of_200_small_things():
    things = scattered(np.random.default_rng(1), 200, (3000, 2400), 70, shortest=24)
    oracle = Oracle(things, least=0.03, bins=1000)
    assert len(things) == 200 and len(oracle.result(OD, (0, 0, 3000, 2400)).instances) == 0
    found = ask(oracle, (3000, 2400), (600, 100))
    assert_same(found.instances, things, 0.85)
    assert len(oracle.windows) == 6 * 5 + 1


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from([0, 3, 40, 90]))
def test_things_that_no_tile_sees_whole_are_put_together(seed, overlap):
    """Longer than a tile too, with a network that sees nothing in the whole image."""
    things = scattered(np.random.default_rng(seed), 12, (1000, 800), 450, gap=12)
    found = ask(Oracle(things, largest=200), (1000, 800), (200, overlap))
    assert_same(found.instances, things)


def test_parts_of_one_label_are_put_together_and_no_others():
    """Two things side by side, each cut by the border at x = 100 of two tiles; one is seen as something else there."""
    oracle = Oracle([Instance("dog", box=(60, 20, 140, 50), score=0.4), Instance("cat", box=(70, 60, 130, 90))])
    result = ask(oracle, (200, 100), (100, 0))
    assert result.labels == ["dog", "cat"] and result.scores == [0.4, None]
    assert result.boxes_xyxy.tolist() == [[60, 20, 140, 50], [70, 60, 130, 90]]

    def confused(pieces):
        for number, [part] in enumerate(oracle(pieces)):
            yield [replace(part, instances=[replace(part[0], label=f"{number}")])]

    [[result]] = tiled([(canvas(200, 100), [Asked(task(OD), Prompt(OD))])], Tiling(100, 0), confused, False)
    assert result.labels == ["0", "1", "2"]


def test_the_uncut_one_wins_and_then_the_surest():
    """A thing in three tiles: cut in the first with the highest score, whole in two others."""
    tiles = tile_boxes((200, 60), Tiling(100, 60))
    assert [x0 for x0, *_ in tiles] == [0, 33, 66, 100]
    boxes = {0: ((70, 10, 100, 40), 0.9), 33: ((71, 10, 104, 40), 0.6), 66: ((70, 11, 105, 40), 0.7)}

    def answer(pieces):
        for picture, _ in pieces:
            x0, _, x1, _ = window_of(picture)
            box, score = boxes.get(x0 if x1 - x0 == 100 else -1, (None, None))
            items = [Instance("dog", box=np.array(box) - (x0, 0, x0, 0), score=score)] if box else []
            yield [Result(OD, picture.size, instances=items)]

    [[result]] = tiled([(canvas(200, 60), [Asked(task(OD), Prompt(OD))])], Tiling(100, 60), answer, False)
    assert [(item.box, item.score) for item in result] == [((70, 11, 105, 40), 0.7)]


def test_a_cut_part_that_the_next_tile_does_not_see_is_no_thing():
    """Where that tile sees all of it and what is round it; it counts as dropped."""
    parts = {(0, 100): (60, 30, 100, 50), (60, 160): None}  # of tiles, by x: the second sees from 60 on
    parts |= {(120, 220): (1, 5, 30, 40)}

    def answer(pieces):
        for picture, _ in pieces:
            x0, _, x1, _ = window_of(picture)
            box = parts.get((x0, x1))
            yield [Result(OD, picture.size, instances=[Instance("dog", box=box)] if box else [], dropped=1)]

    def asked(first: tuple[int, int, int, int]) -> Result:
        parts[0, 100] = first
        [[result]] = tiled([(canvas(220, 60), [Asked(task(OD), Prompt(OD))])], Tiling(100, 40), answer, False)
        return result

    assert [x0 for x0, *_ in tile_boxes((220, 60), Tiling(100, 40))] == [0, 60, 120]
    result = asked((70, 30, 100, 50))  # in the midst of the second, as is what the third one sees
    assert (len(result), result.dropped) == (0, 4 + 2)
    result = asked((50, 30, 100, 50))  # the second sees only a part of it
    assert (result[0].box, result.dropped) == ((50, 30, 100, 50), 4 + 1)


def test_what_is_longer_than_a_tile_is_taken_from_the_whole_image():
    """Together with small things: those are taken from the tiles."""
    large = Instance("bus", box=(40, 100, 950, 700), score=0.3)
    small = scattered(np.random.default_rng(0), 10, (1000, 90), 40)
    oracle = Oracle([large, *small])
    found = ask(oracle, (1000, 800), (300, 60))
    assert_same(found.instances, [large, *small])
    shaken = []

    def whole_is_rough(pieces):
        for [part] in oracle(pieces):
            x0, _, x1, _ = oracle.windows[-1]
            if x1 - x0 > 300:
                shaken.extend(part.instances)
                moved = [replace(i, box=np.array(i.box) + (8, 0, 8, 0), score=0.9) for i in part.instances]
                part = replace(part, instances=moved)
            yield [part]

    [[found]] = tiled([(canvas(1000, 800), [Asked(task(OD), Prompt(OD))])], Tiling(300, 60), whole_is_rough, False)
    assert len(shaken) == 11
    expected = [replace(large, box=np.array(large.box) + (8, 0, 8, 0)), *small]
    assert_same(found.instances, expected)


@pytest.mark.parametrize("overlap", [10, 60])
def test_outlines_are_put_together(overlap):
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    centres = [(50, 60), (200, 150), (101, 250), (340, 330), (330, 90)]
    rings = [[circle * radius + centre] for centre, radius in zip(centres, (20, 90, 40, 30, 25), strict=True)]
    rings[1].append(circle * 40 + centres[1])  # a hole
    truth = [Instance("ring", polygons=each, score=0.5) for each in rings]
    found = ask(Oracle(truth, largest=200), (400, 400), (200, overlap), OUTLINES)
    assert_same(found.instances, truth, 0.97)
    for item in found:
        ious = [mask_iou(rasterize(item.outlines, (400, 400)), rasterize(each.outlines, (400, 400))) for each in truth]
        assert max(ious) > 0.97


# ---- text


@cache
def page(size_wh: tuple[int, int], columns: int, seed: int = 0) -> list[Letters]:
    """A page of made-up words in columns, in letters of a font and lines of different heights."""
    rng = np.random.default_rng(seed)
    widths = {letter: ImageFont.load_default(100).getlength(letter) / 100 for letter in string.ascii_lowercase + " "}
    lines = []
    room = size_wh[0] / columns - 120
    y = 60.0
    while y < size_wh[1] - 120:
        size = int(rng.integers(24, 44))
        for column in range(columns):
            text, width = "", 0.0
            while True:
                word = " " * bool(text) + "".join(rng.choice(list(string.ascii_lowercase), rng.integers(2, 9)))
                wider = width + size * sum(map(widths.get, word))
                if wider > room:
                    break
                text, width = text + word, wider
            steps = [0, *(size * widths[letter] for letter in text)]
            x = column * size_wh[0] / columns + 60
            lines.append(Letters(text, (x + np.cumsum(steps)).tolist(), y, y + 1.2 * size))
        y += 1.7 * size
    return lines


@pytest.mark.parametrize(
    ("columns", "tile", "bins"), [(3, (1000, 120), 0), (1, (900, 200), 1000), (3, (2500, 80), 1000)]
)
def test_a_page_of_4000_pixels(columns, tile, bins):
    """In three columns, and in one, whose lines are longer than four tiles."""
    lines = page((4000, 4000), columns)
    assert len(lines) > 60
    found = ask(Oracle(lines=lines, bins=bins), (4000, 4000), tile, WORDS)
    assert Counter(found.labels) == Counter(line.text for line in lines)
    assert_same(found.instances, [Instance(line.text, quad=line.quad) for line in lines], 0.9 if bins else 0.999)
    assert (np.diff([item.bounds[1] for item in found]) >= 0).all()


@settings(max_examples=4)
@given(st.integers(0, 10**6), st.integers(150, 700), st.floats(0.0, 0.4))
def test_lines_come_back_whole_whatever_the_tiles(seed, size, share):
    lines = page((1500, 700), 2, seed)
    overlap = max(60, int(share * size))
    found = ask(Oracle(lines=lines), (1500, 700), (size, overlap), WORDS)
    assert Counter(found.labels) == Counter(line.text for line in lines)
    assert_same(found.instances, [Instance(line.text, quad=line.quad) for line in lines])


@pytest.mark.parametrize("angle", [90, 180, 270, 8])
def test_turned_lines(angle):
    """Read downwards, upside down, upwards and slanting: two views of each with 40 pixels in common."""
    turn = np.deg2rad(angle)
    along, down = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])

    def quad(start: float, end: float) -> np.ndarray:
        return np.concatenate([along * start, along * end, along * end + 20 * down, along * start + 20 * down])

    text = "the quick brown fox jumps"
    parts = [Instance(text[12:], quad=quad(120, 250)), Instance(text[:16], quad=quad(0, 160), score=0.3)]
    line = stitched(parts)
    assert (line.label, line.score) == (text, 0.3)
    assert line.quad == pytest.approx(quad(0, 250))


@pytest.mark.parametrize(
    ("left", "right", "shared", "expected"),
    [
        ("the quick br", "ck brown fox", 5, "the quick brown fox"),
        ("the quick brcv", "ick brown fox", 5, "the quick brown fox"),  # what the border cut is read wrongly
        ("the quick brow", "lck brown fox", 6, "the quick brown fox"),
        ("a b", "b c", 1, "a b c"),
        ("one two", "two", 3, "one two"),
        ("ha ha ha", "ha ha ho", 5, "ha ha ha ho"),
        ("abcxyz", "pqrdef", 3, "abcxrdef"),  # nothing in common: half of what both have read
        ("12", "34", 0, "1234"),
    ],
)
def test_words_of_the_overlap_are_not_doubled(left, right, shared, expected):
    assert joined_words(left, right, shared, shared) == expected


# ---- an answer


def test_an_answer_in_tiles_counts_what_its_parts_count():
    things = scattered(np.random.default_rng(0), 20, (500, 300), 40)
    oracle = Oracle(things)
    result = ask(oracle, (500, 300), (200, 50))
    assert len(oracle.windows) == 7 and oracle.windows[-1] == (0, 0, 500, 300)
    assert (result.parse_errors, result.dropped, result.truncated) == (7, 14, False)
    assert len(result.token_ids) > len(things)


def test_nothing_found_in_any_tile():
    assert not ask(Oracle(), (500, 300), (200, 50)) and not ask(Oracle(), (500, 300), (200, 50), WORDS)


def test_text_is_not_asked_of_the_whole_image():
    oracle = Oracle()
    asked = [Asked(task(name), Prompt(name)) for name in (WORDS, OD, WORDS)]
    [results] = tiled([(canvas(500, 300), asked)], Tiling(300, 50), oracle, False)
    assert [result.task for result in results] == [WORDS, OD, WORDS]
    assert [result.parse_errors for result in results] == [2, 3, 2]


# ---- what can be asked so


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        ((100, 100), r"tile=\(100, 100\): the overlap must be smaller than the size of the tiles"),
        ((100, 200), r"tile=\(100, 200\): the overlap must be smaller"),
        ((0, 0), r"tile=\(0, 0\): the size of the tiles must be at least 1"),
        ((-100, 10), r"tile=\(-100, 10\) must be \(size, overlap\), whole numbers of pixels such as"),
        ((100, -10), "must be"),
        ((100.5, 10), "must be"),
        ((True, False), "must be"),
        (("100", "10"), "must be"),
        ((100,), "must be"),
        (100, "tile=100 must be"),
        ("big", "tile='big' must be"),
    ],
)
def test_wrong_tiles_are_told(tile, message):
    with pytest.raises(ValueError, match=message):
        as_tiling(tile, [task(OD)])


def test_tasks_that_list_places_can_be_tiled():
    able = {"<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>", "<OCR_WITH_REGION>"}
    able |= {"<OPEN_VOCABULARY_DETECTION>", "<REFERRING_EXPRESSION_SEGMENTATION>"}
    for card in tasks():
        if card.name in able:
            assert as_tiling([100, 20], [card]) == (100, 20)
        else:
            with pytest.raises(ValueError, match=f"task {card.name} cannot be asked in tiles.*<OD>.* can$"):
                as_tiling((100, 20), [task(OD), card])


def test_too_many_tiles_are_refused():
    with pytest.raises(ValueError, match=r"tile=\(100, 99\) cuts an image of 1000×500 pixels into 361,301 tiles, more"):
        tile_boxes((1000, 500), Tiling(100, 99))
