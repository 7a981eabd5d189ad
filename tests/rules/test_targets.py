"""What training has the model write for every task, on an image annotated by hand."""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest

from florence_lite.answers import Answer, Instance
from florence_lite.cards import TaskCard, register_task, task
from florence_lite.data.annotation import (
    Annotation,
    ObjectAnnotation,
    Question,
    ReferringExpression,
    Region,
    Stuff,
    TextLine,
)
from florence_lite.data.augment import Turn, turned
from florence_lite.geometry import dequantize, even_outlines, quantize
from florence_lite.rules import draw, pairs, tasks_with_rules, thinned
from florence_lite.tokens import Codec
from tests.data.annotated import ANNOTATED, DOOR, LEFT_DOG, RIGHT_DOG, SIZE, STOP, rectangle

OBJECTS = ANNOTATED.objects
LEFT_TO_RIGHT = (LEFT_DOG, DOOR, RIGHT_DOG)
STOP_BOX = (62.0, 50.0, 99.0, 68.0)
MILES_BOX = (0.0, 70.0, 40.0, 80.0)  # the line leaves the image on two sides


class Target(NamedTuple):
    """An answer to write, its outlines thinned, and the inputs of its prompt."""

    answer: Answer
    inputs: dict = {}


def boxes(*labels_and_objects) -> Answer:
    return Answer(instances=tuple(Instance(label, box=item.box) for label, item in labels_and_objects))


def region(label: str, box) -> Target:
    return Target(Answer(instances=(Instance(label, box=box),)), {"region": box})


def outline(*objects: ObjectAnnotation) -> Answer:
    return Answer(instances=(Instance(polygons=tuple(ring for item in objects for ring in item.polygons)),))


EXPECTED = {  # every target that may be drawn
    "<CAPTION>": [Target(Answer(ANNOTATED.captions[0]))],
    "<DETAILED_CAPTION>": [Target(Answer(ANNOTATED.captions[1]))],
    "<MORE_DETAILED_CAPTION>": [Target(Answer(ANNOTATED.captions[2]))],
    "<OD>": [Target(boxes(*((item.label, item) for item in LEFT_TO_RIGHT)))],
    "<DENSE_REGION_CAPTION>": [Target(boxes(*((item.phrase, item) for item in LEFT_TO_RIGHT)))],
    "<REGION_PROPOSAL>": [Target(boxes(*(("", item) for item in LEFT_TO_RIGHT)))],
    "<CAPTION_TO_PHRASE_GROUNDING>": [
        Target(boxes(("door", DOOR), ("dog", LEFT_DOG), ("dog", RIGHT_DOG)), {"text": "a door and a dog"})
    ],
    "<OPEN_VOCABULARY_DETECTION>": [
        Target(boxes(("the door", DOOR)), {"phrases": ("the door",)}),
        Target(boxes(("all dogs", LEFT_DOG), ("all dogs", RIGHT_DOG)), {"phrases": ("all dogs",)}),
        Target(Answer(), {"phrases": ("the cat",)}),
        Target(boxes(*(("everything", item) for item in LEFT_TO_RIGHT)), {"phrases": ("everything",)}),
    ],
    "<REFERRING_EXPRESSION_SEGMENTATION>": [  # not of three objects: too many points
        Target(outline(DOOR), {"text": "the door"}),
        Target(outline(LEFT_DOG, RIGHT_DOG), {"text": "all dogs"}),
        Target(Answer(), {"text": "the cat"}),
    ],
    "<REGION_TO_SEGMENTATION>": [Target(outline(item), {"region": item.box}) for item in OBJECTS],
    "<REGION_TO_CATEGORY>": [region(item.label, item.box) for item in OBJECTS],
    "<REGION_TO_DESCRIPTION>": [region(item.phrase, item.box) for item in OBJECTS],
    "<REGION_TO_OCR>": [region("STOP", STOP_BOX), region("5 miles", MILES_BOX)],
    "<OCR>": [Target(Answer("STOP 5 miles"))],
    "<OCR_WITH_REGION>": [
        Target(Answer(instances=tuple(Instance(line.text, quad=line.quad) for line in ANNOTATED.lines)))
    ],
    "<VQA>": [Target(Answer(q.answer), {"text": q.question}) for q in ANNOTATED.questions],
    "<IMAGE_TEXT_MATCHING>": [Target(Answer("yes"), {"text": caption}) for caption in ANNOTATED.captions[:2]],
    "<INFILLING>": [
        Target(Answer(instances=tuple(map(Instance, words))), {"text": text})
        for text, *words in (
            ("a <mask> and a dog", "door"),
            ("a <mask> and a <mask>", "door", "dog"),
            ("a door and a <mask>", "dog"),
            ("a <mask>, a dog and a dog", "door"),
            ("a <mask>, a <mask> and a dog", "door", "dog"),
            ("a door, a <mask> and a dog", "dog"),
            ("a door, a <mask> and a <mask>", "dog", "dog"),
            ("a door, a dog and a <mask>", "dog"),
        )
    ],
}


