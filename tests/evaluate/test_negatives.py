"""Phrases that are not true of an image, drawn from the other images of its data set."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from florence_lite.data import Dataset, Sample
from florence_lite.data.annotation import Annotation, ObjectAnnotation, ReferringExpression
from florence_lite.evaluate.negatives import DRAWN, Negatives, asks_untrue, why_none
from florence_lite.rules import pairs, tasks_with_rules

SIZE = (64, 48)
PETS = Negatives(("cat", "cow", "dog", "fish", "horse", "pig"), ("a cat", "a cow", "a dog"))


def image(*labels: str, **more) -> Annotation:
    objects = tuple(ObjectAnnotation(label, (0.0, 0.0, 9.0, 9.0 + n)) for n, label in enumerate(labels))
    return Annotation(SIZE, objects, **more)


def seeds():
    return (np.random.default_rng(seed) for seed in range(20))


def test_labels_that_are_not_there_are_absent_phrases():
    for rng in seeds():
        found = pairs("<OPEN_VOCABULARY_DETECTION>", PETS(image("dog", "dog", "pig"), rng))
        assert [len(pair.instances) for pair in found] == [2, 1] + [0] * DRAWN
        absent = [pair.inputs["phrases"][0] for pair in found[2:]]
        assert len(set(absent)) == DRAWN and not {"dog", "pig"} & set(absent)
        assert {pair.kind for pair in found[2:]} == {"random"}


def test_what_is_said_of_an_image_in_other_letters_is_not_absent():
    """Nor what a phrase of it says of an object of another label."""
    known = image("Dog ", "man", expressions=(ReferringExpression("a pig", (0,)), ReferringExpression("cow", (1,))))
    mixed = Negatives(("A  Pig", "DOG", "cat", "cow", "dog"), ("A CAT", "a dog"))
    for rng in seeds():
        found = mixed(replace(known, captions=("a cat",)), rng)
        assert [each.phrase for each in found.expressions[2:]] == ["cat"]
        assert found.wrong_captions == ("a dog",)


def test_of_an_empty_image_every_label_is_absent():
    found = pairs("<OPEN_VOCABULARY_DETECTION>", PETS(image(), np.random.default_rng(0)))
    assert len(found) == DRAWN and all(pair.absent for pair in found)


def test_expressions_stay_what_they_are():
    known = image("dog", expressions=(ReferringExpression("the dog", (0,)),))
    assert PETS(known, np.random.default_rng(0)).expressions[:1] == known.expressions


@pytest.mark.parametrize("unknown", [{"exhaustive": frozenset()}, {"ignored": image("cat").objects}])
def test_nothing_is_absent_where_not_all_objects_are_known(unknown):
    assert not PETS(image("dog", **unknown), np.random.default_rng(0)).expressions


def test_captions_of_other_images_are_wrong():
    for rng in seeds():
        found = PETS(image(captions=("a cat",), more_captions=("a cow",)), rng)
        assert found.wrong_captions == ("a dog",)
    assert not PETS(image("cat"), np.random.default_rng(0)).wrong_captions


def of(*annotations: Annotation) -> Dataset:
    return Dataset.of([Sample(Image.new("RGB", SIZE), each, f"image {n}") for n, each in enumerate(annotations)])


def test_data_that_say_what_is_untrue_are_asked_that_alone():
    task = "<OPEN_VOCABULARY_DETECTION>"
    named, absent = image("dog"), image("cat", expressions=(ReferringExpression("a yak"),))
    assert Negatives.where_lacking(task, of(named, absent), 1) == Negatives(("cat", "dog"), ())
    assert Negatives.where_lacking(task, of(named, absent), 2) is None
    assert Negatives.where_lacking(task, list(of(named)), 1) is None
    captioned = image(captions=("a dog",))
    assert Negatives.where_lacking("<IMAGE_TEXT_MATCHING>", of(captioned), 1).captions == ("a dog",)
    wrong = replace(captioned, wrong_captions=("a cat",))
    assert Negatives.where_lacking("<IMAGE_TEXT_MATCHING>", of(captioned, wrong), 2) is None


def test_an_image_gets_the_same_in_every_call_and_images_differ():
    drawn = [PETS.beside(sample).expressions for sample in (*of(*[image("dog")] * 6), *of(*[image("dog")] * 6))]
    assert drawn[:6] == drawn[6:] and len(set(drawn)) > 1


INCOMPLETE = {"exhaustive": frozenset()}
DATA = {  # what is known → whether phrases and sentences can be untrue, or why not
    "labels": (of(image("dog"), image("cat")), "", "no image has a caption"),
    "one label": (of(image("dog"), image("Dog ")), "no label of the data set is missing", "no image has a caption"),
    "an empty image": (of(image("dog"), image()), "", "no image has a caption"),
    "not all objects": (
        of(image("dog", **INCOMPLETE), image("cat", **INCOMPLETE)),
        "of no image are all objects known",
        "no image has a caption",
    ),
    "own": (
        of(image(expressions=(ReferringExpression("a yak"),), wrong_captions=("a yak",), **INCOMPLETE)),
        "",
        "",
    ),
    "captions": (of(image(captions=("a dog",)), image(captions=("a cat",))), "no label", ""),
    "one caption": (of(image(captions=("a dog",)), image(captions=("A dog",))), "no label", "no image has a caption t"),
}


@pytest.mark.parametrize(("data", "phrases", "sentences"), DATA.values(), ids=DATA)
def test_why_nothing_is_untrue(data, phrases, sentences):
    """As it is drawn."""
    for task, why in (("<OPEN_VOCABULARY_DETECTION>", phrases), ("<IMAGE_TEXT_MATCHING>", sentences)):
        assert why_none(task, data).startswith(why) and bool(why) == bool(why_none(task, data))
        drawn = map(Negatives.of(data).beside, data)
        assert any(pair.negative for known in drawn for pair in pairs(task, known)) == (not why)


def test_tasks_that_may_ask_what_is_untrue():
    asked = {name for name in tasks_with_rules() if asks_untrue(name)}
    phrases = {"<OPEN_VOCABULARY_DETECTION>", "<REFERRING_EXPRESSION_SEGMENTATION>"}
    assert asked == {*phrases, "<IMAGE_TEXT_MATCHING>"}


def test_a_function_of_ones_own_may_ask_anything(monkeypatch):
    monkeypatch.setattr("florence_lite.evaluate.negatives.own_rule", {"<OD>": lambda annotation: ()}.get)
    assert asks_untrue("<OD>") and not why_none("<OD>", of(image("dog", **INCOMPLETE)))
    assert not asks_untrue("<OCR>")
