"""Stages that look at places."""

import pytest

from florence_lite.answers import Instance
from florence_lite.refine.boxes import Slivers, Twins, Whole
from tests.refine.answers import item, judged, left, listed, nowhere, query, reasons

IMAGE = nowhere()  # 100 × 80 pixels


@pytest.mark.parametrize(
    "box, kind",
    [
        ((10, 10, 50, 40), None),
        ((10, 10, 10.4, 40), "sliver, small"),
        ((10, 10, 50, 10.3), "sliver, small"),
        ((10, 10, 10.6, 40), "sliver, thin"),
        ((10, 10, 12, 40), None),
        ((10, 10, 10, 10), "sliver, small"),
    ],
)
def test_slivers(box, kind):
    [row] = judged(Slivers(), listed(IMAGE, item("dog", box)))
    assert (left(row) == ["dog"]) == (kind is None)
    assert [drop.kind for drop in row.drops] == ([kind] if kind else [])


def test_a_line_of_text_may_be_long():
    line = Instance("a long line", quad=(0, 0, 99, 0, 99, 3, 0, 3), score=0.9)
    [row] = judged(Slivers(), listed(IMAGE, line, ask=query("<OCR_WITH_REGION>")))
    assert left(row) == ["a long line"]


def test_outlines_count_with_their_bounds():
    outline = Instance("leash", polygons=(((10, 10), (90, 10), (90, 11)),))
    [row] = judged(Slivers(), listed(IMAGE, outline))
    assert left(row) == []


def test_boxes_of_the_whole_image_go():
    boxes = item("all", (0, 0, 100, 80)), item("most", (0, 0, 100, 77)), item("less", (0, 0, 100, 75))
    [row] = judged(Whole(), listed(IMAGE, *boxes))
    assert left(row) == ["less"]
    assert reasons(row)[0] == "whole image: 1.000 of it, from 0.95 on"


def test_of_twins_the_surer_stays_and_other_labels_are_counted_apart():
    twins = (
        item("dog", (10, 10, 50, 40), 0.6),
        item("dog", (10, 10, 51, 40), 0.7),
        item("wolf", (10, 10, 50, 41), 0.9),
        item("dog", (10, 10, 50, 50), 0.1),
        item("cat", (60, 10, 90, 40), None),
        item("cat", (60, 10, 90, 40), None),
    )
    [row] = judged(Twins(), listed(IMAGE, *twins))
    assert list(row.left) == [2, 3, 4]
    assert sorted((drop.place, drop.kind) for drop in row.drops) == [
        (0, "twin, other label"),
        (1, "twin, other label"),
        (5, "twin, same label"),
    ]


def test_answers_about_a_region_are_left_alone():
    ask = query("<REGION_TO_SEGMENTATION>", region=(0.0, 0.0, 100.0, 80.0))
    for stage in (Slivers(), Whole(), Twins()):
        [row] = judged(stage, listed(IMAGE, item("", (0, 0, 100, 80)), ask=ask))
        assert left(row) == [""]
