"""Phrases, regions and lines of text found or not, against values worked out by hand."""

import pytest

from florence_lite.answers import Instance
from florence_lite.evaluate.metrics import METRICS
from tests.evaluate.given import found, places, rectangle

A, B = (0, 0, 10, 10), (20, 20, 40, 40)


def metrics(name, *cases):
    return METRICS[name].measure(cases).metrics


@pytest.mark.parametrize(
    "cases, expected",
    [
        ([], None),
        ([places([], [found("", A)])], None),  # means nothing
        ([places([found("", A), found("", B)], [found("", A)])], None),  # means two
        ([places([found("", A)], [])], 0),
        ([places([found("", A)], [Instance("only words")])], 0),
        ([places([found("", A)], [found("", A, 0.1)])], 1),
        ([places([found("", A)], [found("", (0, 0, 10, 5))])], 1),  # IoU 0.5
        ([places([found("", A)], [found("", (0, 0, 10, 4.9))])], 0),
        ([places([found("", A)], [found("", A, 0.1), found("", B, 0.9)])], 0),  # the best score counts
        ([places([found("", A)], [found("", A, 0.5), found("", B, 0.5)])], 1),  # the first of equals
        ([places([found("", A)], [found("", A)]), places([found("", A)], [found("", B)])], 0.5),
    ],
)
def test_accuracy_at_half(cases, expected):
    assert metrics("acc@0.5", *cases) == {"acc@0.5": expected}


@pytest.mark.parametrize(
    "truth, answer, expected",
    [
        ([], [found("dog", A)], None),
        ([found("dog", A)], [], 0),
        ([found("dog", A)], [found("cat", A)], 0),
        ([found("dog", A), found("cat", B)], [found("A dog", A), found("the cat.", B)], 1),
        ([found("dog", A), found("cat", B)], [found("dog", A), found("cat", A)], 0.5),
        ([found("dog", A), found("dog", B)], [found("dog", B)], 1),  # any box of the phrase
        ([found("dog", A)], [found("dog", A, 0.1), found("dog", B, 0.9)], 0),
    ],
)
def test_recall_at_one(truth, answer, expected):
    assert metrics("recall@1", places(truth, answer)) == {"recall@1": expected}


@pytest.mark.parametrize(
    "cases, expected",
    [
        ([], None),
        ([places([found("", A)], [])], None),
        ([places([], [])], 1),
        ([places([], [found("", A)]), places([], []), places([found("", A)], [])], 0.5),
    ],
)
def test_absent_rejected(cases, expected):
    assert metrics("absent_rejected", *cases) == {"absent_rejected": expected}


def outline(*boxes):
    return Instance(polygons=tuple(rectangle(*box) for box in boxes))


@pytest.mark.parametrize(
    "cases, miou, ciou",
    [
        ([], None, None),
        ([places([], [outline(A)])], None, None),
        ([places([outline(A)], [])], 0, 0),
        ([places([outline(A)], [outline(A)])], 1, 1),
        ([places([outline(A), outline(B)], [outline(A, B)])], 1, 1),  # two objects in one answer
        ([places([outline(A)], [outline((0, 0, 10, 5)), outline((0, 4, 10, 8))])], 0.8, 0.8),
        ([places([outline(A)], [outline(A)]), places([outline(B)], [])], 0.5, 100 / 500),
        ([places([outline((1.6, 1.6, 2.4, 2.4))], [])], 0, None),  # holds no centre of a pixel
    ],
)
def test_mask_iou(cases, miou, ciou):
    expected = {"miou": miou, "ciou": ciou}
    assert metrics("miou", *cases) == {k: v if v is None else pytest.approx(v) for k, v in expected.items()}


@pytest.mark.parametrize(
    "truth, answer, expected",
    [
        ([], [], (None, None, None)),
        ([], [found("dog", A)], (0, None, 0)),
        ([found("dog", A)], [], (None, 0, 0)),
        ([found("dog", A)], [Instance("dog")], (None, 0, 0)),  # has no place
        ([found("Dog ", A), found("dog", B)], [found("dog", B, 0.9), found("dog", A, 0.8)], (1, 1, 1)),
        ([found("dog", A)], [found("cat", A)], (0, 0, 0)),
        ([found("dog", A)], [found("dog", (0, 0, 10, 5))], (1, 1, 1)),  # IoU 0.5
        ([found("dog", A)], [found("dog", (0, 0, 10, 4.9))], (0, 0, 0)),
        ([found("dog", A), found("dog", B)], [found("dog", A, 0.5), found("dog", (1, 1, 10, 10), 0.9)], (0.5,) * 3),
        ([found("dog", A), found("cat", A)], [found("cat", A), found("dog", A), found("dog", A)], (2 / 3, 1, 0.8)),
    ],
)
def test_boxes(truth, answer, expected):
    measured = metrics("box_f1", places(truth, answer))
    assert measured == {
        f"box_{part}": value if value is None else pytest.approx(value)
        for part, value in zip(("precision", "recall", "f1"), expected, strict=True)
    }


