"""Stages that look at one answer alone."""

import pytest

from florence_lite.refine.quality import Errors, Faults, Presence, Repeated, Scores
from tests.refine.answers import failed, item, judged, left, listed, nowhere, query, reasons, said

IMAGE = nowhere()


def test_a_row_that_is_there_twice_stays_once():
    row = listed(IMAGE, item("dog"))
    first, second, other = judged(Repeated(), row, row, said(IMAGE, "a dog"))
    assert (left(first), left(second), other.is_out) == (["dog"], None, False)


def test_a_row_without_an_answer_goes_with_its_error():
    bad, good = judged(Errors(), failed(IMAGE), listed(IMAGE, item("dog"), ask=query("<REGION_PROPOSAL>")))
    assert left(bad) is None and left(good) == ["dog"]
    assert reasons(bad, good) == ["error: it is no image"]


@pytest.mark.parametrize(
    "fault, settings, reason",
    [
        ({"parse_errors": 1}, {}, "parse errors: 1"),
        ({"parse_errors": 1}, {"parse_errors": 1}, None),
        ({"parse_errors": 2}, {"parse_errors": 1}, "parse errors: 2"),
        ({"truncated": True}, {}, "truncated"),
        ({"truncated": True}, {"truncated": True}, None),
        ({"foreign": True}, {}, "foreign picture"),
        ({"foreign": True}, {"foreign": True}, None),
    ],
)
def test_faults(fault, settings, reason):
    [row] = judged(Faults(**settings), listed(IMAGE, item("dog"), **fault))
    assert reasons(row) == ([reason] if reason else []) and row.is_out == bool(reason)


def test_a_phrase_that_finds_nothing_is_not_about_a_foreign_picture():
    [row] = judged(Faults(), listed(IMAGE, ask=query("<OPEN_VOCABULARY_DETECTION>", phrases=("dog",)), foreign=True))
    assert not row.is_out


def test_scores_of_lists_are_judged_one_by_one_and_those_of_words_as_a_whole():
    items = item("sure", score=0.5), item("unsure", score=0.49), item("unknown", score=None)
    boxes, caption, doubtful, region = judged(
        Scores(threshold=0.5),
        listed(IMAGE, *items),
        said(IMAGE, "a dog", score=0.5),
        said(IMAGE, "a dog on grass", "<DETAILED_CAPTION>", score=0.3),
        said(IMAGE, "dog", "<REGION_TO_CATEGORY>", score=0.3, region=(0.0, 0.0, 9.0, 9.0)),
    )
    assert left(boxes) == ["sure", "unknown"] and not caption.is_out and doubtful.is_out and region.is_out
    assert reasons(boxes, doubtful) == ["score: 0.490 is below 0.5", "score: 0.300 is below 0.5"]


def test_a_label_has_its_own_threshold_before_a_task():
    stage = Scores(threshold=0.2, tasks={"<OD>": 0.6}, labels={"Traffic  Light": 0.9})
    boxes, lines = judged(
        stage,
        listed(IMAGE, item("dog", score=0.5), item("dog", score=0.7), item("traffic light", score=0.8)),
        listed(IMAGE, item("dog", score=0.3), ask=query("<REGION_PROPOSAL>")),
    )
    assert [boxes.left[place].score for place in boxes.left] == [0.7] and left(lines) == ["dog"]
    assert stage.told() == []


def test_a_threshold_of_a_label_that_nothing_has_is_told():
    stage = Scores(labels={"dogg": 0.9})
    judged(stage, listed(IMAGE, item("dog")))
    assert "'dogg'" in stage.told()[0]


def test_instances_of_phrases_that_are_unlikely_to_mean_anything_go():
    ask = query("<OPEN_VOCABULARY_DETECTION>", phrases=("dog", "cat"))
    row, outline = judged(
        Presence(),
        listed(IMAGE, item("dog"), item("cat"), ask=ask, presence={"dog": 0.6, "cat": 0.4}),
        listed(IMAGE, item(""), ask=query("<REFERRING_EXPRESSION_SEGMENTATION>", phrases=("x",)), presence={"x": 0.1}),
    )
    assert left(row) == ["dog"] and reasons(row) == ["presence: 0.400 is below 0.5"]
    assert left(outline) == []
