"""Tasks of one's own: with a rule of the library, with a function, and without either."""

from dataclasses import replace

import pytest

from florence_lite.answers import Answer, Instance
from florence_lite.cards import TaskCard, register_task, task
from florence_lite.evaluate.metrics import metrics_of
from florence_lite.rules import RULES, Pair, pairs, tasks_with_rule
from florence_lite.train import DataConfig
from tests.data.annotated import ANNOTATED, LEFT_DOG

COUNT = TaskCard("<COUNT>", "how many", "how many {input}?", grammar="text", input="text", metrics=("accuracy",))


def count(annotation):
    labels = [item.label for item in annotation.objects]
    return [Pair({"text": label}, texts=[str(labels.count(label))]) for label in dict.fromkeys(labels)]


def test_rules_are_called_by_family_and_function():
    for name, rule in RULES.items():
        assert f"{rule.__module__}.{rule.__name__}" == f"florence_lite.rules.{name}" and rule.__doc__


def test_a_function_beside_the_card(own_tasks):
    register_task(COUNT, rule=count)
    found = pairs("<COUNT>", ANNOTATED)
    assert [(pair.inputs, pair.texts) for pair in found] == [({"text": "dog"}, ("2",)), ({"text": "door"}, ("1",))]
    assert [pair.targets for pair in found] == [(Answer("2"),), (Answer("1"),)]
    assert tasks_with_rule()[-1] == "<COUNT>"
    assert DataConfig("photos", {"<COUNT>": 1}) and list(metrics_of(task("<COUNT>"))) == ["accuracy"]


def test_the_name_of_a_rule_in_the_card(own_tasks):
    register_task(replace(COUNT, rule="questions.answers"))
    assert pairs("<COUNT>", ANNOTATED) == pairs("<VQA>", ANNOTATED)


def test_the_form_of_the_answer_decides_what_is_written(own_tasks):
    """A rule that gives texts serves a task of prose and one of words about a region."""
    what = TaskCard("<WHAT>", "what it is", "What is at {input}?", "text", input="region", rule="regions.labels")
    register_task(what)
    prose, beside_box = pairs("<WHAT>", ANNOTATED)[0], pairs("<REGION_TO_CATEGORY>", ANNOTATED)[0]
    assert (prose.inputs, prose.texts) == (beside_box.inputs, beside_box.texts)
    assert prose.targets == (Answer("dog"),)
    assert beside_box.targets == (Answer(instances=(Instance("dog", box=LEFT_DOG.box),)),)


def test_the_card_decides_on_the_order(own_tasks):
    ordered = replace(task("<CAPTION_TO_PHRASE_GROUNDING>"), name="<ORDERED>", order="left to right")
    register_task(ordered)
    (pair,) = pairs("<ORDERED>", ANNOTATED)
    assert [item.label for item in pair.instances] == ["dog", "door", "dog"]
    assert pair.targets[0].instances == pair.instances


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("", r"task <COUNT> has no rule, .* rule = \"captions.short\", or .* register_task\(card, rule=function\)"),
        ("questions.answer", "task <COUNT>: unknown rule 'questions.answer'; did you mean 'questions.answers'"),
    ],
)
def test_a_task_without_a_rule_is_told_wherever_it_needs_one(own_tasks, rule, message):
    card = register_task(replace(COUNT, rule=rule))
    with pytest.raises(ValueError, match=message):
        pairs("<COUNT>", ANNOTATED)
    with pytest.raises(ValueError, match=f"tasks: {message}"):
        DataConfig("photos", {"<COUNT>": 1})
    with pytest.raises(ValueError, match=message):
        metrics_of(card)


def test_a_free_prompt_has_no_rule():
    with pytest.raises(ValueError, match="task what is this\\? has no rule"):
        pairs("what is this?", ANNOTATED)
