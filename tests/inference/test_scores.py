"""Scores from hand-made log-probabilities."""

import math

import numpy as np
import pytest

from florence_lite.answers import Instance
from florence_lite.inference.scores import LOWEST, average_boxes, score_instances, score_words

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
LABEL = 0.4  # the less likely half


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


def test_what_opens_the_coordinates_counts_itself():
    """`<poly>` by its own probability, a location by that of all locations, whichever of the two is likelier."""
    for own, locations in ((0.7, 0.2), (0.2, 0.7)):
        near = np.array([np.nan, np.nan, 1.0, 1.0])  # the second id is no location
        tokens, any_location = np.array([0.5, own, 0.1, 0.1]), np.array([0.1, locations, 1.0, 1.0])
        assert scores([item("dog", 0, 4, 1)], tokens, any_location, near) == [pytest.approx(0.5 * own)]
        near[1] = 1.0  # it is one
        assert scores([item("dog", 0, 4, 1)], tokens, any_location, near) == [pytest.approx(0.5 * locations)]


def test_all_four_coordinates_of_a_box_must_lie_in_place():
    """Of a shape with more or fewer, four average ones, whatever stands between them."""
    near = np.array([np.nan, np.nan, 0.9, 0.5, np.nan, 0.8, 0.4, 1.0, 1.0, 0.25])
    expected = [LABEL * 0.8 * (0.9 * 0.5 * 0.8) ** (4 / 3), LABEL * 0.5 * 0.4 * 0.25]
    assert scores([item("dog", 0, 6, 2), item("dog", 6, 10, 6)], TOKENS, LOCATIONS, near) == pytest.approx(expected)


@pytest.mark.parametrize("logprob", [-math.inf, -1e9, -50.0, -1e-12, 0.0, 1e-7])
def test_scores_lie_strictly_between_0_and_1(logprob):
    (scored,) = score_instances((item("dog", 0, 2, 1),), *3 * [np.full(2, logprob)])
    for score in (scored.score, score_words(np.full(3, logprob))):
        assert isinstance(score, float)
        assert LOWEST <= score <= 1 - LOWEST


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([], None),
        ([0.3], 0.3),
        ([0.3, 0.9], 0.3),
        ([0.9, 0.3, 0.5], 0.4),
        ([0.99, 0.3, 1.0, 0.5], 0.4),
        ([1.0] * 6, 1 - LOWEST),
    ],
)
def test_words_are_as_sure_as_their_less_likely_half(probabilities, expected):
    assert score_words(np.log(probabilities)) == (None if expected is None else pytest.approx(expected))


def test_the_length_of_an_answer_does_not_lower_its_score():
    for probabilities in ([0.6], [0.6, 0.9], [0.6, 0.9, 0.2, 0.9]):
        assert score_words(np.log(probabilities * 20)) == pytest.approx(score_words(np.log(probabilities)))


def test_one_forced_id_does_not_decide_a_score():
    free = score_words(np.log([0.8, 0.9] * 10))
    assert score_words(np.log([0.8, 0.9] * 9 + [0.8, 1e-9])) > 0.85 * free


def test_a_likelier_id_never_lowers_a_score():
    generator = np.random.default_rng(0)
    for _ in range(200):
        before = np.log(generator.uniform(0.01, 0.9, generator.integers(1, 12)))
        after = before.copy()
        after[generator.integers(len(after))] += 0.1
        assert score_words(after) >= score_words(before)


def test_boxes_at_the_edge_stay_in_the_image_and_noise_moves_them_little():
    means = np.array([np.nan, 0.0, 4.5, 9.0, 9.0])
    [edge] = average_boxes((item("dog", 0, 5, 1),), means, (20, 10), 10)
    assert edge.box == (1, 5, 19, 9.5)
    [noisy] = average_boxes((item("dog", 0, 5, 1),), means + 1e-7, (20, 10), 10)
    assert noisy.box == pytest.approx(edge.box, abs=1e-5)


def test_the_presence_of_a_phrase_scores_its_first_instance():
    """In the place of the words and of the chance that coordinates begin: the same question, calibrated."""
    near = np.array([np.nan, np.nan, *[0.9] * 8])
    items = (item("dog", 0, 6, 2), item("dog", 6, 10, 6))
    scored = score_instances(items, np.log(TOKENS), np.log(LOCATIONS), np.log(near), presence=0.3)
    assert [each.score for each in scored] == pytest.approx([0.3 * 0.9**4, LABEL * 0.5 * 0.9**4])


def test_boxes_lie_at_the_means_of_their_coordinates():
    """Between the centres of bins too, with corners in order; what is no box, or has no known place, stays."""
    nan = np.nan
    means = np.array([nan, 3.4, 2.6, 8.5, 9.0, nan, 7.0, 5.0, 6.0, 6.0])
    quad = Instance("text", quad=(0, 0, 1, 0, 1, 1, 0, 1), tokens=(1, 5), coords_at=1)
    items = (item("dog", 0, 5, 1), item("dog", 6, 10, 6), Instance("dog", box=BOX), quad, item("dog", 0, 1, None))
    moved = average_boxes(items, means, (20, 10), 10)
    assert moved[0].box == pytest.approx((7.8, 3.1, 18, 9.5)) and moved[1].box == (13, 5.5, 15, 6.5)
    assert moved[2:] == items[2:]
    assert [(each.label, each.tokens, each.coords_at) for each in moved] == [
        (each.label, each.tokens, each.coords_at) for each in items
    ]
    faulty = average_boxes((item("dog", 0, 7, 1),), means, (20, 10), 10)  # five numbers: something stood between
    assert faulty[0].box == BOX
