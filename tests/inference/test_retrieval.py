"""Which texts suit which images."""

from dataclasses import replace

import numpy as np
import pytest

import florence_lite.inference.likelihoods as likelihoods_module
from florence_lite.inference.retrieval import probability, ranking_scores
from tests.tiny import noise_image

IMAGES = [noise_image(seed) for seed in range(3)]
TEXTS = ["a red apple", "the dog and the cat sit in front of a yellow building", "stop sign"]


# ---- formulas


def test_the_prior_is_what_a_text_gains_from_any_image():
    """A text that is likely whatever the image no longer comes first."""
    likely = np.log([[0.5, 0.2], [0.5, 0.01]])
    plain = ranking_scores(likely, likely, [1, 1], 0.0)
    np.testing.assert_allclose(plain, likely)
    scores = ranking_scores(likely, likely, [2, 4], 1.0)
    np.testing.assert_allclose(scores, np.log([[1, 0.2 / 0.105], [1, 0.01 / 0.105]]) / [2, 4])
    assert plain[0].argmax() == 0 and scores[0].argmax() == 1 and scores[1].argmax() == 0


def test_formulas_stand_tiny_probabilities():
    likely = np.array([[-5000.0, -9000.0], [-4000.0, -9100.0]])
    assert np.isfinite(ranking_scores(likely, likely, [9, 9], 1.0)).all()
    assert probability(np.array([-4000.0, 0.0, 4000.0])).tolist() == [0, 0.5, 1]


# ---- rank


def test_rank_both_ways(florence):
    ranking = florence.rank(IMAGES, TEXTS)
    assert ranking.scores.shape == ranking.log_likelihoods.shape == (3, 3) and ranking.texts == tuple(TEXTS)
    lengths = [len(florence.tokenizer.encode_plain(text)) + 1 for text in TEXTS]
    expected = ranking_scores(ranking.log_likelihoods, ranking.log_likelihoods, lengths, 0.5)
    np.testing.assert_allclose(ranking.scores, expected)
    assert ranking.texts_of(1) == np.argsort(-ranking.scores[1]).tolist()
    assert ranking.images_of(2) == np.argsort(-ranking.scores[:, 2]).tolist()
    assert ranking.to_dict()["scores"] == ranking.scores.tolist()


def test_every_pair_is_for_itself(florence):
    ranking = florence.rank(IMAGES, TEXTS)
    alone = florence.rank(IMAGES[0], [TEXTS[1]], background=IMAGES)
    np.testing.assert_allclose(alone.log_likelihoods, ranking.log_likelihoods[:1, 1:2], rtol=1e-4)
    np.testing.assert_allclose(alone.scores, ranking.scores[:1, 1:2], rtol=1e-3, atol=1e-5)


def test_texts_are_taken_for_captions(florence):
    """Their likelihoods are those of closed answers to the prompt of the caption, which the choices' tests check."""
    shares = florence.run(IMAGES[0], "<DETAILED_CAPTION>", choices=TEXTS).choices
    likely = florence.rank(IMAGES, TEXTS, detail="detailed").log_likelihoods[0]
    np.testing.assert_allclose(np.exp(likely - np.logaddexp.reduce(likely)), list(shares.values()), rtol=1e-3)
    assert np.abs(likely - florence.rank(IMAGES, TEXTS).log_likelihoods[0]).min() > 1e-3


def test_small_batches_and_generators(florence, monkeypatch):
    whole = florence.rank(IMAGES, TEXTS).scores
    matched = florence.match(IMAGES, TEXTS)
    monkeypatch.setattr(likelihoods_module, "TOKENS_AT_ONCE", 1)
    monkeypatch.setattr(likelihoods_module, "PROMPTS_AT_ONCE", 2)
    np.testing.assert_allclose(florence.rank(iter(IMAGES), TEXTS).scores, whole, atol=1e-4)
    np.testing.assert_allclose(florence.match(iter(IMAGES), TEXTS), matched, atol=1e-4)


# ---- match


def test_match_is_yes_against_no(florence):
    """Each pair for itself, from the first ids in which the two answers differ."""
    found = florence.match(IMAGES, TEXTS)
    assert found.shape == (3, 3) and found.dtype == np.float64 and (found > 0).all() and (found < 1).all()
    assert np.ptp(found, 0).min() > 1e-4 and np.ptp(found, 1).min() > 1e-4
    for row, image in enumerate(IMAGES):
        alone = florence.match(image, TEXTS[1:2])
        assert alone[0, 0] == pytest.approx(found[row, 1], abs=1e-5)


def test_log_odds_are_those_of_the_first_ids_that_differ(florence):
    """By the likelihoods of answers that end there."""
    likelihoods = florence.answering.likelihoods
    encoded, prompt = florence.encode(IMAGES), florence.tokenizer.encode_prompt("Does the image show this: a dog")
    one, other = "apple pie", "apple door"
    ids = [florence.tokenizer.encode_plain(text) for text in (one, other)]
    place = next(n for n, pair in enumerate(zip(*ids, strict=False)) if pair[0] != pair[1])
    assert place > 0
    parts = [florence.tokenizer.decode(each[: place + 1]) for each in ids]
    shared = florence.tokenizer.decode(ids[0][:place])
    cut = []
    for part in parts:  # without the end: P(part) = P(part and end) / P(end | part)
        likelihoods.ids = lambda text: florence.tokenizer.encode_plain(text)
        cut.append(likelihoods.of_texts(encoded, prompt, [part], 0)[:, 0])
        del likelihoods.ids
    assert shared and parts[0] != parts[1]
    np.testing.assert_allclose(likelihoods.odds(encoded, [prompt], one, other, 0)[:, 0], cut[0] - cut[1], atol=1e-3)


def test_match_needs_a_checkpoint_that_was_trained_for_it(florence, monkeypatch):
    monkeypatch.setattr(florence, "card", replace(florence.card, tasks=("<CAPTION>",)))
    with pytest.raises(ValueError, match="was not trained on <IMAGE_TEXT_MATCHING>.*use rank"):
        florence.match(IMAGES, TEXTS)
    assert florence.rank(IMAGES, TEXTS).scores.shape == (3, 3)


# ---- mistakes


@pytest.mark.parametrize("method", ["match", "rank"])
@pytest.mark.parametrize(
    ("images", "texts", "message"),
    [
        (IMAGES, [], r"texts=\[\] is empty; give at least one text"),
        (IMAGES, "a dog", r"texts is one string, 'a dog'; give a list"),
        (IMAGES, ["a dog", " "], "each with something in it"),
        (IMAGES, None, "texts must be a list of strings"),
        ([], TEXTS, "there are no images"),
        (["absent.png"], TEXTS, "absent.png"),
    ],
)
def test_mistakes(florence, method, images, texts, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        getattr(florence, method)(images, texts)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "one image does not tell how likely a text is anyway"),
        ({"background": []}, "there are no images"),
        ({"detail": "long"}, "detail is 'long'"),
        ({"prior_weight": -1}, "prior_weight is -1"),
    ],
)
def test_mistakes_of_rank(florence, more, message):
    with pytest.raises(ValueError, match=message):
        florence.rank(IMAGES[0], TEXTS, **more)
