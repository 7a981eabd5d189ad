"""Answers that follow their grammar whatever the network wants, and labels from closed lists."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from florence_lite import Florence, Prompt, tasks
from florence_lite.cards import task
from florence_lite.inference.guides import AnswerGuide, Guides, closed_list, words_of
from florence_lite.inference.prompts import as_prompts
from florence_lite.tokens import GRAMMARS, Codec, grammar
from tests.tiny import noise_image, tiny_florence

SIZE = (90, 70)
LABELS = ["dog", "dog house", "café", "猫", "door handle"]
CAPTION = "A red apple, and the dog's green-door handle; 2 wheels"
WAYS = [{}, {"num_beams": 3}, {"do_sample": True, "seed": 0}, {"do_sample": True, "seed": 1, "temperature": 3.0}]
SENTENCES = {
    "<CAPTION_TO_PHRASE_GROUNDING>": {"text": CAPTION},
    "<VQA>": {"text": "what?"},
    "<INFILLING>": {"text": "a <mask> and a <mask>"},
}


def guide_of(tokenizer, name, labels=None, unlabelled=False) -> AnswerGuide:
    trie = None if labels is None else closed_list(tokenizer, labels)
    return AnswerGuide(tokenizer.vocabulary, grammar(name), trie, unlabelled)


def inputs_of(name: str) -> dict:
    """Something to ask about, for the task called `name`."""
    by_input = {
        "none": {},
        "text": SENTENCES.get(name, {"text": "a red apple"}),
        "phrase": {"phrases": ["a red apple"]},
        "phrases": {"phrases": ["dog", "a red apple"]},
        "region": {"region": (10, 10, 60, 50)},
    }
    return by_input[task(name).input]


# ---- walks through the machine, without a network


@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize("name", GRAMMARS)
@given(data=st.data())
def test_every_allowed_path_is_an_answer_without_a_fault(toy_tokenizer, name, labels, data):
    """There is always a way on, and wherever the ids stop, nothing is wrong and no label is outside of the list."""
    labels = labels if grammar(name).text else None
    guide = guide_of(toy_tokenizer, name, labels)
    vocabulary = toy_tokenizer.vocabulary
    place, ids = guide.start, []
    for _ in range(data.draw(st.integers(1, 40))):
        allowed = guide.allowed(place)
        assert allowed and all(len(each) for each in allowed)
        ranges = data.draw(st.sampled_from(allowed))
        ids.append(data.draw(st.sampled_from(ranges)))
        place = guide.advance(place, ids[-1])
        if ids[-1] == vocabulary.eos:
            break
    answer = Codec(toy_tokenizer).parse(ids, name, SIZE)
    assert answer.parse_errors == 0
    if labels is not None and grammar(name).prose:
        assert answer.truncated or answer.text in labels
    elif labels is not None:
        whole = answer.instances[
            : -1 if answer.truncated and grammar(name).parts else None
        ]  # the last may be cut short
        assert {item.label for item in whole} <= set(labels)


def spelled(tokenizer, label):
    return tokenizer.encode_plain(label)


def allows(guide, ids, token) -> bool:
    place = guide.start
    for token_id in ids:
        place = guide.advance(place, token_id)
    return any(token in each for each in guide.allowed(place))


def test_the_second_corner_is_never_before_the_first(toy_tokenizer):
    vocabulary = toy_tokenizer.vocabulary
    guide = guide_of(toy_tokenizer, "boxes")
    x0, y0 = vocabulary.loc(300), vocabulary.loc(700)
    assert allows(guide, [0, x0], vocabulary.loc(0))
    assert not allows(guide, [0, x0, y0], vocabulary.loc(299)) and allows(guide, [0, x0, y0], x0)
    assert not allows(guide, [0, x0, y0, y0], vocabulary.loc(699)) and allows(guide, [0, x0, y0, x0], y0)
    assert allows(guide, [0, x0, y0, x0, y0], vocabulary.loc(0))  # of the next box
    quads = guide_of(toy_tokenizer, "labelled_quads")
    assert allows(quads, [0, x0, y0], vocabulary.loc(0))


def test_a_label_may_be_the_beginning_of_another(toy_tokenizer):
    guide = guide_of(toy_tokenizer, "labelled_boxes", ["dog", "dog house"])
    dog, house = spelled(toy_tokenizer, "dog"), spelled(toy_tokenizer, "dog house")
    assert house[: len(dog)] == dog
    where = toy_tokenizer.vocabulary.loc(5)
    assert allows(guide, [0, *dog], where) and allows(guide, [0, *dog], house[len(dog)])
    assert not allows(guide, [0, *house[:-1]], where) and allows(guide, [0, *house], where)
    assert not allows(guide, [0], where)  # a box has a label
    box = [where] * 4
    assert allows(guide, [0, *dog, *box], where)  # another dog
    assert not allows(guide_of(toy_tokenizer, "labelled_quads", ["dog"]), [0, *dog, *box, *box], where)
    assert allows(guide_of(toy_tokenizer, "labelled_boxes", ["dog"], unlabelled=True), [0], where)


def test_prose_from_a_list_is_never_empty(toy_tokenizer):
    eos = toy_tokenizer.vocabulary.eos
    for name in ("text", "region_text"):
        guide = guide_of(toy_tokenizer, name, ["dog house"])
        ids = spelled(toy_tokenizer, "dog house")
        assert [allows(guide, [0, *ids[:n]], eos) for n in range(len(ids) + 1)] == [False] * len(ids) + [True]


def test_a_first_id_that_is_not_forced_may_come(toy_tokenizer):
    vocabulary = toy_tokenizer.vocabulary
    guide = guide_of(toy_tokenizer, "boxes")
    assert allows(guide, [], vocabulary.bos) and allows(guide, [], vocabulary.eos)
    assert not allows(guide, [0], vocabulary.bos)


def test_words_of_a_caption(toy_tokenizer):
    """All runs of whole words, as they stand there, each spelled as labels are; nothing else."""
    guide = AnswerGuide(toy_tokenizer.vocabulary, grammar("labelled_boxes"), words_of(toy_tokenizer, CAPTION))
    where = toy_tokenizer.vocabulary.loc(5)

    def said(label):
        ids = spelled(toy_tokenizer, label)
        prefixes_fit = all(allows(guide, [0, *ids[:n]], ids[n]) for n in range(len(ids)))
        return prefixes_fit and allows(guide, [0, *ids], where)

    spans = ["A", "A red apple", "red apple, and the", "dog's green", "dog", "door handle", "2 wheels", "handle; 2"]
    spans.append(CAPTION)
    assert all(map(said, spans))
    others = ["cactus", "a red", "red app", "apple,", " red", "apple the", "handle;", "re", "", "oor handle"]
    assert not any(map(said, others))
    assert words_of(toy_tokenizer, "?!").children == [{}]


def test_states_are_worked_out_once(toy_tokenizer):
    guides = Guides(toy_tokenizer)
    [prompt] = as_prompts("<OD>")
    guide = guides.guide(task("<OD>"), prompt, {"labels": ["dog"]})
    assert guides.guide(task("<OD>"), prompt, {"labels": ["dog"]}) is guide
    assert guides.guide(task("<OD>"), prompt, {}) is not guide
    place = guide.advance(guide.start, 0)
    assert guide.allowed(place) is guide.allowed(place)


# ---- answers of a network that wants something else


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def florence(request, toy_tokenizer) -> Florence:
    return tiny_florence(toy_tokenizer, request.param)


@pytest.fixture(scope="module")
def image(florence):
    return florence.encode(noise_image(1))


def answers(florence, image, prompts, **options):
    """Greedy, of beams and drawn ones."""
    return [result for way in WAYS for result in florence.run(image, prompts, **way, **options)]


def test_no_answer_has_a_parse_error(florence, image):
    prompts = [Prompt(card.name, **inputs_of(card.name)) for card in tasks()]
    guided = answers(florence, image, prompts)
    assert [result.parse_errors for result in guided] == [0] * len(guided)
    assert sum(len(result.instances) for result in guided) > len(tasks())
    free = answers(florence, image, prompts, constrained=False)
    assert sum(result.parse_errors > 0 for result in free) > len(free) / 3  # of the same network


def test_labels_of_a_closed_list(florence, image):
    region = (10, 10, 60, 50)
    prompts = ["<OD>", "<DENSE_REGION_CAPTION>", "<OCR_WITH_REGION>", Prompt("<REGION_TO_CATEGORY>", region=region)]
    prompts += [Prompt("<REGION_TO_DESCRIPTION>", region=region), Prompt("<VQA>", text="what?"), "what is it?"]
    for result in answers(florence, image, prompts, labels=LABELS):
        assert result.parse_errors == 0
        assert result.text in (LABELS if result.score is not None else [""])
        assert {item.label for item in result.instances} <= set(LABELS)


def test_a_grounding_says_words_of_its_caption(florence, image):
    found = set()
    for result in answers(florence, image, [Prompt("<CAPTION_TO_PHRASE_GROUNDING>", text=f" {CAPTION} ")]):
        found |= {item.label for item in result.instances}
    assert found and all(re.search(rf"(?<!\w){re.escape(label)}(?!\w)", CAPTION) for label in found)


def test_an_open_vocabulary_says_its_phrases(florence, image):
    phrases = ["dog", " a red apple "]
    for result in answers(florence, image, [Prompt("<OPEN_VOCABULARY_DETECTION>", phrases=phrases)]):
        assert {item.label for item in result.instances} <= {"dog", "a red apple"}


def test_a_free_prompt_may_be_answered_in_any_form(florence, image):
    free, same = (florence.run(image, "what is it?", **way).token_ids for way in ({}, {"constrained": False}))
    assert free == same


def test_compat_and_a_switch_turn_it_off(florence, image):
    [od] = as_prompts("<OD>")
    guides = florence.answering.guides
    assert guides.guide(task("<OD>"), od, {}) is not None
    for off in ({"compat": True}, {"constrained": False}, {"compat": True, "constrained": True}):
        assert guides.guide(task("<OD>"), od, off) is None


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("<OD>", {"labels": []}, r"labels is \[\]; it must be a list of at least one string"),
        ("<OD>", {"labels": "dog"}, "labels is 'dog'"),
        ("<OD>", {"labels": ["dog", " "]}, "labels is"),
        ("<OD>", {"labels": ["dog"], "constrained": False}, "labels are kept to by constrained=True alone"),
        ("<OD>", {"labels": ["dog"], "compat": True}, "labels are kept to by constrained=True alone"),
        ("<OD>", {"constrained": 1}, "constrained is 1; it must be True or False"),
        ("<REGION_PROPOSAL>", {"labels": ["dog"]}, "task <REGION_PROPOSAL> writes no labels"),
        ("<OD>", {"labels": ["dog", "dog " * 30]}, "labels: 'dog dog .* takes .* tokens, an answer has at most 24"),
        ("<OD>", {"guide": "dog"}, "guide = 'dog' must be a state machine"),
        (
            "<OPEN_VOCABULARY_DETECTION>",
            {"phrases": ["cat"], "labels": ["dog"]},
            "labels of task <OPEN_VOCABULARY_DETECTION> are its phrases: leave labels out",
        ),
    ],
)
def test_what_cannot_be_asked(florence, prompt, options, message):
    with pytest.raises(ValueError, match=message):
        florence.run(noise_image(0), prompt, **options)