def line(text, *corners):
    return Instance(text, quad=corners)


SQUARE = (0, 0, 10, 0, 10, 10, 0, 10)
LOWER = (0, 0, 10, 0, 10, 8, 0, 8)
FAR = (50, 50, 60, 50, 60, 60, 50, 60)


@pytest.mark.parametrize(
    "truth, answer, quad, spotting",
    [
        ([], [], (None, None, None), (None, None, None)),
        ([], [line("a", *SQUARE)], (0, None, 0), (0, None, 0)),
        ([line("a", *SQUARE)], [], (None, 0, 0), (None, 0, 0)),
        ([line("Stop now", *SQUARE)], [line("stop  now", *SQUARE)], (1, 1, 1), (1, 1, 1)),
        ([line("stop", *SQUARE)], [line("step", *SQUARE)], (1, 1, 1), (0, 0, 0)),
        ([line("a", *SQUARE)], [line("a", *FAR)], (0, 0, 0), (0, 0, 0)),
        ([line("a", *SQUARE), line("b", *FAR)], [line("a", *SQUARE)], (1, 0.5, 2 / 3), (1, 0.5, 2 / 3)),
        ([line("a", *SQUARE), line("b", *SQUARE)], [line("a", *SQUARE)], (1, 0.5, 2 / 3), (1, 0.5, 2 / 3)),
        ([line("a", *SQUARE)], [line("b", *LOWER), line("a", *SQUARE)], (0.5, 1, 2 / 3), (0.5, 1, 2 / 3)),
        ([line("a", *SQUARE)], [line("a", 5, 0, 10, 5, 5, 10, 0, 5)], (1, 1, 1), (1, 1, 1)),  # a diamond, half of it
        ([line("a", *SQUARE)], [line("a", 0, 0, 10, 10, 10, 0, 0, 10)], (1, 1, 1), (1, 1, 1)),  # crosses itself, half
        ([line("a", *SQUARE)], [line("a", 5, 1, 10, 5, 5, 10, 0, 5)], (0, 0, 0), (0, 0, 0)),  # IoU 0.45
        ([line("a", *SQUARE)], [line("a", 3, 3, 3, 3, 3, 3, 3, 3)], (0, 0, 0), (0, 0, 0)),  # without area
    ],
)  # fmt: skip
def test_quads(truth, answer, quad, spotting):
    pytest.importorskip("shapely", reason="the extra eval is not installed")
    expected = {
        f"{name}_{part}": value if value is None else pytest.approx(value)
        for name, values in (("quad", quad), ("spotting", spotting))
        for part, value in zip(("precision", "recall", "f1"), values, strict=True)
    }
    assert metrics("quad_f1", places(truth, answer)) == expected


@pytest.mark.parametrize(("label", "given"), [("dog", 1), ("", 1), ("cat", 2)])
def test_what_lies_in_something_ignored_is_not_wrong(label, given):
    answer = [found("dog", A), found("dog", (25, 20, 45, 40))]
    measured = metrics("box_f1", places([found("dog", A)], answer, [found(label, B)]))
    assert measured["box_precision"] == pytest.approx(1 / given)
    covered = metrics("box_f1", places([found("dog", A)], [found("dog", A)], [found("dog", (0, 0, 20, 20))]))
    assert covered["box_f1"] == 1  # a true thing within a crowd is right
    apart = metrics("box_f1", places([found("dog", A)], answer, [found("dog", (60, 60, 70, 70))]))
    assert apart["box_precision"] == 0.5


def test_text_that_cannot_be_read_is_not_wrong_to_find():
    lines, illegible = [line("STOP", 0, 0, 40, 0, 40, 10, 0, 10)], [line("", 0, 30, 40, 30, 40, 40, 0, 40)]
    answer = [*lines, line("S?0P", 2, 30, 38, 30, 38, 40, 2, 40)]
    assert metrics("quad_f1", places(lines, answer, illegible))["quad_precision"] == 1
    assert metrics("quad_f1", places(lines, answer))["quad_precision"] == 0.5
