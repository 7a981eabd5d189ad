"""COCO's average precision and recall against values worked out by hand."""

import pytest

pytest.importorskip("faster_coco_eval", reason="the extra eval is not installed")

from florence_lite.answers import Instance
from florence_lite.evaluate.metrics import METRICS
from tests.evaluate.given import found, places, rectangle

A, B, C = (0, 0, 10, 10), (20, 20, 40, 40), (60, 40, 90, 70)
HALF = 51 / 101  # precision 1 at the points of recall 0, 0.01 … 0.5


def measured(name, *cases):
    return METRICS[name].measure(cases)


@pytest.mark.parametrize(
    "cases, ap, ap50, ap75",
    [
        ([], None, None, None),
        ([places([], [])], None, None, None),
        ([places([], [found("dog", A, 0.9)])], None, None, None),
        ([places([found("dog", A)], [])], 0, 0, 0),
        ([places([found("dog", A), found("cat", B)], [found("dog", A, 0.9), found("cat", B, 0.2)])], 1, 1, 1),
        ([places([found("dog", A), found("dog", B)], [found("dog", A, 0.9)])], HALF, HALF, HALF),
        ([places([found("dog", A), found("cat", B)], [found("dog", A, 0.9)])], 0.5, 0.5, 0.5),  # mean over labels
        ([places([found("dog", A)], [found("cat", A, 0.9)])], 0, 0, 0),
        ([places([found("Dog ", A)], [found("dog", A, 0.9)])], 1, 1, 1),
        ([places([found("dog", A)], [found("dog", (0, 0, 10, 6.2), 0.9)])], 0.3, 1, 0),  # IoU 0.62: 0.50, 0.55, 0.60
        # The score decides: a wrong box before or behind the right one.
        ([places([found("dog", A)], [found("dog", B, 0.1), found("dog", A, 0.9)])], 1, 1, 1),
        ([places([found("dog", A)], [found("dog", A, 0.1), found("dog", B, 0.9)])], 0.5, 0.5, 0.5),
        ([places([found("dog", A)], [found("dog", A, 0.5)]), places([], [found("dog", A, 0.9)])], 0.5, 0.5, 0.5),
        # Ties and missing scores: the order of the answer.
        ([places([found("dog", A)], [found("dog", A, 0.5), found("dog", B, 0.5)])], 1, 1, 1),
        ([places([found("dog", A)], [found("dog", B, 0.5), found("dog", A, 0.5)])], 0.5, 0.5, 0.5),
        ([places([found("dog", A)], [found("dog", B), found("dog", A)])], 0.5, 0.5, 0.5),
        # A box that was found already is wrong.
        ([places([found("dog", A), found("dog", B)], [found("dog", A, 0.9), found("dog", A, 0.8)])], HALF, HALF, HALF),
    ],
)
def test_box_ap(cases, ap, ap50, ap75):
    expected = {"ap": ap, "ap50": ap50, "ap75": ap75}
    assert measured("ap", *cases).metrics == {
        name: value if value is None else pytest.approx(value) for name, value in expected.items()
    }


@pytest.mark.parametrize("label, ap", [("dog", 1), ("", 1), ("cat", 0.5)])  # a crowd of dogs, of anything, of others
@pytest.mark.parametrize("crowd", [{"box": (50, 30, 100, 80)}, {"polygons": (rectangle(50, 30, 100, 80),)}])
def test_what_is_found_in_a_crowd_is_neither_right_nor_wrong(label, ap, crowd):
    answer = [found("dog", C, 0.9), found("dog", A, 0.8)]  # C lies in the crowd
    case = places([found("dog", A)], answer, [Instance(label, **crowd)])
    assert measured("ap", case).metrics["ap"] == pytest.approx(ap)
    assert measured("ap_one_class", case).metrics["ap_one_class"] == pytest.approx(1)
    assert measured("ar", case).metrics["ar100"] == 1


def test_a_crowd_alone_is_no_truth():
    assert measured("ap", places([], [found("dog", A, 0.9)], [found("dog", A)])).metrics["ap"] is None


def test_one_class_forgets_the_labels():
    cases = [places([found("dog", A), found("cat", B)], [found("yak", A, 0.9), found("", B, 0.8)])]
    assert measured("ap", *cases).metrics["ap50"] == 0
    assert measured("ap_one_class", *cases).metrics == {
        name: pytest.approx(1) for name in ("ap_one_class", "ap50_one_class", "ap75_one_class")
    }


def test_quads_and_rings_are_measured_by_their_bounds():
    quad = Instance("STOP", quad=(5, 0, 10, 5, 5, 10, 0, 5), score=0.5)
    ring = Instance("dog", polygons=(rectangle(*B),), score=0.5)
    metrics = measured("ap", places([found("STOP", A), found("dog", B)], [quad, ring])).metrics
    assert metrics["ap"] == pytest.approx(1)


@pytest.mark.parametrize(
    "answer, ar1, ar10",
    [
        ([found("dog", A, 0.9), found("dog", B, 0.8)], 0.5, 1),
        ([found("dog", C, 0.9), found("dog", B, 0.8)], 0, 0.5),
        ([], 0, 0),
    ],
)
def test_box_ar(answer, ar1, ar10):
    metrics = measured("ar", places([found("dog", A), found("dog", B)], answer)).metrics
    assert metrics == {name: pytest.approx(value) for name, value in (("ar1", ar1), ("ar10", ar10), ("ar100", ar10))}


@pytest.mark.parametrize(
    "rings, ap, ap75",
    [
        ((rectangle(0, 0, 10, 10), rectangle(2, 2, 6, 6)), 1, 1),
        ((rectangle(0, 0, 10, 10),), 0.7, 1),  # without the hole: IoU 84 / 100, right from 0.50 to 0.80
        ((rectangle(0, 0, 10, 6),), 0.0, 0),  # 60 - 16 of 84: IoU 44 / 100
    ],
)
def test_mask_ap_sees_holes(rings, ap, ap75):
    truth = Instance("ring", polygons=(rectangle(0, 0, 10, 10), rectangle(2, 2, 6, 6)))
    metrics = measured("mask_ap", places([truth], [Instance("ring", polygons=rings, score=0.9)])).metrics
    assert (metrics["mask_ap"], metrics["mask_ap75"]) == (pytest.approx(ap), pytest.approx(ap75))


def test_what_does_not_count_is_told():
    crowd = [found("dog", C, 0.4)] * 101
    case = places([found("dog", A)], [found("dog", A), found("yak", B, 0.5), Instance("only words"), *crowd])
    assert measured("ap", case).notes == (
        "1 of 103 instances have no score and count as score 0, in their order",
        "1 instances have labels that no truth has; COCO leaves them out",
        "1 answers have more than 100 instances of a label; COCO takes the best 100",
    )
    assert measured("ap", places([found("dog", A)], [found("dog", A, 0.5)])).notes == ()
    assert measured("ap", places([], [])).notes == ("no truth has an instance",)
