"""A checkpoint that learned to talk of few things says so where a prompt has other words."""

from dataclasses import replace
from pathlib import Path

import pytest

from florence_lite import Florence
from florence_lite.cards import checkpoint
from florence_lite.scenes import CLASSES
from florence_lite.scenes.catalogue import GROUPS, STUFF
from florence_lite.scenes.language import EXTREMES, PLACES, RELATIONS, a, plural

MEADOW = Path(__file__).parents[2] / "examples" / "meadow.png"
PHRASES, MATCHING = "<OPEN_VOCABULARY_DETECTION>", "<IMAGE_TEXT_MATCHING>"


@pytest.fixture(scope="module")
def embedded() -> Florence:
    return Florence.from_pretrained("scenes-nano")


def test_the_card_knows_the_words_of_the_scenes():
    card = checkpoint("scenes-nano")
    for label in CLASSES:
        phrases = [f"the {label}", f"all {plural(label)}"]
        phrases += [f"the {label} {place}" for row in PLACES for place in row]
        phrases += [f"the {label} {relation} the key" for relation in RELATIONS]
        phrases += [f"the {word} {label}" for word in (*EXTREMES, "largest", "smallest")]
        assert not card.unknown_words(PHRASES, *phrases, *(f"all {group}" for group in GROUPS))
        assert not card.unknown_words("<VQA>", f"how many {plural(label)} are there?", f"is there {a(label)}?")
        assert not card.unknown_words(MATCHING, f"{a(label)} and two {plural(label)}")
    assert not card.unknown_words(PHRASES, *(f"the {label}" for label in STUFF))
    assert card.unknown_words(PHRASES, "the Ghost", "a red cat beside the ghost") == ("Ghost", "red", "beside", "ghost")
    assert card.unknown_words("is there a person?", "is there a person?") == ("person",)
    assert card.unknown_words(PHRASES, "The cat", "the Cat", "CAT") == ("Cat", "CAT")
    assert "was not trained on Cat, and knows words in lower case alone, so" in card.note(("Cat",))
    assert not card.unknown_words("<INFILLING>", 'a <mask> at the top and "unheard"')
    assert not card.unknown_words("<OD>", "ghosts")  # which no prompt of that task has
    assert not replace(card, words={}).unknown_words(PHRASES, "the ghost")


def test_boxes_for_unknown_words_are_guesses(embedded):
    known, unknown = "the cat", "the shoe"
    result = embedded.detect(MEADOW, [known, unknown])
    assert {each.label for each in result} == {known} and result.absent == (unknown,) and result.dropped > 0
    assert not embedded.detect(MEADOW, [known]).foreign and embedded.detect(MEADOW, [unknown]).foreign
    asked = embedded.detect(MEADOW, [unknown], threshold=0.5)
    assert len(asked) and asked.foreign  # who gives a threshold gets what reaches it
    assert [len(embedded.find([MEADOW], phrase)) for phrase in (known, unknown)] == [1, 0]
    assert embedded.find([MEADOW], unknown, threshold=0.5).found
    assert not len(embedded.find([MEADOW], "the Cat")) and embedded.detect(MEADOW, ["the Cat"]).foreign


def test_answers_to_unknown_words_are_foreign(embedded):
    assert embedded.ask(MEADOW, "is there a person?").foreign and not embedded.ask(MEADOW, "is there a cat?").foreign
    assert embedded.ask(MEADOW, "is there a person?", choices=["yes", "no"]).foreign
    with pytest.warns(UserWarning, match="scenes-nano was not trained on person, so that what it answers"):
        embedded.match(MEADOW, ["a person", "a cat"])


def test_a_task_that_was_withdrawn_says_so(embedded):
    card = embedded.answering.card
    embedded.answering.card = replace(card, tasks=tuple(task for task in card.tasks if task not in ("<VQA>", "<OCR>")))
    try:
        for ask in (lambda: embedded.ask(MEADOW, "is there a cat?"), lambda: embedded.run(MEADOW, "<OCR>")):
            with pytest.raises(ValueError, match="checkpoint scenes-nano does not do <(VQA|OCR)>: use another"):
                ask()
        assert embedded.run(MEADOW, "<OD>")
    finally:
        embedded.answering.card = card
