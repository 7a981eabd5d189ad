"""Words that answers have in common."""

import pytest

from florence_lite.refine.words import common_words, content_words, is_named


@pytest.mark.parametrize(
    "label, text, named",
    [
        ("dog", "A dog on the grass.", True),
        ("dog", "two Dogs", True),
        ("berry", "a bowl of berries", True),
        ("bus", "three buses", True),
        ("traffic light", "a red traffic light", True),
        ("traffic light", "a light above the traffic", False),
        ("cat", "a catalogue", False),
        ("car", "a cart", False),
        ("", "anything", False),
    ],
)
def test_is_named(label, text, named):
    assert is_named(label, text) == named


def test_content_words_leave_out_what_any_sentence_has():
    assert content_words("There are two dogs on the grass, and a bus") == ["two", "dog", "grass", "bus"]
    assert content_words("the") == ["the"]


@pytest.mark.parametrize(
    "one, other, share",
    [
        ("a dog on the grass", "The dog is on grass", 1),
        ("a dog on the grass", "a cat on the table", 0),
        ("a dog on the grass", "a cat on the grass", 0.5),
        ("", "", 1),
        ("dog", "", 0),
    ],
)
def test_common_words(one, other, share):
    assert common_words(one, other) == share == common_words(other, one)
