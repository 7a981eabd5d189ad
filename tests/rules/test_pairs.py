"""Every task asks everything that an annotation can check, with its truth."""

from dataclasses import replace

import pytest

from florence_lite.answers import Instance
from florence_lite.cards import TaskCard, register_task, task, tasks
from florence_lite.data.annotation import Annotation, ObjectAnnotation, Question, ReferringExpression, Region, TextLine
from florence_lite.evaluate.metrics import metrics_of
from florence_lite.rules import RULES, Pair, needed, pairs, rule_of, tasks_with_rules
from florence_lite.train import DataConfig
from tests.data.annotated import ANNOTATED, DOOR, LEFT_DOG, RIGHT_DOG, SIZE, STOP

NOTHING = Annotation(SIZE, exhaustive=frozenset())


def boxed(*objects, label=lambda item: item.label):
    return tuple(Instance(label(item), box=item.box) for item in objects)


def truth(instances=(), texts=()):
    return tuple(instances), tuple(texts)


def questions(name, annotation):
    """Inputs and truth of all that evaluation asks."""
    return [(pair.inputs, truth(pair.instances, pair.texts)) for pair in pairs(name, annotation) if pair.asked]


def prompts(name, annotation=ANNOTATED):
    return [inputs for inputs, _ in questions(name, annotation)]


def truths(name, annotation=ANNOTATED):
    return [found for _, found in questions(name, annotation)]


@pytest.mark.parametrize(
    "task, expected",
    [
        ("<OD>", truth(boxed(LEFT_DOG, DOOR, RIGHT_DOG))),
        ("<DENSE_REGION_CAPTION>", truth(boxed(LEFT_DOG, DOOR, RIGHT_DOG, label=lambda item: item.phrase))),
        ("<REGION_PROPOSAL>", truth(boxed(LEFT_DOG, DOOR, RIGHT_DOG, label=lambda item: ""))),
        ("<CAPTION>", truth(texts=("a door and a dog",))),
        ("<DETAILED_CAPTION>", truth(texts=("a door, a dog and a dog",))),
        ("<MORE_DETAILED_CAPTION>", truth(texts=("There is a door. There are two dogs.",))),
        ("<OCR>", truth(texts=("STOP 5 miles",))),
        ("<OCR_WITH_REGION>", truth(tuple(Instance(line.text, quad=line.quad) for line in ANNOTATED.lines))),
    ],
)
def test_tasks_without_input_ask_once(task, expected):
    assert questions(task, ANNOTATED) == [({}, expected)]


def test_what_is_ignored_is_told_to_evaluation():
    box, ring = (1.0, 1.0, 9.0, 9.0), ((1.0, 1.0), (9.0, 1.0), (9.0, 9.0))
    ignored = (ObjectAnnotation("dog", box), ObjectAnnotation("", box, (ring,)))
    crowded = replace(ANNOTATED, ignored=ignored, ignored_lines=(replace(STOP, text=""),))
    for name in ("<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>"):
        (pair,) = pairs(name, crowded)
        assert pair.asked and pair.instances == pairs(name, ANNOTATED)[0].instances
        assert pair.ignored == (Instance("dog", box=box), Instance(polygons=(ring,)))
    assert [pair.ignored for pair in pairs("<OCR_WITH_REGION>", crowded)] == [(Instance(quad=STOP.quad),)]


def test_captions_of_one_kind_are_references_of_one_question():
    several = replace(ANNOTATED, more_captions=("two dogs", " "))
    assert truths("<CAPTION>", several) == [truth(texts=("a door and a dog", "two dogs"))]
    assert truths("<DETAILED_CAPTION>", several) == truths("<DETAILED_CAPTION>")


def test_every_phrase_is_asked_for():
    task = "<OPEN_VOCABULARY_DETECTION>"
    assert [inputs["phrases"] for inputs in prompts(task)] == [(r.phrase,) for r in ANNOTATED.expressions]
    assert [len(found[0]) for found in truths(task)] == [1, 2, 0, 3]
    assert truths(task)[0] == truth((Instance("the door", box=DOOR.box),))


