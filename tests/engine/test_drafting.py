"""Ids that are guessed and checked together are those of single steps, and so are the states, to the last bit."""

import pytest
import torch

from florence_lite.engine import GenerationOptions, generate
from florence_lite.engine.fast import FastModel
from florence_lite.engine.fast import model as fast_model
from florence_lite.engine.fast.steps import FastSteps
from florence_lite.engine.generate import DecodingBatch, start_search
from florence_lite.engine.prefill import prefill
from florence_lite.engine.steps import Source
from tests.engine.models import lively_model, random_states
from tests.engine.test_steps import Breaks

pytestmark = pytest.mark.usefixtures("build")


class Fours:
    """A word, then four ids of a range, and so on; it may end where a word is due."""

    start = 0

    def advance(self, state, token_id):
        return 0 if token_id == 0 else (state + 1) % 5

    def allowed(self, state):
        return (range(60, 80),) if state else (range(2, 3), range(20, 60))


def answers(monkeypatch, model, drafts, *given, **named):
    """With or without drafts, and how many steps and looks ahead it took."""
    monkeypatch.setattr(fast_model, "BYTES_IN_CACHES", 0 if drafts else 2**40)
    made = {"_read": 0, "ahead": 0}
    with monkeypatch.context() as patched:
        for name in made:
            former = getattr(FastSteps, name)

            def counted(*given, name=name, former=former):
                made[name] += 1
                return former(*given)

            patched.setattr(FastSteps, name, counted)
        return generate(FastModel(model), *given, **named), made


def check(monkeypatch, *given, **named):
    expected, _ = answers(monkeypatch, given[0], False, *given[1:], **named)
    found, made = answers(monkeypatch, given[0], True, *given[1:], **named)
    for one, other in zip(found, expected, strict=True):
        assert one == other
        assert (one.states is None) == (other.states is None)
        assert one.states is None or torch.equal(one.states, other.states)
    return found, made


OPTIONS = {
    "plain": {},
    "3-grams": {"no_repeat_ngram_size": 3},
    "bigrams, not empty": {"no_repeat_ngram_size": 2, "not_empty": True},
    "nothing forced": {"forced_bos": None},
    "guide": {"guide": Fours()},
    "guide and 3-grams": {"guide": Fours(), "no_repeat_ngram_size": 3},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("gain", [5.0, None])
def test_one_answer(monkeypatch, name, gain):
    """Some end by themselves, inside of a draft too, the others at every length around that of a draft."""
    lengths = set()
    for seed in (0, 2, 3, 4, 5):
        model = lively_model(seed=seed, eos_gain=gain)
        states, _ = random_states(model, 1, seed)
        for prefix in ([2], [5, 6, 7]):
            for most in (1, 2, 4, 5, 6, 9, 40):
                options = GenerationOptions(most, **OPTIONS[name])
                found, made = check(monkeypatch, model, states, None, [prefix], options)
                lengths.add(len(found[0].ids))
                assert made["ahead"] > 0 or len(found[0].ids) < 4
    assert len(lengths) > 4


@pytest.mark.parametrize("images", [1, 2])
def test_several_answers(monkeypatch, images):
    for seed in range(4):
        model = lively_model(seed=seed, eos_gain=None)
        states, mask = random_states(model, images, seed)
        options = [GenerationOptions(most, no_repeat_ngram_size=3, guide=guide) for most, guide in
                   ((30, None), (7, None), (19, Fours()), (30, Fours()))]  # fmt: skip
        _, made = check(monkeypatch, model, states, mask, [[2], [5, 6, 7], [2], [9, 9]], options)
        assert made["ahead"] > 0


def test_other_searches_are_made_step_by_step(monkeypatch):
    model = lively_model()
    states, _ = random_states(model, 1)
    for options in (GenerationOptions(12, num_beams=3), GenerationOptions(12, do_sample=True, seed=3)):
        assert check(monkeypatch, model, states, None, [[2]], options)[1]["ahead"] == 0
    mixed = [GenerationOptions(12), GenerationOptions(12, num_beams=3)]
    check(monkeypatch, model, states, None, [[2], [2]], mixed)


def test_guesses_save_steps(monkeypatch):
    """Most come true; the network is asked far less often than once an id."""
    model = lively_model(eos_gain=None)
    states, _ = random_states(model, 1)
    _, made = check(monkeypatch, model, states, None, [[2]], GenerationOptions(60))
    assert made["ahead"] < 25


def test_wrong_guesses_change_nothing(monkeypatch):
    model = lively_model(eos_gain=None)
    states, _ = random_states(model, 1)
    monkeypatch.setattr(FastSteps, "draft_logits", lambda self, hidden, ids: torch.randn(len(hidden), len(ids)))
    torch.manual_seed(0)
    _, made = check(monkeypatch, model, states, None, [[2]], GenerationOptions(60))
    assert 0 < made["ahead"] < 20 and made["_read"] < 120  # and soon hardly any are made


@pytest.mark.parametrize("method", ["advance", "allowed"])
def test_an_error_of_a_guide_comes_when_it_comes_without_guesses(monkeypatch, method):
    """At the same step, although guesses meet it earlier; and the answer beside it is the same."""
    model = lively_model(eos_gain=None)
    states, mask = random_states(model, 1)
    seen = []
    for bytes_in_caches in (0, 2**40):
        monkeypatch.setattr(fast_model, "BYTES_IN_CACHES", bytes_in_caches)
        network = FastModel(model)
        batch, cross = DecodingBatch(network), network.cross_cache(states)
        searches = [start_search(2, GenerationOptions(20, guide=guide)) for guide in (Breaks(method, 9), None)]
        for search in searches:
            [read] = prefill(network, cross, mask, [[2, 0]], [0])
            batch.enter(search, read, Source(cross, mask), 90)
        steps = 0
        while searches[0].fault is None:
            batch.step()
            steps += 1
        assert isinstance(searches[0].fault, LookupError)
        while batch:
            batch.step()
        seen.append((steps, searches[1].result))
    assert seen[0] == seen[1] and seen[0][0] > 5
