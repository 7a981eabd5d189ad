"""Answers bit by bit: what is told early is what `run` says in the end."""

import pytest
import torch

from florence_lite import Florence, Instance, Prompt, Result
from florence_lite.model import FlorenceModel
from tests.tiny import noise_image, tiny_florence

REGION = (10, 10, 60, 50)
PROMPTS = [
    Prompt("<OD>"),
    Prompt("<OPEN_VOCABULARY_DETECTION>", phrases=["dog", "a red apple", "猫"]),
    Prompt("<CAPTION_TO_PHRASE_GROUNDING>", text="the dog and a red apple, this café"),
    Prompt("<OCR_WITH_REGION>"),
    Prompt("<REFERRING_EXPRESSION_SEGMENTATION>", text="dog"),
    Prompt("<CAPTION>"),
    Prompt("<REGION_TO_DESCRIPTION>", region=REGION),
    Prompt("what is it?"),
]
WAYS = [
    {},
    {"num_beams": 3},
    {"do_sample": True, "seed": 4},
    {"constrained": False},
    {"constrained": False, "do_sample": True, "seed": 1},
    {"compat": True, "num_beams": 2},
    {"max_new_tokens": 11},
]


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def florence(request, toy_tokenizer) -> Florence:
    return tiny_florence(toy_tokenizer, request.param)


@pytest.fixture(scope="module")
def image(florence):
    return florence.encode(noise_image(3))


@pytest.mark.parametrize("way", WAYS)
def test_the_events_of_an_answer_are_what_it_says_in_the_end(florence, image, way):
    pieces = instances = 0
    for prompt in PROMPTS:
        *events, last = florence.stream(image, prompt, **way)
        whole = florence.run(image, prompt, **way)
        assert isinstance(last, Result) and last == whole
        assert (last.token_ids, last.image is whole.image) == (whole.token_ids, True)
        assert last.token_logprobs == pytest.approx(whole.token_logprobs, abs=1e-5)
        words = [event for event in events if isinstance(event, str)]
        told = [event for event in events if isinstance(event, Instance)]
        assert len(words) + len(told) == len(events) and all(words)
        if not whole.parse_errors:
            assert "".join(words) == whole.text
        assert_same_instances(told, whole.instances)
        pieces, instances = pieces + len(words), instances + len(told)
    assert pieces and instances


def assert_same_instances(told, instances):
    """Of several phrases, those of one that is answered sooner may be told before those of an earlier one."""
    assert len(told) == len(instances)
    left = list(told)
    for item in instances:
        bounds = item.bounds and pytest.approx(item.bounds, abs=1e-3)
        alike = (item.label, item.quad, item.polygons)
        same = next(each for each in left if (each.label, each.quad, each.polygons) == alike and each.bounds == bounds)
        left.remove(same)
        assert same.score == pytest.approx(item.score, abs=1e-5)


def steps_of(florence, monkeypatch) -> list:
    """Grows by one at each pass of the decoder."""
    steps = []
    decode = FlorenceModel.decode
    monkeypatch.setattr(
        florence.model, "decode", lambda *given, **more: (steps.append(1), decode(florence.model, *given, **more))[1]
    )
    return steps


def test_instances_come_as_soon_as_they_are_whole(plain_network, toy_tokenizer, monkeypatch):
    """The first one with its fourth coordinate, scored by the states that predicted it; closing ends the work."""
    florence = tiny_florence(toy_tokenizer, "encoder", eos_gain=None)
    image = florence.encode(noise_image(3))
    options = {"max_new_tokens": 60}
    [*told, whole] = [
        each for each in florence.stream(image, "<REGION_PROPOSAL>", **options) if not isinstance(each, str)
    ]
    assert len(told) > 2 and len(whole.token_ids) > 20
    steps = steps_of(florence, monkeypatch)
    events = florence.stream(image, "<REGION_PROPOSAL>", **options)
    assert not steps
    first = next(events)
    assert first == told[0]
    begins, ends = first.tokens
    assert len(steps) == ends - begins
    events.close()
    assert len(steps) == ends - begins


def test_weights_may_move_between_two_events(toy_tokenizer):
    """The kernels read the memory that an answer began with, which lives as long as the answer."""
    florence = tiny_florence(toy_tokenizer, "encoder", eos_gain=None)
    image, options = florence.encode(noise_image(3)), {"max_new_tokens": 60}
    whole = list(florence.stream(image, "<REGION_PROPOSAL>", **options))
    events = florence.stream(image, "<REGION_PROPOSAL>", **options)
    told = [next(events)]
    for parameter in florence.model.parameters():
        former, parameter.data = parameter.data, parameter.data.clone()
        del former  # and what comes next takes its place
    filling = [torch.full_like(parameter, 7) for parameter in florence.model.parameters()]
    assert [*told, *events] == whole and filling


def test_words_come_one_by_one(plain_network, toy_tokenizer, monkeypatch):
    florence = tiny_florence(toy_tokenizer, "encoder", eos_gain=None)
    image = florence.encode(noise_image(3))
    steps = steps_of(florence, monkeypatch)
    events = florence.stream(image, "<CAPTION>")
    seen = [(event, len(steps)) for event in events if isinstance(event, str)]
    assert len({count for _, count in seen[:-1]}) == len(seen) - 1 > 5


def test_characters_are_not_split(florence, image, toy_tokenizer):
    """猫 is three ids of one byte each, or more than one id at least."""
    label = "猫 café"
    assert len(toy_tokenizer.encode_plain("猫")) > 1
    *pieces, result = florence.stream(image, "what is it?", labels=[label])
    assert result.text == label == "".join(pieces)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_what_is_wrong_is_told_at_once(florence):
    for image, prompt, options, message in (
        (noise_image(0), "<OB>", {}, "unknown task"),
        (noise_image(0), "<OD>", {"num_beam": 2}, "did you mean 'num_beams'"),
        (noise_image(0), "<REGION_TO_CATEGORY>", {"region": (0, 0, 500, 500)}, "must lie in the image"),
        ("nowhere.png", "<OD>", {}, "nowhere.png"),
        (noise_image(0), "<VQA>", {"text": "dog " * 500}, "tokens; the network takes"),
        ([noise_image(0)], "<OD>", {}, "stream answers about one image, not a list"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            florence.stream(image, prompt, **options)


def test_a_network_that_sees():
    florence, picture = Florence.from_pretrained("scenes-nano"), "examples/meadow.png"
    for prompt in ("<OD>", Prompt("<OPEN_VOCABULARY_DETECTION>", phrases=["the sheep", "all animals"]), "<CAPTION>"):
        *events, last = florence.stream(picture, prompt)
        assert last == florence.run(picture, prompt)
        assert_same_instances([each for each in events if isinstance(each, Instance)], last.instances)