def test_phrases_are_outlined_where_all_outlines_are_known():
    task = "<REFERRING_EXPRESSION_SEGMENTATION>"
    assert truths(task)[0] == truth((Instance(polygons=DOOR.polygons),))
    assert [len(found[0]) for found in truths(task)] == [1, 2, 0, 3]
    partly = replace(ANNOTATED, objects=(replace(LEFT_DOG, polygons=()), RIGHT_DOG, DOOR))
    assert [inputs["text"] for inputs in prompts(task, partly)] == ["the door", "the cat"]
    assert len(questions("<REGION_TO_SEGMENTATION>", partly)) == 2


@pytest.mark.parametrize(
    "task, texts",
    [
        ("<REGION_TO_CATEGORY>", ["dog", "dog", "door"]),
        ("<REGION_TO_DESCRIPTION>", ["a dog on the left", "a dog on the right", "a door with a window"]),
    ],
)
def test_regions_of_objects(task, texts):
    assert [inputs["region"] for inputs in prompts(task)] == [LEFT_DOG.box, RIGHT_DOG.box, DOOR.box]
    assert truths(task) == [truth(texts=(text,)) for text in texts]


def test_regions_lie_in_the_image():
    assert [inputs["region"] for inputs in prompts("<REGION_TO_OCR>")] == [(62, 50, 99, 68), (0, 70, 40, 80)]
    outside = Annotation(SIZE, lines=(TextLine("x", (200, 0, 210, 0, 210, 5, 200, 5)), *ANNOTATED.lines))
    pair, *others = pairs("<REGION_TO_OCR>", outside)
    assert "region=(200, 0, 210, 5) must lie in the image of 100×80 pixels" in pair.fault
    assert (pair.asked, pair.targets) == (False, ())
    assert others == pairs("<REGION_TO_OCR>", ANNOTATED)


@pytest.mark.parametrize(
    "words", ["salt<and>pepper", "the <loc_5> key", "a <poly> shape", "x</s>", "<sep>", "<image> of a dog", "<od>"]
)
def test_words_that_a_prompt_would_not_take_as_words(words):
    """Those prompts are neither asked nor trained, and say why; the rest of the image stays."""
    expressions = (ReferringExpression(words, (0,)), ReferringExpression("a < b", (1,)))
    known = Annotation(SIZE, (LEFT_DOG, DOOR), (), (f"dog: {words}",), expressions, (Question(words, "yes"),))
    for marker in ("<OPEN_VOCABULARY_DETECTION>", "<REFERRING_EXPRESSION_SEGMENTATION>"):
        pair, other = pairs(marker, known)
        assert marker in pair.fault and words in pair.fault and not pair.targets and not pair.asked
        assert not other.fault and other.targets and other.asked
    for marker in ("<CAPTION_TO_PHRASE_GROUNDING>", "<VQA>"):
        (pair,) = pairs(marker, known)
        assert words in pair.fault and not pair.targets and not pair.asked
    (caption,) = pairs("<CAPTION>", known)  # answers hold any words
    assert caption.texts == (f"dog: {words}",) and not caption.fault


@pytest.mark.parametrize("words", ["<and", "a<b", "<loc_x>", "< and >", "<OD>", "<AND>", "and"])
def test_words_that_look_like_marks(words):
    known = Annotation(SIZE, expressions=(ReferringExpression(words),))
    assert not any(pair.fault for pair in pairs("<OPEN_VOCABULARY_DETECTION>", known))


def test_a_phrase_of_nothing_is_a_fault():
    (pair,) = pairs("<OPEN_VOCABULARY_DETECTION>", Annotation(SIZE, expressions=(ReferringExpression(" "),)))
    assert "phrases[0]=' '" in pair.fault


def test_described_regions_beside_objects():
    described = Annotation(SIZE, (ObjectAnnotation("dog", (1, 1, 5, 5)),), regions=(Region("fur", (2, 2, 120, 4)),))
    assert questions("<REGION_TO_DESCRIPTION>", described) == [({"region": (2, 2, 100, 4)}, truth(texts=("fur",)))]


def test_grounding_asks_for_what_the_caption_mentions():
    (inputs, found), *others = questions("<CAPTION_TO_PHRASE_GROUNDING>", ANNOTATED)
    assert (inputs["text"], others) == ("a door and a dog", [])
    assert [item.label for item in found[0]] == ["door", "dog", "dog"]
    assert not questions("<CAPTION_TO_PHRASE_GROUNDING>", replace(ANNOTATED, captions=("nothing",)))


