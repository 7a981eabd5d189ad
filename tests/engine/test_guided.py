"""Guides in the decoding loop: only allowed ids come, as if all others had probability 0."""

import math

import pytest
import torch

from florence_lite.engine import GenerationOptions, generate
from florence_lite.engine.generate import DecodingBatch, decoding_steps
from tests.engine.models import EOS, lively_model, random_states

SIZE = 90  # ids of the tiny network that take part


class Cycle:
    """Allows the ranges in turn, whatever was written."""

    start = 0

    def __init__(self, *steps: tuple[range, ...]):
        self.steps = steps

    def advance(self, state: int, token_id: int) -> int:
        return state + 1

    def allowed(self, state: int) -> tuple[range, ...]:
        return self.steps[state % len(self.steps)]


END = range(EOS, EOS + 1)
PAIRS = Cycle((range(40, 60),), (END, range(20, 25), range(30, 31), range(80, SIZE)))
ANYTHING = Cycle((range(SIZE),))
NARROW = Cycle((range(50, 52),), (range(51, 53),), (range(70, 72), END))
MIXED = [
    GenerationOptions(12, guide=PAIRS),
    GenerationOptions(12),
    GenerationOptions(12, num_beams=3, guide=PAIRS),
    GenerationOptions(12, num_beams=4, guide=NARROW, early_stopping=False),
    GenerationOptions(12, do_sample=True, seed=3, guide=PAIRS),
    GenerationOptions(12, do_sample=True, seed=3, temperature=2.0, top_k=3, guide=NARROW),
    GenerationOptions(12, num_beams=3, no_repeat_ngram_size=1, guide=NARROW),
    GenerationOptions(12, guide=PAIRS, forced_bos=None),
]
PREFIXES = [[2], [0, 9, 8, 7, 2], [0, 11, 2], [2], [0, 5, 2], [0, 30, 31, 2], [0, 9, 2], [2]]


def masked_full_head(batch, hidden):
    """What `DecodingBatch.scores` saves: all rows of the output layer, then a mask."""
    scores = batch.model.logits(hidden).float()[:, :SIZE]
    for search in batch.searches:
        for row, state in zip(search.rows, search.states, strict=True):
            if search.options.guide is not None:
                allowed = [token for ids in search.options.guide.allowed(state) for token in ids]
                banned = torch.ones(scores.shape[1], dtype=torch.bool)
                banned[allowed] = False
                scores[row, banned] = -math.inf
    return scores


@pytest.fixture(scope="module")
def model():
    return lively_model()


@pytest.mark.parametrize("images", [1, 2, 4])
@pytest.mark.parametrize("seed", [0, 2, 5])
def test_rows_of_the_output_layer_equal_a_mask(monkeypatch, images, seed):
    model = lively_model(seed=seed)
    states, mask = random_states(model, images)
    found = generate(model, states, mask, PREFIXES, MIXED, vocab_size=SIZE)
    with monkeypatch.context() as patched:
        patched.setattr(DecodingBatch, "scores", masked_full_head)
        assert found == generate(model, states, mask, PREFIXES, MIXED, vocab_size=SIZE)
    for answer, options in zip(found, MIXED, strict=True):
        if options.guide is not None:
            ids = answer.ids[:-1] if answer.truncated else answer.ids
            forced = int(options.forced_bos is not None)
            assert all(
                any(token in each for each in options.guide.allowed(place))
                for place, token in enumerate(ids)
                if place >= forced
            )
    assert (
        found[1]
        == generate(
            model,
            states[1 // (8 // images)][None],
            mask[1 // (8 // images)][None],
            PREFIXES[1:2],
            MIXED[1],
            vocab_size=SIZE,
        )[0]
    )


@pytest.mark.parametrize("way", [{}, {"num_beams": 3}, {"do_sample": True, "seed": 1}])
def test_a_guide_that_allows_everything_changes_nothing(model, way):
    states, mask = random_states(model, 2)
    free, guided = (
        generate(model, states, mask, [[2], [0, 5, 2]], GenerationOptions(14, guide=guide, **way), vocab_size=SIZE)
        for guide in (None, ANYTHING)
    )
    assert free == guided


def test_only_the_rows_of_allowed_ids_are_computed(model, monkeypatch):
    states, mask = random_states(model, 1)
    computed = []
    logits = model.logits
    monkeypatch.setattr(
        model, "logits", lambda hidden, ids=None: (computed.append((len(hidden), ids)), logits(hidden, ids))[1]
    )
    generate(model, states, mask, [[2]] * 3, [GenerationOptions(4, guide=guide) for guide in (PAIRS, PAIRS, NARROW)])
    first = [(2, ids) for ids in PAIRS.allowed(1)] + [(1, ids) for ids in NARROW.allowed(1)]
    assert computed[: len(first)] == first


def test_beams_have_probabilities_over_what_is_allowed(model):
    """Both ends are the only ids that are allowed: whichever is taken is certain and costs nothing."""
    states, mask = random_states(model, 1)
    steps = decoding_steps(model, states, mask, [[2]], GenerationOptions(9, num_beams=2, guide=Cycle((range(50, 51),))))
    for [search] in steps:
        assert search.result is not None or search.scores == [0.0]


@pytest.mark.parametrize("way", [{}, {"num_beams": 2}, {"do_sample": True, "seed": 1}])
def test_the_rule_of_ngrams_yields_where_a_guide_leaves_nothing_else(model, way):
    states, mask = random_states(model, 1)
    guide = Cycle((range(50, 51),), (range(51, 53),))
    [answer] = generate(model, states, mask, [[2]], GenerationOptions(7, no_repeat_ngram_size=1, guide=guide, **way))
    assert answer.ids[2::2][:2] == [50, 50] and sorted(answer.ids[1:5:2]) == [51, 52]


def test_what_is_certain_only_grows(model):
    """And is a beginning of the answer at every step; of beams it is what all of them have in common."""
    states, mask = random_states(model, 2)
    options = [GenerationOptions(12), GenerationOptions(12, num_beams=3), *MIXED[2:4]]
    known = [[] for _ in options]
    steps = 0
    for searches in decoding_steps(model, states, mask, [[2]] * 4, options):
        steps += 1
        for former, search in zip(known, searches, strict=True):
            assert search.certain[: len(former)] == former
            former[:] = search.certain
    assert known == [answer.ids for answer in generate(model, states, mask, [[2]] * 4, options)]
    assert steps > 5


def test_steps_are_taken_when_they_are_asked_for(model, monkeypatch):
    states, mask = random_states(model, 1)
    calls = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda *given, **more: (calls.append(1), decode(*given, **more))[1])
    steps = decoding_steps(model, states, mask, [[2]], GenerationOptions(12))
    next(steps)
    assert not calls
    next(steps), next(steps)
    steps.close()
    assert len(calls) == 2
