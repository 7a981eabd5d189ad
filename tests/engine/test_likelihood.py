import sys

import pytest
import torch

from florence_lite.engine import score
from florence_lite.engine.likelihood import likelihoods, log_odds
from tests.engine.models import lively_model, random_states

PREFIX = [0, 9, 8, 2]
TEXTS = [[5, 6, 7, 2], [2], [40, 41, 42, 43, 44, 45, 2], [5, 2], [8, 9, 2]]


@pytest.fixture(scope="module")
def model():
    return lively_model()


@pytest.mark.parametrize("tokens_at_once", [1, 25, 10**6])
def test_sums_of_the_scores_of_single_texts(model, tokens_at_once):
    states, mask = random_states(model, 2)
    found = likelihoods(model, model.cross_cache(states), mask, PREFIX, TEXTS, tokens_at_once)
    assert found.shape == (2, len(TEXTS)) and found.dtype == torch.float64
    for image in range(2):
        rows = slice(image, image + 1)
        for number, text in enumerate(TEXTS):
            (alone,) = score(model, states[rows], mask[rows], [PREFIX], [text])
            assert found[image, number] == pytest.approx(alone.token_logprobs.double().sum().item(), abs=1e-4)
    assert (found[0] - found[1]).abs().max() > 1e-3  # the images count


def test_ids_without_a_token_have_no_share(model):
    states, _ = random_states(model, 1)
    whole, fewer = (likelihoods(model, model.cross_cache(states), None, PREFIX, TEXTS, 100, n) for n in (None, 60))
    assert (fewer >= whole).all() and (fewer > whole).sum() >= 4


@pytest.mark.parametrize("tokens_at_once", [1, 9, 10**6])
def test_log_odds_of_the_next_id(model, tokens_at_once):
    states, mask = random_states(model, 2)
    prefixes = [PREFIX, [2], [0, 11, 12, 13, 14, 2]]
    found = log_odds(model, model.cross_cache(states), mask, prefixes, 30, 31, tokens_at_once)
    assert found.shape == (2, 3)
    for image in range(2):
        rows = slice(image, image + 1)
        for number, prefix in enumerate(prefixes):
            one, other = (
                score(model, states[rows], mask[rows], [prefix], [[each]])[0].token_logprobs.item() for each in (30, 31)
            )
            assert found[image, number] == pytest.approx(one - other, abs=1e-4)


def test_few_ids_go_through_the_network_together(model, monkeypatch):
    states, _ = random_states(model, 2)
    cross, sizes, decode = model.cross_cache(states), [], model.decode
    monkeypatch.setattr(model, "decode", lambda ids, *rest: sizes.append(ids.numel()) or decode(ids, *rest))
    monkeypatch.setattr(sys.modules["florence_lite.engine.score"], "LOGITS_AT_ONCE", 1)
    likelihoods(model, cross, None, PREFIX, TEXTS * 10, 60)
    log_odds(model, cross, None, [PREFIX] * 50, 30, 31, 60)
    assert max(sizes) <= 60


@pytest.mark.parametrize(
    ("text", "message"), [([], "a text is empty"), ([5] * 129, "the length of the text = 129 need 132 positions")]
)
def test_texts_that_do_not_fit(model, text, message):
    states, _ = random_states(model, 1)
    with pytest.raises(ValueError, match=message):
        likelihoods(model, model.cross_cache(states), None, PREFIX, [[2], text], 100)