def test_objects_without_a_label_are_not_asked_for_by_label():
    nameless = replace(ANNOTATED, objects=(replace(LEFT_DOG, label=""), RIGHT_DOG, DOOR))
    assert questions("<OD>", nameless) == []
    assert [item.label for item in truths("<DENSE_REGION_CAPTION>", nameless)[0][0]] == [
        item.phrase for item in (LEFT_DOG, DOOR, RIGHT_DOG)
    ]
    assert len(truths("<REGION_PROPOSAL>", nameless)[0][0]) == 3


def test_answers_to_one_question_stand_together():
    asked = (Question("how many?", "2"), Question("where?", "here"), Question("how many?", "two"))
    assert questions("<VQA>", Annotation(SIZE, questions=asked)) == [
        ({"text": "how many?"}, truth(texts=("2", "two"))),
        ({"text": "where?"}, truth(texts=("here",))),
    ]


@pytest.mark.parametrize("task", tasks_with_rules())
def test_what_is_not_known_is_not_asked(task):
    assert questions(task, NOTHING) == []


@pytest.mark.parametrize("task", ["<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>", "<OCR_WITH_REGION>"])
def test_an_image_known_to_be_empty_is_asked_about(task):
    assert questions(task, Annotation(SIZE)) == [({}, truth())]


@pytest.mark.parametrize("task", ["<OD>", "<OCR>", "<OCR_WITH_REGION>"])
def test_incomplete_lists_are_no_truth(task):
    assert questions(task, replace(ANNOTATED, exhaustive=frozenset())) == []
    assert questions("<REGION_TO_CATEGORY>", replace(ANNOTATED, exhaustive=frozenset()))


def test_every_card_names_a_rule_and_every_rule_has_a_card():
    assert [card.rule for card in tasks()] and {card.rule for card in tasks()} == RULES.keys()
    assert tasks_with_rules() == tuple(card.name for card in tasks())


def test_rules_are_called_by_family_and_function():
    for name, rule in RULES.items():
        assert f"{rule.__module__}.{rule.__name__}" == f"florence_lite.rules.{name}" and rule.__doc__


@pytest.mark.parametrize("name", tasks_with_rules())
def test_prompts_suit_their_cards(name):
    """So do the prompts that are trained and not asked; and everything that is asked has a truth of the right kind."""
    card = task(name)
    in_words = card.grammar in ("text", "region_text")
    for pair in pairs(name, ANNOTATED):
        inputs = [pair.inputs.get(each) for each in ("text", "phrases", "region")]
        assert card.prompt(*inputs, size_wh=SIZE)
        assert bool(pair.texts) == in_words and not (in_words and pair.instances)


def test_a_referring_expression_to_nothing_has_an_empty_truth():
    absent = Annotation(SIZE, expressions=(ReferringExpression("the cat"),))
    assert truths("<OPEN_VOCABULARY_DETECTION>", absent) == [truth()]
    assert STOP.text == truths("<REGION_TO_OCR>")[0][1][0]


def test_a_caption_that_mentions_nothing_is_trained_and_not_asked():
    (pair,) = pairs("<CAPTION_TO_PHRASE_GROUNDING>", replace(ANNOTATED, captions=("nothing",)))
    assert (pair.asked, pair.absent, [target.instances for target in pair.targets]) == (False, True, [()])


def test_many_outlines_are_asked_and_not_trained():
    found = {pair.inputs["text"]: pair for pair in pairs("<REFERRING_EXPRESSION_SEGMENTATION>", ANNOTATED)}
    assert [len(pair.targets) for pair in found.values()] == [1, 1, 1, 0]
    assert found["everything"].asked and len(found["everything"].instances) == 3


# ---- what tasks do not need


@pytest.mark.parametrize("marker", tasks_with_rules())
def test_what_a_task_needs_is_all_that_its_pairs_depend_on(marker):
    everything = replace(ANNOTATED, regions=(Region("fur", (2, 2, 20, 4)),), more_captions=("two dogs",))
    fewer = needed(everything, [marker])
    assert pairs(marker, fewer) == pairs(marker, everything)
    assert needed(everything, tasks_with_rules()) == everything
    assert needed(fewer, [marker]) == fewer
    assert fewer.lines == everything.lines  # they are seen, whatever is asked


