import sys

import pytest
import torch

from florence_lite.engine import GenerationOptions, generate, score
from florence_lite.engine.score import picked
from tests.engine.models import lively_model, random_states

PREFIXES = [[2], [0, 9, 8, 7, 2], [0, 11, 2], [2]]
ANSWERS = [[0, 5, 6, 7, 2], [0, 2], [], [0, 40, 41, 42, 43, 44, 45, 2]]
LOCATIONS, NEAR = range(40, 60), 2


@pytest.fixture(scope="module")
def model():
    return lively_model()


def test_scores_are_the_probabilities_of_the_network(model):
    states, mask = random_states(model, 2)
    results = score(model, states, mask, PREFIXES, ANSWERS, LOCATIONS, NEAR)
    for row, (prefix, answer, result) in enumerate(zip(PREFIXES, ANSWERS, results, strict=True)):
        assert result.token_logprobs.shape == (len(answer),)
        assert result.location_logprobs.shape == result.tolerance_logprobs.shape == (len(answer),)
        image = slice(row // 2, row // 2 + 1)
        for place, token in enumerate(answer):
            ids = torch.tensor([prefix + answer[:place]])
            with torch.inference_mode():
                hidden = model.decode(ids, model.cross_cache(states[image]), mask[image])
                probabilities = model.logits(hidden[0, -1]).softmax(-1)
            assert result.token_logprobs[place].exp() == pytest.approx(probabilities[token].item(), abs=1e-6)
            of_bins = probabilities[LOCATIONS.start : LOCATIONS.stop]
            assert result.location_logprobs[place].exp() == pytest.approx(of_bins.sum().item(), abs=1e-6)
            if token in LOCATIONS:
                chosen = token - LOCATIONS.start
                near = of_bins[max(0, chosen - NEAR) : chosen + NEAR + 1].sum() / of_bins.sum()
                assert result.tolerance_logprobs[place].exp() == pytest.approx(near.item(), abs=1e-6)
            else:
                assert result.tolerance_logprobs[place].isnan()


def test_batch_equals_single_and_chunks_do_not_matter(model, monkeypatch):
    states, mask = random_states(model, 2)
    together = score(model, states, mask, PREFIXES, ANSWERS, LOCATIONS, NEAR)
    monkeypatch.setattr(sys.modules["florence_lite.engine.score"], "LOGITS_AT_ONCE", 1)  # one row at a time
    cross = model.cross_cache(states)
    for row, result in enumerate(together):
        image = torch.tensor([row // 2])
        prefixes, answers = [PREFIXES[row]], [ANSWERS[row]]
        (alone,) = score(model, states[image], mask[image], prefixes, answers, LOCATIONS, NEAR, cross.select(image))
        for name in ("token_logprobs", "location_logprobs", "tolerance_logprobs"):
            torch.testing.assert_close(getattr(alone, name), getattr(result, name), equal_nan=True)


def test_vocabulary_wide_scores_are_bounded(model, monkeypatch):
    """However long the batch, the logits of at most LOGITS_AT_ONCE entries exist at a time."""
    states, mask = random_states(model, 1)
    sizes = []
    logits = model.logits
    monkeypatch.setattr(model, "logits", lambda hidden: sizes.append(hidden.shape[0]) or logits(hidden))
    monkeypatch.setattr(sys.modules["florence_lite.engine.score"], "LOGITS_AT_ONCE", 120 * 7)
    score(model, states, mask, [[2]] * 5, [[0, *range(4, 20), 2]] * 5)
    assert max(sizes) == 7 and sum(sizes) == 5 * 18


@torch.inference_mode()
def test_means_of_near_locations(model):
    """Of the written location and its neighbours, by hand; no id but a location has one."""
    states, mask = random_states(model, 1)
    answer = [5, LOCATIONS[3], LOCATIONS[0], 2]
    (scores,) = score(model, states, mask, [[2]], [answer], LOCATIONS, NEAR)
    hidden = model.decode(torch.tensor([[2, *answer[:-1]]]), model.cross_cache(states), mask)[0]
    for place, bin in ((1, 3), (2, 0)):
        near = range(max(bin - NEAR, 0), min(bin + NEAR + 1, len(LOCATIONS)))
        weights = model.logits(hidden[place])[[LOCATIONS[each] for each in near]].softmax(-1)
        expected = sum(float(weight) * each for weight, each in zip(weights, near, strict=True))
        assert float(scores.mean_bins[place]) == pytest.approx(expected, abs=1e-4)
    assert scores.mean_bins.isnan().tolist() == [True, False, False, True]


def test_greedy_answers_score_as_the_likeliest(model):
    states, mask = random_states(model, 1)
    (answer,) = generate(model, states, mask, [[2]], GenerationOptions(12, forced_bos=None))
    (greedy,) = score(model, states, mask, [[2]], [answer.ids])
    for place in range(len(answer.ids) - answer.truncated):
        changed = list(answer.ids)
        changed[place] = 50 if changed[place] != 50 else 51
        (other,) = score(model, states, mask, [[2]], [changed])
        assert other.token_logprobs[place] < greedy.token_logprobs[place]


def test_no_answers_at_all(model):
    states, mask = random_states(model, 1)
    assert score(model, states, mask, [], []) == []
    (empty,) = score(model, states, mask, [[2]], [[]], LOCATIONS, NEAR)
    assert empty.token_logprobs.shape == empty.location_logprobs.shape == empty.tolerance_logprobs.shape == (0,)


@pytest.mark.parametrize(
    "prefixes, answers, message",
    [
        ([[2]], [[5]] * 2, "1 prefixes and 2 answers for 1 images"),
        ([[]], [[5]], "a prefix is empty"),
        ([[2]], [[5] * 129], "the length of the answer = 129 need 129 positions, the model has 128"),
    ],
)
def test_rows_that_do_not_fit(model, prefixes, answers, message):
    states, mask = random_states(model, 1)
    with pytest.raises(ValueError, match=message):
        score(model, states, mask, prefixes, answers)


def test_apples_gpus_do_not_gather_over_the_vocabulary(monkeypatch):
    """A tensor that says it is there, since there is none here."""
    numbers, ids = torch.randn(5, 70).log_softmax(-1), torch.tensor([0, 69, 7, 7, 33])
    expected = picked(numbers, ids)
    assert torch.equal(expected, numbers[torch.arange(5), ids])

    class There(torch.Tensor):
        device = torch.device("mps")
        gather = None

    numbers[0, 1] = -torch.inf  # of an id that cannot be
    assert torch.equal(picked(numbers.as_subclass(There), ids).as_subclass(torch.Tensor), expected)