def target(name: str, annotation: Annotation, seed: int) -> Target | None:
    found = draw(pairs(name, annotation), np.random.default_rng(seed))
    return found and Target(thinned(found[1], annotation.size_wh), found[0].inputs)


def drawn(name: str, annotation: Annotation = ANNOTATED) -> list[Target | None]:
    return [target(name, annotation, seed) for seed in range(48)]


def test_every_task_has_a_rule():
    assert set(tasks_with_rules()) >= set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_targets(name):
    """Every one of them is drawn sometime, and nothing else; answers are compared as sets of shapes."""
    found = drawn(name)
    assert all(item in EXPECTED[name] for item in found)
    assert all(item in found for item in EXPECTED[name])


@pytest.mark.parametrize("name", EXPECTED)
def test_the_same_seed_draws_the_same(name):
    assert drawn(name) == drawn(name)


def at_bins(answer: Answer, bins: int) -> Answer:
    """The answer with every coordinate in the middle of its bin."""

    def snap(points):
        return dequantize(quantize(np.reshape(points, (-1, 2)), SIZE, bins), SIZE, bins)

    instances = []
    for item in answer.instances:
        rings = tuple(tuple(map(tuple, snap(ring))) for ring in item.polygons)
        box = None if item.box is None else tuple(snap(item.box).ravel())
        quad = None if item.quad is None else tuple(snap(item.quad).ravel())
        instances.append(Instance(item.label, box, quad, rings))
    return dataclasses.replace(answer, instances=tuple(instances))


@pytest.mark.parametrize("name", EXPECTED)
def test_parsing_the_serialized_target_gives_it_back(toy_tokenizer, name):
    codec, card = Codec(toy_tokenizer), task(name)
    for item in EXPECTED[name]:
        ids = codec.serialize(item.answer, card.grammar, SIZE)
        parsed = codec.parse([0, *ids, 2], card.grammar, SIZE)
        expected = at_bins(item.answer, toy_tokenizer.vocabulary.bins)
        if card.grammar == "region_text":
            expected = dataclasses.replace(expected, text=expected.instances[0].label)
        assert parsed == expected


@pytest.mark.parametrize("name", EXPECTED)
def test_the_card_takes_the_inputs(name):
    for item in EXPECTED[name]:
        sentence = task(name).prompt(
            item.inputs.get("text"), item.inputs.get("phrases"), item.inputs.get("region"), SIZE
        )
        assert "{" not in sentence and item.inputs.get("text", "") in sentence
        assert len(item.inputs) == (task(name).input != "none")


def labels(drawn_target: Target) -> list[str]:
    return [item.label for item in drawn_target.answer.instances]


IN_A_ROW = Annotation(  # not in the order from left to right
    SIZE,
    tuple(
        ObjectAnnotation(label, box, (rectangle(*box),), phrase=f"the {label}")
        for label, box in {
            "low": (10.0, 50.0, 20.0, 60.0),
            "last": (80.0, 0.0, 90.0, 10.0),
            "first": (5.0, 60.0, 50.0, 70.0),
            "high": (10.0, 20.0, 90.0, 30.0),
        }.items()
    ),
    lines=(STOP, TextLine("far left", (0, 0, 9, 0, 9, 9, 0, 9))),
    captions=("low, last, first and high",),
    expressions=(ReferringExpression("all", (1, 0, 2, 3)),),
)


