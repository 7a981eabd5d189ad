"""Intervals of measured figures."""

import math
import statistics

import pytest

from florence_lite.evaluate.margins import GROUPS, margins


def mean(cases):
    return {"mean": sum(cases) / len(cases)}


def test_of_a_mean_it_is_the_usual_interval():
    """Student's t over the means of the groups, which have all the same size."""
    parts = [[float(place**2 % 17)] * 3 for place in range(GROUPS)]
    usual = 2.093 * statistics.stdev(each for each, *_ in parts) / math.sqrt(GROUPS)
    assert margins(mean, parts) == {"mean": pytest.approx(usual)}


def test_images_that_say_the_same_leave_no_doubt():
    assert margins(mean, [[0.5]] * 100) == {"mean": 0}


def test_what_cannot_be_told():
    assert margins(mean, [[1.0]] * (GROUPS - 1)) == {}
    parts = [[float(place)] for place in range(GROUPS)]
    assert margins(lambda cases: {"mean": None if 3.0 not in cases else 1.0}, parts) == {"mean": None}


def test_a_figure_that_moves_in_steps_has_no_margin():
    def both(cases):
        return mean(cases) | {"ap50_one_class": mean(cases)["mean"]}

    found = margins(both, [[float(place)] for place in range(GROUPS)])
    assert found["ap50_one_class"] is None and found["mean"] > 0
