"""Scores from hand-made log-probabilities."""

import math

import numpy as np
import pytest

from florence_lite.answers import Instance
from florence_lite.inference.scores import LOWEST, probability, score_instances, score_text

BOX = (0.0, 0.0, 1.0, 1.0)


def item(label: str, start: int, end: int, coords_at: int | None) -> Instance:
    return Instance(label, box=None if coords_at is None else BOX, tokens=(start, end), coords_at=coords_at)


def scores(items, token_probabilities, location_probabilities, near_probabilities=None) -> list[float | None]:
    near = np.ones_like(token_probabilities) if near_probabilities is None else near_probabilities
    scored = score_instances(tuple(items), np.log(token_probabilities), np.log(location_probabilities), np.log(near))
    assert [(i.label, i.box, i.tokens, i.coords_at) for i in scored] == [
        (i.label, i.box, i.tokens, i.coords_at) for i in items
    ]
    return [i.score for i in scored]


# Ids 0–1 a label, 2–5 a box, 6–9 another box; the chosen coordinate alone is rare, any coordinate is likely.
TOKENS = np.array([0.9, 0.4, 0.01, 0.5, 0.5, 0.5, 0.02, 0.5, 0.5, 0.5])
LOCATIONS = np.array([0.1, 0.2, 0.8, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0])
LABEL = math.sqrt(0.9 * 0.4)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], []),
        ([item("dog", 0, 6, 2)], [LABEL * 0.8]),
        ([item("dog", 0, 6, 2), item("dog", 6, 10, 6)], [LABEL * 0.8, LABEL * 0.5]),  # the second shares the label
        ([item("", 2, 6, 2), item("", 6, 10, 6)], [0.8, 0.5]),  # no words anywhere
        ([item("dog", 0, 6, 2), item("", 6, 10, 6)], [LABEL * 0.8, 0.5]),  # words that do not carry over
        ([item("dog", 0, 2, None)], [LABEL]),  # no coordinates
        ([item("dog", 1, 6, 2)], [0.4 * 0.8]),  # a label of one id
        ([Instance("dog", box=BOX)], [None]),  # from nowhere
        ([Instance("dog", box=BOX), item("cat", 1, 6, 2)], [None, 0.4 * 0.8]),
    ],
)
def test_instances(items, expected):
    assert scores(items, TOKENS, LOCATIONS) == [None if e is None else pytest.approx(e) for e in expected]


def test_a_mark_that_opens_a_polygon_counts_itself():
    tokens = np.array([0.5, 0.7, 0.1, 0.1])
    assert scores([item("dog", 0, 4, 1)], tokens, np.array([0.1, 0.2, 1.0, 1.0])) == [pytest.approx(0.5 * 0.7)]


def test_an_unsure_place_lowers_the_score():
    """By the geometric mean over its coordinates, whatever stands between them."""
    near = np.array([np.nan, np.nan, 0.9, 0.5, np.nan, 0.8, 0.4, 1.0, 1.0, 0.25])
    expected = [LABEL * 0.8 * (0.9 * 0.5 * 0.8) ** (1 / 3), LABEL * 0.5 * (0.4 * 0.25) ** (1 / 4)]
    assert scores([item("dog", 0, 6, 2), item("dog", 6, 10, 6)], TOKENS, LOCATIONS, near) == pytest.approx(expected)


@pytest.mark.parametrize("logprob", [-math.inf, -1e9, -50.0, -1e-12, 0.0, 1e-7])
def test_scores_lie_strictly_between_0_and_1(logprob):
    assert 0 < probability(logprob) < 1
    assert isinstance(probability(np.float64(logprob)), float)
    (scored,) = score_instances((item("dog", 0, 2, 1),), *3 * [np.full(2, logprob)])
    assert LOWEST <= scored.score <= 1 - LOWEST


def test_text():
    assert score_text(np.log([0.9, 0.4])) == pytest.approx(LABEL)
    assert score_text(np.log([1.0])) == 1 - LOWEST
    assert score_text(np.array([])) is None