@pytest.mark.parametrize("name", ["<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>", "<OPEN_VOCABULARY_DETECTION>"])
def test_instances_go_from_left_to_right_then_down(name):
    assert task(name).order == "left to right"
    (found,) = {item.answer.instances for item in drawn(name, IN_A_ROW)}
    in_order = [IN_A_ROW.objects[i] for i in (2, 3, 0, 1)]
    assert [item.box for item in found] == [item.box for item in in_order]
    named = {"<OD>": [item.label for item in in_order], "<DENSE_REGION_CAPTION>": [item.phrase for item in in_order]}
    named["<OPEN_VOCABULARY_DETECTION>"] = ["all"] * 4
    assert [item.label for item in found] == named.get(name, [""] * 4)


@pytest.mark.parametrize("turn", Turn, ids=lambda turn: turn.name)
def test_turned_images_are_told_from_left_to_right_too(turn):
    unworded = Annotation(SIZE, tuple(dataclasses.replace(item, phrase="") for item in IN_A_ROW.objects))
    found = drawn("<OD>", turned(unworded, turn))[0].answer.instances
    assert [item.box[:2] for item in found] == sorted(item.box[:2] for item in found)
    assert sorted(item.label for item in found) == ["first", "high", "last", "low"]


def test_mirrored_images_are_told_the_other_way():
    unworded = Annotation(SIZE, tuple(dataclasses.replace(item, phrase="") for item in IN_A_ROW.objects))
    mirrored = turned(unworded, Turn.FLIP_LEFT_RIGHT)
    assert labels(drawn("<OD>", mirrored)[0]) == ["last", "high", "first", "low"]


def test_other_answers_keep_the_order_that_is_given():
    assert {task(name).order for name in EXPECTED} == {"given", "left to right"}
    assert labels(drawn("<CAPTION_TO_PHRASE_GROUNDING>", IN_A_ROW)[0]) == ["low", "last", "first", "high"]
    assert labels(drawn("<OCR_WITH_REGION>", IN_A_ROW)[0]) == ["STOP", "far left"]
    assert drawn("<OCR>", IN_A_ROW)[0].answer.text == "STOP far left"


def test_the_card_decides_on_the_order(own_tasks):
    register_task(dataclasses.replace(task("<OD>"), name="<AS_GIVEN>", order="given"))
    assert labels(drawn("<AS_GIVEN>", IN_A_ROW)[0]) == ["low", "last", "first", "high"]
    register_task(dataclasses.replace(task("<CAPTION_TO_PHRASE_GROUNDING>"), name="<ORDERED>", order="left to right"))
    assert labels(drawn("<ORDERED>", IN_A_ROW)[0]) == ["first", "high", "low", "last"]


def test_an_image_without_annotations():
    """Lists are empty; what cannot be asked without a caption, an object, a line or a question is left out."""
    told = {name for name in EXPECTED if target(name, Annotation(SIZE), 0) is not None}
    assert told == {"<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>", "<OCR>", "<OCR_WITH_REGION>"}
    for name in told:
        assert target(name, Annotation(SIZE), 0) == Target(Answer())


def test_partial_annotations():
    bare = Annotation(SIZE, (ObjectAnnotation("dog", LEFT_DOG.box),), captions=("a hat",))
    assert drawn("<DENSE_REGION_CAPTION>", bare)[0] == Target(boxes(("dog", LEFT_DOG)))  # the label stands in
    assert drawn("<REGION_TO_DESCRIPTION>", bare)[0] is None
    assert drawn("<REGION_TO_SEGMENTATION>", bare)[0] is None  # no outline
    assert drawn("<DETAILED_CAPTION>", bare)[0] is None
    assert drawn("<CAPTION_TO_PHRASE_GROUNDING>", bare)[0] == Target(Answer(), {"text": "a hat"})


@pytest.mark.parametrize(
    ("caption", "label", "words"),
    [
        ("a woman waits", "man", []),
        ("scattered toys", "cat", []),
        ("A Dog barks.", "dog", ["Dog"]),
        ("three dogs", "dog", ["dogs"]),
        ("two boxes", "box", ["boxes"]),
        ("a hot dog, cut", "hot dog", ["hot dog"]),
        ("a dog", "hot dog", []),
        ("a C++ book", "C++", ["C++"]),
        ("a dog", "", []),
    ],
)
def test_grounding_finds_labels_as_they_stand_in_the_caption(caption, label, words):
    annotation = Annotation(SIZE, (ObjectAnnotation(label, LEFT_DOG.box, phrase="it"),), captions=(caption,))
    (found, *_) = drawn("<CAPTION_TO_PHRASE_GROUNDING>", annotation)
    assert labels(found) == words


