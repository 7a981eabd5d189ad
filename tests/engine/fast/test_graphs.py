"""Captured work and its pool, without a GPU: there the work is done anew where a graph would be replayed."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from florence_lite.engine.fast import FastModel, graphs
from florence_lite.engine.fast.graphs import Function, Pool, call, state_of
from florence_lite.engine.fast.static_steps import StaticSteps
from florence_lite.engine.steps import PlainSteps
from florence_lite.model import FlorenceModel
from tests.tiny import tiny_config


@pytest.fixture
def model():
    torch.manual_seed(0)
    return FlorenceModel(tiny_config()).eval()


class Doubling(nn.Linear):
    calls = 0

    def twice(self, x, more):
        self.calls += 1
        return 2 * self(x), None if more is None else more + 1


def test_what_comes_again_is_captured():
    part, pool = Doubling(3, 2), Pool()
    for number in range(4):
        x = torch.randn(5, 3)
        with torch.inference_mode(number % 2 == 0), torch.no_grad():
            found, more = call(pool, 0, part.twice, x, None)
            assert torch.equal(found, 2 * part(x)) and more is None and found.is_inference() == (number % 2 == 0)
    assert len(pool._free) == 1
    ((_, captured),) = pool._free
    kept = captured._result[0].clone()
    assert call(pool, 0, part.twice, torch.randn(5, 3), torch.ones(2))[1].tolist() == [2, 2]  # another kind
    assert torch.equal(captured._result[0], kept) and len(pool._free) == 1


def test_results_are_not_overwritten_by_the_next_call():
    double = Function(lambda x: 2 * x, [torch.zeros(2)])
    first = double(torch.ones(2))
    assert double(torch.zeros(2)).tolist() == [0, 0] and first.tolist() == [2, 2]


def test_the_pool_drops_what_was_used_longest_ago():
    pool = Pool(most_bytes=10)
    for number in range(3):
        pool.give_back(number, SimpleNamespace(nbytes=4))
    assert [key for key, _ in pool._free] == [1, 2]
    again = pool.take(1, lambda: pytest.fail("made anew"))
    assert [key for key, _ in pool._free] == [2] and pool.take(1, lambda: "made") == "made"
    pool.give_back(1, again)
    assert [key for key, _ in pool._free] == [2, 1] and copy.deepcopy(pool)._free == []


def test_a_processor_has_no_graphs(model):
    assert state_of(model.encoder) is None
    with torch.inference_mode():
        assert not isinstance(FastModel(model).steps(), StaticSteps)


class There(nn.Parameter):
    """A weight that says it is on a GPU."""

    device = torch.device("cuda")


@torch.inference_mode()
def test_dispatch(model, monkeypatch):
    for part in model.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            setattr(part, name, weight.as_subclass(There))
    fast, asked = FastModel(model), []
    monkeypatch.setattr(graphs, "call", lambda pool, weights, function, *given: asked.append(function.__name__))
    assert state_of(model.encoder) != state_of(model.decoder) and isinstance(fast.steps(), StaticSteps)
    fast.encode_image(torch.zeros(1, 3, 48, 64))
    fast.encode(torch.zeros(1, 49, 32))
    assert asked == ["encode_image", "encode"]
    monkeypatch.setattr(graphs, "state_of", lambda *parts: None)
    assert fast.encode_image(torch.zeros(1, 3, 48, 64)).shape == (1, 49, 32) and len(asked) == 2
    monkeypatch.undo()

    with torch.autocast("cpu", torch.bfloat16):
        assert isinstance(fast.steps(), PlainSteps)
    with torch.inference_mode(False):
        assert isinstance(fast.steps(), PlainSteps)
    model.decoder.layers[0].half()
    assert isinstance(fast.steps(), PlainSteps)
