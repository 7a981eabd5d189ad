"""Presence of phrases: what it is, what it decides, and that it depends on nothing else that is asked."""

import math

import pytest
import torch

from florence_lite import Prompt
from florence_lite.cards import Calibration, task
from florence_lite.florence import Florence
from tests.tiny import SIDES, noise_image, tiny_florence

DETECTION, SEGMENTATION = "<OPEN_VOCABULARY_DETECTION>", "<REFERRING_EXPRESSION_SEGMENTATION>"
WORDS = ["apple", "green", "door", "wheels", "dog", "cat", "sign", "light", "red handle", "yellow building", "stop"]
PHRASES = [*WORDS, *(f"{one} {other}" for one in WORDS[:4] for other in WORDS)]
IMAGE = noise_image(0)


@pytest.fixture(scope="module", params=SIDES)
def florence(request, toy_tokenizer):
    return tiny_florence(toy_tokenizer, request.param)


@pytest.fixture(scope="module")
def median(florence) -> float:
    """A threshold that about half of the phrases reach."""
    found = sorted(florence.detect(IMAGE, PHRASES, threshold=1.0).presence.values())
    return (found[len(found) // 2] + found[len(found) // 2 - 1]) / 2


@pytest.mark.parametrize("name", [DETECTION, SEGMENTATION])
def test_presence_is_the_odds_of_coordinates_against_the_end(florence, name):
    """With the words of the phrase before them where an answer repeats it: to the encoder's side, in detection."""
    model, vocabulary = florence.model, florence.tokenizer.vocabulary
    phrase, on_decoder = "red handle", florence.model.config.prompt_side == "decoder"
    prompt = florence.tokenizer.encode_prompt(task(name).prompt(phrases=[phrase]))
    label = [] if on_decoder or name == SEGMENTATION else florence.tokenizer.encode_plain(phrase)
    with torch.inference_mode():
        features = model.encode_image(florence.preprocessor([IMAGE]))
        cross = model.cross_cache(model.encode(features, None if on_decoder else torch.tensor([prompt]))[0])
        prefix = [*(prompt if on_decoder else [2]), 0]
        logprobs = model.logits(model.decode(torch.tensor([[*prefix, *label]]), cross))[0].double().log_softmax(-1)
    opening = logprobs[len(prefix) - 1 :]
    places = [*range(vocabulary.loc_first, vocabulary.loc_first + vocabulary.bins), vocabulary.poly_open]
    named = sum(opening[place, token].item() for place, token in enumerate(label))
    log_odds = named + opening[-1, places].logsumexp(-1).item() - opening[0, vocabulary.eos].item()
    result = florence.run(IMAGE, name, phrases=[phrase])
    assert result.presence == {phrase: pytest.approx(1 / (1 + math.exp(-log_odds)), abs=1e-5)}


def test_a_threshold_decides_what_is_answered(florence, median):
    result = florence.detect(IMAGE, PHRASES, threshold=median)
    present = [phrase for phrase in PHRASES if result.presence[phrase] >= median]
    assert list(result.presence) == PHRASES and 5 < len(present) < len(PHRASES) - 5
    for phrase in PHRASES:
        alone = florence.detect(IMAGE, [phrase], threshold=median)
        assert (len(alone.token_ids) > 2) == (phrase in present)  # no answer but the forced id and the end
        if phrase not in present:
            assert alone.absent == (phrase,) and not alone.instances and not alone.parse_errors
    assert not florence.detect(IMAGE, PHRASES, threshold=1.0).instances
    all_answered = florence.detect(IMAGE, PHRASES[:5], threshold=0.0)
    assert len(all_answered.token_ids) > 2 * 5 and set(all_answered.presence) == set(PHRASES[:5])


def test_phrases_do_not_depend_on_each_other(florence, median):
    """Hundreds together, of several images, beside other tasks: as each alone."""
    images = [florence.encode(noise_image(seed)) for seed in range(3)]
    options = {"threshold": median, "num_beams": 1}
    together = florence.run(
        [image for image in images for _ in range(3)],
        [Prompt(DETECTION, phrases=PHRASES), Prompt("<OD>"), Prompt(SEGMENTATION, phrases=["dog"])] * 3,
        **options,
    )
    for number, image in enumerate(images):
        found, alone = together[3 * number], [florence.detect(image, [phrase], **options) for phrase in PHRASES]
        assert found.token_ids == tuple(token for each in alone for token in each.token_ids)
        expected = {phrase: each.presence[phrase] for phrase, each in zip(PHRASES, alone, strict=True)}
        assert found.presence == pytest.approx(expected, abs=1e-4)
        assert found.scores == pytest.approx([score for each in alone for score in each.scores], abs=1e-4)
        assert together[3 * number + 1].token_ids == florence.run(image, "<OD>").token_ids
        assert not together[3 * number + 1].presence


def test_without_a_calibration_coordinates_must_be_likelier_than_the_end(florence):
    result = florence.detect(IMAGE, PHRASES)
    assert result == florence.detect(IMAGE, PHRASES, threshold=0.5) and florence.calibration is None


def test_a_calibration_moves_presence_and_has_a_threshold(florence, median):
    plain = florence.detect(IMAGE, PHRASES, threshold=1.0).presence
    calibration = Calibration(beta=0.7, temperature=2.0, threshold=0.6)
    other = Florence(florence.model, florence.tokenizer, florence.card, calibration=calibration)
    result = other.detect(IMAGE, PHRASES)
    for phrase, presence in result.presence.items():
        log_odds = math.log(plain[phrase] / (1 - plain[phrase]))
        assert presence == pytest.approx(1 / (1 + math.exp(-(log_odds - 0.7) / 2)), abs=1e-4)
    assert result == other.detect(IMAGE, PHRASES, threshold=0.6) and other.calibration == calibration


def test_other_tasks_drop_what_scores_less(florence):
    tasks = ("<OD>", "<REGION_PROPOSAL>", "<OCR_WITH_REGION>")
    asked = [(noise_image(seed), name) for seed in range(4) for name in tasks]
    answers = [(image, florence.run(image, name)) for image, name in asked]
    image, every = next((image, each) for image, each in answers if any(i.bounds is not None for i in each.instances))
    limit = max(item.score for item in every.instances if item.bounds is not None)
    kept = florence.run(image, every.task, threshold=limit)
    assert [item for item in every.instances if item.bounds is None or item.score >= limit] == list(kept.instances)
    assert kept.dropped == len(every.instances) - len(kept.instances) and not kept.presence
    assert florence.run(image, every.task, threshold=0.0) == every
    assert not florence.run(image, every.task, threshold=1.0).boxes_xyxy.size


@pytest.mark.parametrize("options", [{"compat": True}, {"do_sample": True, "seed": 1}])
def test_ids_that_are_taken_as_they_come_ask_no_presence(florence, options):
    assert not florence.detect(IMAGE, ["dog"], **options).presence
    assert florence.detect(IMAGE, ["dog"], **options, threshold=0.5).presence


@pytest.mark.parametrize("threshold", [-0.1, 1.5, "high", True, float("nan")])
def test_thresholds_that_are_none(florence, threshold):
    with pytest.raises(ValueError, match=r"threshold is .*; it must be a number from 0 to 1"):
        florence.run("no-such-file.png", "<OD>", threshold=threshold)


def test_a_phrase_longer_than_the_position_table(florence):
    long = "dog " * 400
    with pytest.raises(ValueError, match=r"the prompt 'Locate dog dog .*…' has \d+ tokens; the network takes \d+"):
        florence.detect(IMAGE, ["cat", long])


def test_ten_thousand_phrases(florence):
    """In many batches; nothing is decoded of those that are absent."""
    many = [f"{number}" for number in range(10_000)]
    result = florence.detect(IMAGE, many, threshold=1.0, keep_image=False)
    assert list(result.presence) == many and list(result.absent) == many