def test_an_object_without_a_label():
    """It is a proposal and may be described; no answer of labelled boxes is made of it."""
    annotation = Annotation(SIZE, (ObjectAnnotation("", LEFT_DOG.box), DOOR))
    assert drawn("<OD>", annotation)[0] is None and drawn("<DENSE_REGION_CAPTION>", annotation)[0] is None
    assert len(drawn("<REGION_PROPOSAL>", annotation)[0].answer.instances) == 2


def test_outlines_are_even():
    """Slivers, nowhere wider than 1.5 % of the shorter side, go altogether."""
    wavy = ((5.0, 10.0), (20.0, 11.0), (35.0, 10.0), (35.0, 40.0), (20.0, 45.0), (5.0, 40.0))
    sliver = ((10.0, 20.0), (30.0, 20.5), (30.0, 21.0))
    item = dataclasses.replace(LEFT_DOG, polygons=(wavy, sliver))
    (drawn_target, *_) = drawn("<REGION_TO_SEGMENTATION>", Annotation(SIZE, (item,)))
    (instance,) = drawn_target.answer.instances
    assert instance.polygons == tuple(tuple(map(tuple, ring.tolist())) for ring in even_outlines([wavy], SIZE))
    only_sliver = Annotation(SIZE, (dataclasses.replace(LEFT_DOG, polygons=(sliver,)),))
    assert drawn("<REGION_TO_SEGMENTATION>", only_sliver)[0].answer == Answer()


def test_quads_stay_as_they_are():
    assert drawn("<OCR_WITH_REGION>")[0].answer.instances[0].quad == STOP.quad


@pytest.mark.parametrize(
    ("exhaustive", "unknown"),
    [
        ({"objects"}, {"<OCR>", "<OCR_WITH_REGION>"}),
        ({"lines"}, {"<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>", "<CAPTION_TO_PHRASE_GROUNDING>"}),
    ],
)
def test_what_asks_for_all_needs_a_complete_list(exhaustive, unknown):
    """A data set of boxes does not teach that its photos hold no words."""
    partial = dataclasses.replace(ANNOTATED, exhaustive=frozenset(exhaustive))
    assert {name for name in EXPECTED if drawn(name, partial)[0] is None} == unknown


@pytest.mark.parametrize(
    "task", ["<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>", "<CAPTION_TO_PHRASE_GROUNDING>"]
)
def test_an_image_with_something_ignored_does_not_teach_what_is_not_there(task):
    crowded = dataclasses.replace(ANNOTATED, ignored=(ObjectAnnotation("dog", (1.0, 1.0, 9.0, 9.0)),))
    assert drawn(task)[0] is not None and drawn(task, crowded)[0] is None
    assert drawn("<REGION_TO_CATEGORY>", crowded)[0] is not None  # what does not ask for all


def test_text_that_cannot_be_read_is_no_part_of_the_answer():
    illegible = dataclasses.replace(ANNOTATED, ignored_lines=(dataclasses.replace(STOP, text=""),))
    for name in ("<OCR>", "<OCR_WITH_REGION>"):
        assert drawn(name, illegible)[0].answer == drawn(name)[0].answer


def test_captions_that_are_unknown():
    annotation = Annotation(SIZE, captions=("", "a door, a dog and a dog"))
    assert drawn("<CAPTION>", annotation)[0] is None
    assert drawn("<CAPTION_TO_PHRASE_GROUNDING>", annotation)[0] is None
    assert drawn("<DETAILED_CAPTION>", annotation)[0].answer.text == "a door, a dog and a dog"


def test_one_of_several_sentences_is_drawn():
    annotation = Annotation(SIZE, captions=("a", "detailed"), more_captions=("b", "c"))
    assert {item.answer.text for item in drawn("<CAPTION>", annotation)} == {"a", "b", "c"}
    assert {item.answer.text for item in drawn("<DETAILED_CAPTION>", annotation)} == {"detailed"}


def test_regions_are_described():
    annotation = Annotation(SIZE, (LEFT_DOG,), regions=(Region("a lawn", (0.0, 40.0, 100.0, 80.0)),))
    found = drawn("<REGION_TO_DESCRIPTION>", annotation)
    assert {item.answer.instances[0].label for item in found} == {LEFT_DOG.phrase, "a lawn"}