def test_boxes_need_no_words():
    everything = replace(ANNOTATED, regions=(Region("fur", (2, 2, 20, 4)),), more_captions=("two dogs",))
    fewer = needed(everything, ["<OD>", "<REGION_TO_SEGMENTATION>"])
    assert [fewer.captions, fewer.more_captions, fewer.expressions, fewer.questions, fewer.regions] == [()] * 5
    assert [item.phrase for item in fewer.objects] == [""] * 3
    assert [replace(item, phrase="") for item in everything.objects] == list(fewer.objects)


def test_a_function_that_relies_on_words_keeps_them(own_tasks):
    register_task(COUNT, rule=lambda annotation: [Pair({"text": "x"}, texts=[str(len(annotation.captions[0]))])])
    assert needed(ANNOTATED, ["<COUNT>"]) == replace(needed(ANNOTATED, ["<OD>"]), captions=ANNOTATED.captions)


# ---- rules of one's own


def count(annotation):
    for label in dict.fromkeys(item.label for item in annotation.objects):
        yield Pair({"text": label}, texts=[str(sum(item.label == label for item in annotation.objects))])


COUNT = TaskCard("<COUNT>", "how many", "how many {input}?", grammar="text", input="text")


def test_a_function_beside_the_card(own_tasks):
    register_task(COUNT, rule=count)
    assert questions("<COUNT>", ANNOTATED) == [
        ({"text": "dog"}, truth(texts=("2",))),
        ({"text": "door"}, truth(texts="1")),
    ]
    assert [target.text for pair in pairs("<COUNT>", ANNOTATED) for target in pair.targets] == ["2", "1"]
    assert tasks_with_rules()[-1] == "<COUNT>" and DataConfig("photos", {"<COUNT>": 1})


def test_a_function_may_write_marks(own_tasks):
    register_task(COUNT, rule=lambda annotation: [Pair({"text": "<loc_3>"}, texts=["1"])])
    (pair,) = pairs("<COUNT>", ANNOTATED)
    assert pair.asked and pair.targets


def test_the_name_of_a_rule_in_the_card(own_tasks):
    register_task(replace(COUNT, rule="questions.answers"))
    assert pairs("<COUNT>", ANNOTATED) == pairs("<VQA>", ANNOTATED)


def test_a_task_without_a_rule_is_told_with_the_remedy(own_tasks):
    remedy = (
        r"task <COUNT> has no rule, .* rule = \"captions.short\", or .* register_task\(card, rule=function\); rules: "
    )
    with pytest.raises(ValueError, match=remedy):
        rule_of(register_task(COUNT))
    with pytest.raises(ValueError, match=remedy):
        pairs("<COUNT>", ANNOTATED)
    with pytest.raises(ValueError, match=f"tasks: {remedy}"):
        DataConfig("photos", {"<COUNT>": 1})
    with pytest.raises(ValueError, match=remedy):
        metrics_of(replace(COUNT, metrics=("accuracy",)))
    assert "<COUNT>" not in tasks_with_rules()
    with pytest.raises(ValueError, match="task what is this\\? has no rule"):
        pairs("what is this?", ANNOTATED)
    with pytest.raises(ValueError, match="unknown task '<TAGS>'"):
        pairs("<TAGS>", ANNOTATED)


def test_a_rule_that_does_not_exist(own_tasks):
    register_task(replace(COUNT, rule="questions.answer"))
    with pytest.raises(ValueError, match="<COUNT>: unknown rule 'questions.answer'; did you mean 'questions.answers'"):
        pairs("<COUNT>", ANNOTATED)


def test_a_rule_must_give_pairs(own_tasks):
    register_task(COUNT, rule=lambda annotation: ["2"])
    with pytest.raises(ValueError, match="the rule of task <COUNT> gave '2'; it must give florence_lite.rules.Pair"):
        pairs("<COUNT>", ANNOTATED)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inputs": {"question": "why?"}}, r"Pair.inputs has \['question'\]; it may hold text, phrases, region"),
        ({"texts": "2"}, r"Pair.texts is '2'; it must be a list of strings, such as \['2'\]"),
    ],
)
def test_pairs_that_cannot_be(values, message):
    with pytest.raises(ValueError, match=message):
        Pair(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"texts": [5]}, "Pair.texts has 5; it must hold strings"), ({"instances": ["dog"]}, "Pair.instances has 'dog'")],
)
def test_pairs_hold_what_can_be_written(values, message):
    with pytest.raises(ValueError, match=message):
        Pair(**values)
