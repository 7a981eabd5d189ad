"""Every task asks everything that an annotation can check, with its truth."""

from dataclasses import replace
from typing import NamedTuple

import pytest

from florence_lite.answers import Instance
from florence_lite.cards import task, tasks
from florence_lite.data.annotation import Annotation, ObjectAnnotation, Question, Referral, Region, TextLine
from florence_lite.inference import Prompt
from florence_lite.rules import pairs, tasks_with_rule
from tests.data.annotated import ANNOTATED, DOOR, LEFT_DOG, RIGHT_DOG, SIZE, STOP

QUESTIONS = tasks_with_rule()
NOTHING = Annotation(SIZE, listed=frozenset())


class Truth(NamedTuple):
    instances: tuple[Instance, ...] = ()
    texts: tuple[str, ...] = ()


def questions(task, annotation):
    """What evaluation asks, with its truth."""
    return [
        (Prompt(task, **pair.inputs), Truth(pair.instances, pair.texts))
        for pair in pairs(task, annotation)
        if pair.asked
    ]


def boxed(*objects, label=lambda item: item.label):
    return tuple(Instance(label(item), box=item.box) for item in objects)


def prompts(task, annotation=ANNOTATED):
    return [prompt for prompt, _ in questions(task, annotation)]


def truths(task, annotation=ANNOTATED):
    return [truth for _, truth in questions(task, annotation)]


@pytest.mark.parametrize(
    "task, expected",
    [
        ("<OD>", Truth(boxed(LEFT_DOG, DOOR, RIGHT_DOG))),
        ("<DENSE_REGION_CAPTION>", Truth(boxed(LEFT_DOG, DOOR, RIGHT_DOG, label=lambda item: item.phrase))),
        ("<REGION_PROPOSAL>", Truth(boxed(LEFT_DOG, DOOR, RIGHT_DOG, label=lambda item: ""))),
        ("<CAPTION>", Truth(texts=("a door and a dog",))),
        ("<DETAILED_CAPTION>", Truth(texts=("a door, a dog and a dog",))),
        ("<MORE_DETAILED_CAPTION>", Truth(texts=("There is a door. There are two dogs.",))),
        ("<OCR>", Truth(texts=("STOP 5 miles",))),
        ("<OCR_WITH_REGION>", Truth(tuple(Instance(line.text, quad=line.quad) for line in ANNOTATED.lines))),
    ],
)
def test_tasks_without_input_ask_once(task, expected):
    assert questions(task, ANNOTATED) == [(Prompt(task), expected)]


def test_captions_of_one_kind_are_references_of_one_question():
    several = replace(ANNOTATED, more_captions=("two dogs", " "))
    assert truths("<CAPTION>", several) == [Truth(texts=("a door and a dog", "two dogs"))]
    assert truths("<DETAILED_CAPTION>", several) == truths("<DETAILED_CAPTION>")


def test_every_phrase_is_asked_for():
    task = "<OPEN_VOCABULARY_DETECTION>"
    assert [prompt.phrases for prompt in prompts(task)] == [(r.phrase,) for r in ANNOTATED.referrals]
    assert [len(truth.instances) for truth in truths(task)] == [1, 2, 0, 3]
    assert truths(task)[0] == Truth((Instance("the door", box=DOOR.box),))


def test_phrases_are_outlined_where_all_outlines_are_known():
    task = "<REFERRING_EXPRESSION_SEGMENTATION>"
    assert truths(task)[0] == Truth((Instance(rings=DOOR.rings),))
    assert [len(truth.instances) for truth in truths(task)] == [1, 2, 0, 3]
    partly = replace(ANNOTATED, objects=(replace(LEFT_DOG, rings=()), RIGHT_DOG, DOOR))
    assert [prompt.text for prompt in prompts(task, partly)] == ["the door", "the cat"]
    assert len(questions("<REGION_TO_SEGMENTATION>", partly)) == 2


@pytest.mark.parametrize(
    "task, texts",
    [
        ("<REGION_TO_CATEGORY>", ["dog", "dog", "door"]),
        ("<REGION_TO_DESCRIPTION>", ["a dog on the left", "a dog on the right", "a door with a window"]),
    ],
)
def test_regions_of_objects(task, texts):
    assert [prompt.region for prompt in prompts(task)] == [LEFT_DOG.box, RIGHT_DOG.box, DOOR.box]
    assert truths(task) == [Truth(texts=(text,)) for text in texts]