def test_a_third_of_the_phrases_mean_nothing_where_there_are_both_kinds():
    """However many there are of each; drawn evenly it would be nine in ten here."""
    absent = tuple(ReferringExpression(f"cat {n}") for n in range(9))
    annotation = dataclasses.replace(ANNOTATED, expressions=(ReferringExpression("the door", (2,)), *absent))
    for name in ("<OPEN_VOCABULARY_DETECTION>", "<REFERRING_EXPRESSION_SEGMENTATION>"):
        found = [target(name, annotation, seed).answer.instances for seed in range(400)]
        assert np.mean([not instances for instances in found]) == pytest.approx(1 / 3, abs=0.07)
    only = dataclasses.replace(ANNOTATED, expressions=absent)
    assert {item.answer for item in drawn("<OPEN_VOCABULARY_DETECTION>", only)} == {Answer()}


def test_every_answer_to_a_question_is_drawn_evenly():
    """Nine annotators of ten say yes, and so do nine targets of ten; the other question has its share."""
    asked = (*[Question("is it red?", "yes")] * 9, Question("is it red?", "no"), *[Question("how many?", "2")] * 10)
    found = [target("<VQA>", Annotation(SIZE, questions=asked), seed) for seed in range(400)]
    share = {text: np.mean([item.answer.text == text for item in found]) for text in ("yes", "no", "2")}
    assert share == {
        "yes": pytest.approx(0.45, abs=0.08),
        "no": pytest.approx(0.05, abs=0.04),
        "2": pytest.approx(0.5, abs=0.08),
    }


def test_regions_are_cut_at_the_border_of_the_image():
    """In the prompt and in the answer."""
    wide = Annotation(SIZE, (ObjectAnnotation("dog", (-5.0, 10.0, 120.0, 90.0)),))
    assert target("<REGION_TO_CATEGORY>", wide, 0) == region("dog", (0.0, 10.0, 100.0, 80.0))


def test_the_form_of_the_answer_decides_what_is_written(own_tasks):
    """A rule that gives texts serves a task of prose and one of words about a region."""
    register_task(
        TaskCard("<WHAT>", "what it is", "What is at {input}?", "text", input="region", rule="regions.labels")
    )
    assert target("<WHAT>", Annotation(SIZE, (LEFT_DOG,)), 0) == Target(Answer("dog"), {"region": LEFT_DOG.box})
    assert target("<REGION_TO_CATEGORY>", Annotation(SIZE, (LEFT_DOG,)), 0) == region("dog", LEFT_DOG.box)


def test_sentences_that_are_wrong_do_not_match():
    annotation = Annotation(SIZE, captions=("a dog",), wrong_captions=("a cat",))
    found = drawn("<IMAGE_TEXT_MATCHING>", annotation)
    assert {(item.inputs["text"], item.answer.text) for item in found} == {("a dog", "yes"), ("a cat", "no")}


def test_names_of_categories_are_phrases_where_nothing_else_names_the_objects():
    known = dataclasses.replace(ANNOTATED, expressions=())
    found = {pair.inputs["phrases"]: len(pair.instances) for pair in pairs("<OPEN_VOCABULARY_DETECTION>", known)}
    assert found == {("dog",): 2, ("door",): 1}
    some = dataclasses.replace(known, exhaustive=frozenset())
    assert not pairs("<OPEN_VOCABULARY_DETECTION>", some)


def test_stuff_is_outlined_by_its_name():
    sky = Stuff("sky", (((0.0, 0.0), (100.0, 0.0), (100.0, 30.0), (0.0, 30.0)),))
    annotation = Annotation(SIZE, stuff=(sky,), expressions=(ReferringExpression("the grass", kind="random"),))
    grass, found = pairs("<REFERRING_EXPRESSION_SEGMENTATION>", annotation)
    assert grass.absent and grass.kind == "random"
    assert found.inputs == {"text": "the sky"} and found.instances == (Instance(polygons=sky.polygons),)
    grass, found = pairs("<OPEN_VOCABULARY_DETECTION>", annotation)
    assert grass.absent and found.inputs == {"phrases": ("the sky",)}
    assert found.instances == (Instance("the sky", box=(0.0, 0.0, 100.0, 30.0)),)
