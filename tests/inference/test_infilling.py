"""Words in the place of masks."""

import pytest

from florence_lite.answers import Answer, Instance
from florence_lite.cards import task
from florence_lite.inference.guides import Guides, PartsGuide
from florence_lite.inference.infilling import filled
from florence_lite.inference.prompts import Prompt
from tests.tiny import noise_image

IMAGE = noise_image(0)
TEXT = "a <mask> on the <mask>"


@pytest.fixture
def written(florence, scripted):
    """Lets the network write parts, whatever its guide says."""
    known, _ = scripted

    def write(*parts):
        ids = []
        for part in parts:
            ids += [florence.tokenizer.vocabulary.sep] if ids else []
            ids += florence.tokenizer.encode_plain(part)
        known["Fill in the masked words"] = ids

    return write


def test_the_sentence_is_completed(florence, written):
    written("dog", "green door")
    result = florence.infill(IMAGE, TEXT)
    assert result.text == "a dog on the green door" and result.labels == ["dog", "green door"]
    assert all(0 < score < 1 for score in result.scores) and not result.parse_errors
    assert [each.text for each in florence.infill([IMAGE, IMAGE], f" {TEXT} ")] == [result.text] * 2
    assert florence.run(IMAGE, "<INFILLING>", text=TEXT) == result


@pytest.mark.parametrize(
    ("parts", "text", "labels", "faults"),
    [
        (["dog"], "a dog on the <mask>", ["dog"], 1),
        (["dog", "grass", "cat", "door"], "a dog on the grass", ["dog", "grass"], 2),
        ([], "a <mask> on the <mask>", [], 2),
    ],
)
def test_parts_that_are_missing_or_too_many(florence, written, parts, text, labels, faults):
    written(*parts)
    result = florence.infill(IMAGE, TEXT)
    assert (result.text, result.labels, result.parse_errors) == (text, labels, faults)


def test_what_an_answer_that_is_cut_short_did_not_get_to_is_no_fault(florence):
    answer = filled(Answer(instances=(Instance("dog"),), truncated=True), TEXT)
    assert (answer.text, answer.parse_errors) == ("a dog on the <mask>", 0)
    result = florence.infill(IMAGE, TEXT, max_new_tokens=2)
    assert result.truncated and result.text.endswith("on the <mask>") and not result.parse_errors


@pytest.mark.parametrize("masks", [1, 2, 3])
def test_a_guided_answer_has_a_part_for_each_mask(florence, masks):
    """Whatever a random network would like to write."""
    text = " and ".join(["<mask>"] * masks)
    options = {"max_new_tokens": 24, "labels": ["dog", "cat", "grass"]}
    result = florence.infill(IMAGE, text, **options)
    *parts, last = florence.stream(IMAGE, "<INFILLING>", text=text, **options)
    assert [part.label for part in parts] == result.labels and last == result
    assert len(result) == masks and not result.parse_errors and not result.truncated
    assert set(result.labels) <= {"dog", "cat", "grass"} and "<mask>" not in result.text


def test_parts_are_counted_by_the_guide(toy_tokenizer):
    vocabulary = toy_tokenizer.vocabulary
    guide = Guides(toy_tokenizer).guide(task("<INFILLING>"), Prompt("<INFILLING>", text=TEXT), {})
    assert isinstance(guide, PartsGuide)

    def may_follow(ids):
        place = guide.start
        for token_id in ids:
            place = guide.advance(place, token_id)
        allowed = guide.allowed(place)
        return [any(each in ids for ids in allowed) for each in (vocabulary.eos, vocabulary.sep, word[0])]

    word = toy_tokenizer.encode_plain("dog")
    assert may_follow([0]) == [False, False, True]
    one = Prompt("<INFILLING>", text="a <mask>")
    start = Guides(toy_tokenizer).guide(task("<INFILLING>"), one, {})
    assert not any(vocabulary.eos in ids for ids in start.allowed(start.start))
    assert may_follow([0, *word]) == [False, True, True]
    assert may_follow([0, *word, vocabulary.sep]) == [False, False, True]
    assert may_follow([0, *word, vocabulary.sep, *word]) == [True, False, True]
    assert Guides(toy_tokenizer).guide(task("<INFILLING>"), Prompt("<INFILLING>", text=TEXT), {"compat": True}) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a dog", "has no <mask>: put one"),
        ("", "must be a string with something in it"),
        (None, 'needs text="…", but nothing was given'),
        ("a <mask> <loc_5>", "holds <loc_5>, which is no word"),
        ("<mask><sep>", "holds <sep>"),
    ],
)
def test_mistakes(florence, text, message):
    with pytest.raises(ValueError, match=message):
        florence.infill(IMAGE, text)