def test_regions_lie_in_the_image():
    assert [prompt.region for prompt in prompts("<REGION_TO_OCR>")] == [(62, 50, 99, 68), (0, 70, 40, 80)]
    outside = Annotation(SIZE, lines=(TextLine("x", (200, 0, 210, 0, 210, 5, 200, 5)),))
    assert prompts("<REGION_TO_OCR>", outside)[0].region == (200, 0, 210, 5)  # for the prompt to refuse


def test_described_regions_beside_objects():
    described = Annotation(SIZE, (ObjectAnnotation("dog", (1, 1, 5, 5)),), regions=(Region("fur", (2, 2, 120, 4)),))
    assert questions("<REGION_TO_DESCRIPTION>", described) == [
        (Prompt("<REGION_TO_DESCRIPTION>", region=(2, 2, 100, 4)), Truth(texts=("fur",)))
    ]


def test_grounding_asks_for_what_the_caption_mentions():
    (prompt, truth), *others = questions("<CAPTION_TO_PHRASE_GROUNDING>", ANNOTATED)
    assert (prompt.text, others) == ("a door and a dog", [])
    assert [item.label for item in truth.instances] == ["door", "dog", "dog"]
    assert not questions("<CAPTION_TO_PHRASE_GROUNDING>", replace(ANNOTATED, captions=("nothing",)))


def test_objects_without_a_label_are_not_asked_for_by_label():
    nameless = replace(ANNOTATED, objects=(replace(LEFT_DOG, label=""), RIGHT_DOG, DOOR))
    assert questions("<OD>", nameless) == []
    assert [item.label for item in truths("<DENSE_REGION_CAPTION>", nameless)[0].instances] == [
        item.phrase for item in (LEFT_DOG, DOOR, RIGHT_DOG)
    ]
    assert len(truths("<REGION_PROPOSAL>", nameless)[0].instances) == 3


def test_answers_to_one_question_stand_together():
    asked = (Question("how many?", "2"), Question("where?", "here"), Question("how many?", "two"))
    assert questions("<VQA>", Annotation(SIZE, questions=asked)) == [
        (Prompt("<VQA>", text="how many?"), Truth(texts=("2", "two"))),
        (Prompt("<VQA>", text="where?"), Truth(texts=("here",))),
    ]


@pytest.mark.parametrize("task", QUESTIONS)
def test_what_is_not_known_is_not_asked(task):
    assert questions(task, NOTHING) == []


@pytest.mark.parametrize("task", ["<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>", "<OCR_WITH_REGION>"])
def test_an_image_known_to_be_empty_is_asked_about(task):
    assert questions(task, Annotation(SIZE)) == [(Prompt(task), Truth())]


@pytest.mark.parametrize("task", ["<OD>", "<OCR>", "<OCR_WITH_REGION>"])
def test_incomplete_lists_are_no_truth(task):
    assert questions(task, replace(ANNOTATED, listed=frozenset())) == []
    assert questions("<REGION_TO_CATEGORY>", replace(ANNOTATED, listed=frozenset()))


def test_every_task_has_a_rule():
    assert {card.name for card in tasks()} >= set(QUESTIONS)
    with pytest.raises(ValueError, match="unknown task '<TAGS>'; .*tasks: "):
        questions("<TAGS>", ANNOTATED)


def test_prompts_suit_their_cards():
    for card in tasks():
        if card.name in QUESTIONS:
            for prompt in prompts(card.name):
                assert card.prompt(prompt.text, prompt.phrases, prompt.region, SIZE)


def test_a_referral_to_nothing_has_an_empty_truth():
    absent = Annotation(SIZE, referrals=(Referral("the cat"),))
    assert truths("<OPEN_VOCABULARY_DETECTION>", absent) == [Truth()]
    assert STOP.text == truths("<REGION_TO_OCR>")[0].texts[0]


def test_a_caption_that_mentions_nothing_is_trained_and_not_asked():
    (pair,) = pairs("<CAPTION_TO_PHRASE_GROUNDING>", replace(ANNOTATED, captions=("nothing",)))
    assert (pair.asked, pair.absent, [target.instances for target in pair.targets]) == (False, True, [()])


def test_many_outlines_are_asked_and_not_trained():
    found = {pair.inputs["text"]: pair for pair in pairs("<REFERRING_EXPRESSION_SEGMENTATION>", ANNOTATED)}
    assert [len(pair.targets) for pair in found.values()] == [1, 1, 1, 0]
    assert found["everything"].asked and len(found["everything"].instances) == 3


@pytest.mark.parametrize("name", QUESTIONS)
def test_truths_are_of_the_kind_of_the_answer(name):
    in_words = task(name).grammar in ("text", "region_text")
    for pair in pairs(name, ANNOTATED):
        assert bool(pair.texts) == in_words and not (in_words and pair.instances)
