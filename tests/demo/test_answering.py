"""What the page asks and shows, without the page."""

import json
from pathlib import Path

import numpy as np
import pytest

from florence_lite import Instance, Result
from florence_lite.cards import task, tasks
from florence_lite.demo.answering import (
    FREE,
    LARGEST_SIDE,
    Question,
    Visit,
    answer,
    at_threshold,
    choices,
    clicked,
    first_threshold,
    has_threshold,
    read_region,
    shown,
    taken,
    with_region,
)
from florence_lite.images import load_image

INPUTS = {"text": "a <mask> dog", "phrases": "a dog\n\n  a cat  \n", "region": "5, 6 40 50"}


@pytest.mark.parametrize("marker", [card.name for card in tasks()])
def test_every_task_is_asked_with_the_field_that_it_takes(tiny, photo, marker):
    fields = INPUTS | ({"phrases": "a dog"} if task(marker).input == "phrase" else {})
    visit = Visit()
    *_, last = answer(tiny, visit, photo, Question(marker, **fields), 0.0)
    assert last.record["task"] == marker and last.record == visit.result.to_dict()
    assert len(last.rows) == len(visit.result) and all(len(row) == 6 for row in last.rows)
    assert json.dumps(last.record) and "answered in" in last.note
    assert (fields["phrases"].split("\n")[0] in last.record["presence"]) == (taken(task(marker)) == "phrases")


def test_a_free_sentence_is_the_whole_prompt(tiny, photo):
    *_, last = answer(tiny, Visit(), photo, Question(FREE, text=" what is that? "), 0.0)
    assert last.record["task"] == "what is that?"
    assert set(choices()) == {FREE, *(card.name for card in tasks())}


def test_the_image_is_looked_at_once(tiny, photo, monkeypatch):
    visit, seen = Visit(), []
    encode = tiny.encode
    monkeypatch.setattr(tiny, "encode", lambda image, *rest: seen.append(image) or encode(image, *rest))
    for marker in ("<OD>", "<CAPTION>"):
        *_, last = answer(tiny, visit, photo, Question(marker), 0.0)
    assert seen.count(photo) == 1 and "looked at before" in last.note


def test_answers_grow(nano, lions):
    *growing, last = answer(nano, Visit(), lions, Question("<OD>"), 0.3)
    counts = [len(each.rows) for each in growing]
    assert growing and counts == sorted(counts) and growing[0].record is None
    assert last.rows[: counts[-1]] == growing[-1].rows
    *growing, last = answer(nano, Visit(), lions, Question("<CAPTION>"), 0.3)
    assert all(last.words.startswith(each.words) for each in growing)


@pytest.mark.parametrize(
    ("marker", "phrases"),
    [
        ("<OD>", None),
        ("<OPEN_VOCABULARY_DETECTION>", ["the rabbit", "all lions", "the penguin", "the bus"]),
        ("<REFERRING_EXPRESSION_SEGMENTATION>", ["the rabbit"]),
        ("<REFERRING_EXPRESSION_SEGMENTATION>", ["the penguin"]),
    ],
)
def test_another_threshold_is_as_if_asked_with_it(nano, lions, marker, phrases):
    encoded = nano.encode(lions)
    everything = nano.run(encoded, marker, phrases=phrases, threshold=0.0)
    for threshold in (0.3, 0.9):
        now = at_threshold(everything, threshold)
        asked = nano.run(encoded, marker, phrases=phrases, threshold=threshold)
        assert (now.labels, now.absent) == (asked.labels, asked.absent)
        np.testing.assert_allclose(now.boxes_xyxy, asked.boxes_xyxy, atol=1e-2)
        np.testing.assert_allclose(now.scores, asked.scores, atol=1e-3)


def test_the_threshold_moves_without_asking(tiny, photo):
    result = Result("<OD>", (90, 70), instances=[Instance("dog", (1, 2, 30, 40), score=s) for s in (0.2, 0.8)])
    visit = Visit(result=result, note="n")
    assert shown(Visit(), 0.5) is None
    visit.result = Result(**{**vars(result), "image": tiny.encode(photo).image})
    low, high = shown(visit, 0.1), shown(visit, 0.5)
    assert [len(each.rows) for each in (low, high)] == [2, 1]
    assert high.rows == [["dog", 0.8, 1.0, 2.0, 30.0, 40.0]]
    assert "left out, as they score less: 1" in high.words and high.record["dropped"] == 1


def test_first_thresholds(nano):
    assert first_threshold(nano, task("<OPEN_VOCABULARY_DETECTION>")) == round(nano.calibration.threshold, 2)
    assert 0 < first_threshold(nano, task("<OD>")) < 0.5
    assert has_threshold(task("<OD>")) and not has_threshold(task("<CAPTION>"))


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question("<VQA>"), "needs the field text"),
        (Question("<VQA>", text="  "), "needs the field text"),
        (Question(FREE, text=" "), "needs the field text"),
        (Question("<OPEN_VOCABULARY_DETECTION>", phrases="\n"), "needs the field phrases"),
        (Question("<REFERRING_EXPRESSION_SEGMENTATION>", phrases="a\nb"), "one phrase at a time, but 2"),
        (Question("<OPEN_VOCABULARY_DETECTION>", phrases="a<and>b"), "must be one phrase"),
        (Question("<REGION_TO_CATEGORY>"), "needs the field region, which is empty: click two"),
        (Question("<REGION_TO_CATEGORY>", region="1 2"), "'1 2' must be four numbers"),
        (Question("<REGION_TO_CATEGORY>", region="1 2 3 x"), "must be four numbers"),
        (Question("<REGION_TO_CATEGORY>", region="1 2 900 4"), "900"),
        (Question("<REGION_TO_CATEGORY>", region="nan 1 2 3"), "nan"),
        (Question("<NOTHING>"), "unknown task"),
        (Question("<VQA>", text="why " * 400), "shorten it"),
    ],
)
def test_mistakes_are_told(tiny, photo, question, message):
    with pytest.raises(ValueError, match=message):
        list(answer(tiny, Visit(), photo, question, 0.3))


def test_images_that_cannot_be_read(tiny, photo, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(photo).read_bytes()[:60])
    visit = Visit()
    list(answer(tiny, visit, photo, Question("<OD>"), 0.3))
    for path, message in ((None, "there is no image"), (str(broken), "broken.png")):
        with pytest.raises(ValueError, match=message):
            list(answer(tiny, visit, path, Question("<OD>"), 0.3))
    assert visit.path == "" and visit.encoded is None  # the next question looks again
    with pytest.raises(FileNotFoundError):
        list(answer(tiny, visit, str(tmp_path / "gone.png"), Question("<OD>"), 0.3))


@pytest.mark.parametrize(
    ("region", "click", "after"),
    [
        ("", (7.4, 8), "7 8"),
        ("7 8", (3, 40), "3 8 7 40"),
        ("3 8 7 40", (1, 2), "1 2"),
        ("nonsense here", (1, 2), "1 2"),
        ("7", (1, 2), "1 2"),
    ],
)
def test_two_clicks_make_a_region(region, click, after):
    assert clicked(region, *click) == after


def test_regions_are_read_and_drawn(photo):
    assert read_region("") is None and read_region(" 1, 2.5,3 4 ") == (1, 2.5, 3, 4)
    plain, marked = with_region(photo, "5 6"), with_region(photo, "5 6 40 50")
    assert plain.size == marked.size and max(plain.size) <= LARGEST_SIDE
    assert plain.tobytes() != marked.tobytes()  # the first corner alone is marked too
    assert plain.tobytes() != load_image(photo).tobytes()
