"""Decoding steps of fixed shapes against the plain network's: same ids. On the CPU they are the same work without a
graph; `test_cuda.py` runs them as graphs."""

import pytest
import torch

from florence_lite.engine import GenerationOptions, generate
from florence_lite.engine.fast import FastModel
from florence_lite.engine.fast.graphs import Pool
from florence_lite.engine.fast.static_steps import Shape, StaticSteps, _rounded
from florence_lite.engine.prefill import prefill
from florence_lite.engine.steps import Source
from tests.engine.models import lively_model, random_states
from tests.engine.test_generate import MIXED, PREFIXES


def addresses(model) -> int:
    return hash(tuple(weight.data_ptr() for weight in model.parameters()))


class StaticModel(FastModel):
    """Steps of fixed shapes, and all else by the plain network."""

    def __init__(self, model):
        super().__init__(model)
        self.used = []

    def __getattribute__(self, name):
        if name in ("encode_image", "encode", "cross_cache", "decode", "logits"):
            return getattr(self.plain, name)
        return super().__getattribute__(name)

    def steps(self):
        self.used.append(StaticSteps(self.plain, self.graphs, addresses(self.plain)))
        return self.used[-1]


@pytest.fixture(scope="module")
def model():
    return lively_model()


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_the_same_ids(model, beams, masked):
    """More of them than a block of the cache holds."""
    model = lively_model(eos_gain=None)
    states, mask = random_states(model, 1)
    mask = mask if masked else None
    options = GenerationOptions(100, beams, no_repeat_ngram_size=3)
    static = StaticModel(model)
    expected = generate(model, states, mask, [[2]], options)
    assert generate(static, states, mask, [[2]], options) == expected and len(expected[0].ids) == 100
    assert generate(static, states, mask, [[2]], options) == expected  # by steps that were used before
    assert len(static.used) == 2


@pytest.mark.parametrize("images", [1, 2, 4, 8])
@pytest.mark.parametrize("seed, eos_gain", [(0, 4.0), (2, 7.0)])
def test_mixed_batches(images, seed, eos_gain):
    """Rows and images are dropped on the way, beams branch, prefixes have padding before them."""
    model = lively_model(seed=seed, eos_gain=eos_gain)
    states, mask = random_states(model, images)
    expected = generate(model, states, mask, PREFIXES, MIXED)
    assert generate(StaticModel(model), states, mask, PREFIXES, MIXED) == expected


def test_positions_reach_the_end_of_the_table():
    model = lively_model(eos_gain=None)
    positions = model.config.text.positions
    states, mask = random_states(model, 5)
    prefixes = [[0, *range(4, 34), 2]] + [[2]] * 4
    options = [GenerationOptions(4)] + [GenerationOptions(positions)] * 4
    expected = generate(model, states, mask, prefixes, options)
    assert generate(StaticModel(model), states, mask, prefixes, options) == expected


def test_own_tables():
    model = lively_model()
    model.untie_output()
    model.untie_decoder()
    states, mask = random_states(model, 2)
    options = GenerationOptions(12)
    expected = generate(model, states, mask, [[2]] * 2, options)
    assert generate(StaticModel(model), states, mask, [[2]] * 2, options) == expected


def test_steps_serve_the_next_answer_and_are_bounded(model):
    states, mask = random_states(model, 1)
    static = StaticModel(model)
    for _ in range(3):
        generate(static, states, mask, [[2]], GenerationOptions(12, num_beams=3))
        static.used.clear()
    assert [key[0] for key, _ in static.graphs._free] == [Shape(1, 1, 64, 64), Shape(1, 3, 64, 64, True)]
    step = static.graphs.take(*_asked(static, Shape(1, 3, 64, 64, True)))
    static.graphs.most_bytes = step.nbytes
    static.graphs.give_back("key", step)
    assert [key for key, _ in static.graphs._free] == ["key"]


def _asked(static, shape):
    key = next(key for key, _ in static.graphs._free if key[0] == shape)
    return key, lambda: pytest.fail("made anew")


def test_answers_at_the_same_time_have_steps_of_their_own(model):
    states, mask = random_states(model, 2)
    pool, cross = Pool(), model.cross_cache(states)
    with torch.inference_mode():
        read = prefill(model, cross, mask, [[2], [5]], [0, 1])
        steps = [StaticSteps(model, pool, 0) for _ in range(2)]
        for each in steps:
            each.enter(read, Source.all_of(cross, mask))
        assert steps[0]._step is not steps[1]._step
        first = [each.step([7, 8]) for each in steps]
        torch.testing.assert_close(*first)


def test_other_weights_have_other_steps():
    model = lively_model()
    states, mask = random_states(model, 1)
    static, options = StaticModel(model), GenerationOptions(12)
    generate(static, states, mask, [[2]], options)
    with torch.no_grad():
        model.decoder.layers[0].ffn.fc1.weight = torch.nn.Parameter(model.decoder.layers[0].ffn.fc1.weight * -3)
    assert generate(static, states, mask, [[2]], options) == generate(model, states, mask, [[2]], options)
    static.used.clear()
    assert len({key for key, _ in static.graphs._free}) == 2


def test_rounded_sizes():
    assert [_rounded(number) for number in range(1, 14)] == [1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16]
