"""Answers about pictures that a checkpoint knows nothing about."""

from types import SimpleNamespace

import pytest

from florence_lite.answers import Answer, Instance
from florence_lite.inference.answering import joined
from florence_lite.inference.domain import UNSURE, is_foreign
from florence_lite.results import Result

NARROW = SimpleNamespace(for_photographs="org/name")
LOW, HIGH = UNSURE - 0.01, UNSURE


def boxes(*scores):
    return Answer(instances=[Instance("dog", box=(0, 0, 1, 1), score=score) for score in scores])


@pytest.mark.parametrize(
    ("answer", "score", "foreign"),
    [
        (boxes(LOW, 0.01), None, True),
        (boxes(LOW, HIGH), None, False),
        (boxes(), None, False),  # nothing is claimed
        (boxes(None), None, False),  # nothing was measured
        (Answer("a dog"), LOW, True),
        (Answer("a dog"), HIGH, False),
        (Answer("a dog"), None, False),
    ],
)
def test_foreign_is_where_nothing_is_sure(answer, score, foreign):
    assert is_foreign(NARROW, answer, score) == foreign
    assert not is_foreign(SimpleNamespace(for_photographs=""), answer, score)
    assert not is_foreign(None, answer, score)


@pytest.mark.parametrize(
    ("parts", "foreign"),
    [([(True, 1), (True, 2)], True), ([(True, 1), (False, 1)], False), ([(True, 1), (False, 0)], True)],
)
def test_joined_answers_are_foreign_where_all_that_found_something_are(parts, foreign):
    item = Instance("dog", box=(0, 0, 1, 1), score=0.1, tokens=(0, 1))
    results = [
        Result("<OD>", (9, 9), instances=[item] * count, foreign=each, token_logprobs=()) for each, count in parts
    ]
    assert joined(results).foreign == foreign
