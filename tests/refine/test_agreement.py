"""Stages that compare answers."""

import pytest

from florence_lite.refine.agreement import Captions, Opinions, Orphans, Regions
from florence_lite.refine.judged import ImageRows, JudgedRow, Opinion
from florence_lite.refine.stage import Found
from tests.refine.answers import item, judged, left, listed, nowhere, query, reasons, said

IMAGE = nowhere()
A, B, C = (10, 10, 50, 40), (12, 10, 52, 40), (55, 10, 95, 40)


def found(*rows, order=()) -> Found:
    whole = Found(order=order)
    for row in map(JudgedRow.of, rows):
        whole.add(row.task, row.opinion, 1)
    return whole


def agreed(stage, *rows, order=()):
    stage.check(found(*rows, order=order))
    return judged(stage, *rows)


def second(task="<OD>", **more):
    return query(task, "witness", **more)


# ---- two opinions ----------------------------------------------------------------------------------------------------


def test_an_instance_stays_where_another_opinion_has_it_too():
    own = listed(IMAGE, item("dog", A), item("cat", C), item("cow", (0, 0, 20, 20)))
    other = listed(IMAGE, item("Dog", B), item("cat", A), item("horse", (0, 0, 20, 20)), ask=second())
    kept, witness = agreed(Opinions(keep="teacher"), own, other)
    assert left(kept) == ["dog"] and witness.is_out
    assert reasons(kept, witness) == [
        "not confirmed: IoU 0.00 is below 0.5",
        "not confirmed: no other opinion has its label",
        "second opinion: it was asked to confirm another",
    ]


def test_the_opinion_that_the_run_asked_first_stays():
    rows = listed(IMAGE, item("dog", A)), listed(IMAGE, item("dog", B), ask=second())
    stage = Opinions()
    first, other = agreed(stage, *rows, order=[("witness", ""), ("teacher", "")])
    assert first.is_out and left(other) == ["dog"]
    assert stage.told() == ["<OD>: 'witness' stays, confirmed by 'teacher'"]
    first, other = agreed(Opinions(), *rows)
    assert left(first) == ["dog"] and other.is_out


def test_the_same_checkpoint_asked_twice_are_two_opinions():
    tagged = listed(IMAGE, item("dog", B), ask=query(tag="beams"))
    kept, other = agreed(Opinions(), listed(IMAGE, item("dog", A)), tagged)
    assert left(kept) == ["dog"] and other.is_out
    decoded = listed(IMAGE, ask=query(decoding='{"num_beams": 3}'))
    kept, other = agreed(Opinions(keep='teacher {"num_beams": 3}'), listed(IMAGE, item("dog", A)), decoded)
    assert kept.is_out and left(other) == []
    kept, other = agreed(Opinions(), listed(IMAGE, item("dog", A)), decoded)
    assert not kept.is_out and other.is_out  # the plain one stays unless another is named


def test_answers_in_words_agree_by_their_words():
    own = said(IMAGE, "a dog on the grass"), said(IMAGE, "a cat on a table", "<DETAILED_CAPTION>")
    others = (
        said(IMAGE, "a brown dog on grass", checkpoint="witness"),
        said(IMAGE, "two cars", "<DETAILED_CAPTION>", checkpoint="witness"),
    )
    caption, detailed, *_ = agreed(Opinions(), *own, *others)
    assert not caption.is_out and detailed.is_out


def test_long_labels_agree_by_their_words_and_short_ones_as_they_are():
    task = "<DENSE_REGION_CAPTION>"
    own = listed(IMAGE, item("a small brown dog on the left", A), item("red cell", C), ask=query(task))
    other = listed(IMAGE, item("a brown dog at the left side", A), item("white cell", C), ask=second(task))
    kept, _ = agreed(Opinions(), own, other)
    assert left(kept) == ["a small brown dog on the left"]


def test_what_nobody_else_was_asked_stays():
    stage = Opinions()
    caption = said(IMAGE, "a dog")
    region = said(IMAGE, "dog", "<REGION_TO_CATEGORY>", region=tuple(map(float, A)))
    others = said(IMAGE, "dog", "<REGION_TO_CATEGORY>", region=tuple(map(float, B)), checkpoint="witness")
    rows = agreed(stage, caption, region, others, listed(IMAGE, ask=second("<OCR_WITH_REGION>")))
    assert [row.is_out for row in rows] == [False, False, True, False]
    assert "1 of <REGION_TO_CATEGORY>" in stage.told()[-1]


def test_a_witness_that_was_dropped_does_not_count():
    image = ImageRows([JudgedRow.of(listed(IMAGE, item("dog", A))), JudgedRow.of(listed(IMAGE, ask=second()))])
    stage = Opinions()
    stage.check(found(*(row.row for row in image.rows)))
    image.rows[1].drop("faults", "truncated")
    stage.judge(image)
    assert image.rows[0].drops[0].kind == "no second opinion"


@pytest.mark.parametrize("keep, text", [("", "no task has answers of two opinions; there is 'teacher'")])
def test_one_opinion_only(keep, text):
    with pytest.raises(ValueError, match=text):
        agreed(Opinions(keep=keep), listed(IMAGE, item("dog", A)))


def test_an_opinion_that_is_not_there_is_named():
    rows = listed(IMAGE, item("dog", A)), listed(IMAGE, ask=second())
    with pytest.raises(ValueError, match="'nobody' is none of the opinions 'teacher', 'witness'"):
        agreed(Opinions(keep="nobody"), *rows)


def test_opinions_have_the_shortest_names_that_tell_them_apart():
    whole = Found(order=(("b", ""),))
    for opinion in (Opinion("a", "1", "{}", ""), Opinion("b", "2", "{}", ""), Opinion("a", "1", "{}", "x")):
        whole.add("<OD>", opinion, 1)
    assert list(whole.names("<OD>").values()) == ["b", "a", "a x"]
    whole.add("<OD>", Opinion("b", "3", "{}", ""), 1)
    assert "b 3 {}" in whole.names("<OD>").values()


# ---- two tasks -------------------------------------------------------------------------------------------------------


def test_objects_that_no_caption_mentions_go():
    boxes, *_ = agreed(
        Captions(words={"person": ["man", "woman"]}),
        listed(IMAGE, item("dog", A), item("Person", B), item("cat", C)),
        said(IMAGE, "a man with two dogs"),
        said(IMAGE, "a man walks", "<DETAILED_CAPTION>"),
    )
    assert left(boxes) == ["dog", "Person"] and reasons(boxes) == ["not in a caption: 'cat'"]


def test_without_a_caption_left_nothing_is_confirmed():
    image = ImageRows([JudgedRow.of(listed(IMAGE, item("dog", A))), JudgedRow.of(said(IMAGE, "a dog"))])
    stage = Captions()
    stage.check(found(*(row.row for row in image.rows)))
    image.rows[1].drop("scores", "score")
    stage.judge(image)
    assert reasons(image.rows[0]) == ["no caption left: 'dog'"]


@pytest.mark.parametrize(
    "stage, text",
    [
        (Captions(), "no row is a caption"),
        (Captions(tasks=["<ODD>"]), r"captions.tasks: no row is of the task '<ODD>'; did you mean '<OD>'\?"),
        (Regions(), "regions.by: no row is of the task '<REGION_TO_CATEGORY>'.*the tasks are <OD>"),
    ],
)
def test_tasks_that_are_absent_are_named(stage, text):
    with pytest.raises(ValueError, match=text):
        agreed(stage, listed(IMAGE, item("dog", A)))


def asked(text, box, task="<REGION_TO_CATEGORY>"):
    return said(IMAGE, text, task, region=tuple(map(float, box)))


def test_boxes_that_are_called_otherwise_when_asked_about_go_and_so_do_the_answers():
    rows = agreed(
        Regions(),
        listed(IMAGE, item("dog", A), item("cat", C), item("red car", (0, 0, 30, 30)), item("cow", (60, 50, 90, 70))),
        asked("Dog", A),
        asked("sofa", C),
        asked("car", (0, 0, 30, 30)),
        asked("bird", (70, 0, 80, 10)),
    )
    assert left(rows[0]) == ["dog", "red car"]
    assert reasons(rows[0]) == ["called otherwise: 'cat' is 'sofa'", "no answer about it"]
    assert [row.is_out for row in rows[1:]] == [False, True, False, False]


def test_answers_about_boxes_and_captions_that_are_gone_go():
    image = ImageRows(
        [
            JudgedRow.of(row)
            for row in (
                listed(IMAGE, item("dog", A), item("cat", C)),
                asked("dog", A),
                asked("cat", C),
                asked("", C, "<REGION_TO_SEGMENTATION>"),
                asked("bird", (70, 0, 80, 10)),
                said(IMAGE, "a cat"),
                listed(IMAGE, item("cat", C), ask=query("<CAPTION_TO_PHRASE_GROUNDING>", text="a cat")),
                listed(IMAGE, ask=query("<CAPTION_TO_PHRASE_GROUNDING>", text="a cow")),
            )
        ]
    )
    boxes, dog, cat, outline, bird, caption, grounded, own = image.rows
    boxes.drop("scores", "score", place=1)
    grounded.drop("scores", "score", place=0)
    caption.drop("scores", "score")
    Orphans().judge(image)
    assert [row.is_out for row in (dog, cat, outline, bird, grounded, own)] == [False, True, True, False, True, False]
    assert reasons(cat, grounded)[0] == "its box is gone"
