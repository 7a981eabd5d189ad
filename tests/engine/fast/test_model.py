"""Encoder, decoder and decoding steps against the plain network: same states, same ids."""

import copy

import pytest
import torch
from torch import nn

from florence_lite.engine import GenerationOptions, generate
from florence_lite.engine.fast import FastModel
from florence_lite.engine.fast.steps import FastSteps
from florence_lite.engine.steps import PlainSteps
from florence_lite.model import FlorenceModel
from tests.tiny import tiny_config

CLOSE = {"atol": 3e-5, "rtol": 3e-5}


@pytest.fixture
def model(build):
    torch.manual_seed(2)
    model = FlorenceModel(tiny_config()).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3) if weight.ndim > 1 else nn.init.normal_(weight)
    return model


def states_of(model, images):
    torch.manual_seed(3)
    return torch.randn(images, 9, model.config.text.d_model)


MASK = torch.tensor([[True] * 9, [True] * 5 + [False] * 4])


@torch.inference_mode()
def test_encoder_and_cross_attention(model):
    features = torch.randn(2, model.config.image_tokens, model.config.text.d_model)
    ids, known = torch.tensor([[5, 6, 7], [8, 1, 1]]), torch.tensor([[True] * 3, [True, False, False]])
    for mask in (None, known):
        (found, found_mask), (expected, expected_mask) = (
            network.encode(features, ids, mask) for network in (FastModel(model), model)
        )
        torch.testing.assert_close(found, expected, **CLOSE)
        assert found_mask is None if mask is None else torch.equal(found_mask, expected_mask)
    caches = FastModel(model).cross_cache(expected), model.cross_cache(expected)
    for found, plain in zip(*(cache.keys + cache.values for cache in caches), strict=True):
        torch.testing.assert_close(found, plain, **CLOSE)


@torch.inference_mode()
@pytest.mark.parametrize("tokens", [1, 2, 40])
def test_decoder_over_many_tokens(model, tokens):
    cross = model.cross_cache(states_of(model, 2))
    ids = torch.randint(3, 400, (4, tokens))
    expected = model.decode(ids, cross, MASK)
    torch.testing.assert_close(FastModel(model).decode(ids, cross, MASK), expected, **CLOSE)
    torch.testing.assert_close(FastModel(model).logits(expected), model.logits(expected), **CLOSE)
    part = range(30, 60)
    torch.testing.assert_close(FastModel(model).logits(expected, part), model.logits(expected, part), **CLOSE)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("mask", [None, MASK])
def test_the_same_ids(model, beams, mask):
    """Prefixes of different lengths, two of each of two images, answers that end at different times."""
    prefixes = [[2], [5, 6, 7], [8, 9], [2]]
    options = [GenerationOptions(length, beams, no_repeat_ngram_size=3) for length in (80, 7, 30, 66)]
    states = states_of(model, 2)
    expected = generate(model, states, mask, prefixes, options)
    assert isinstance(FastModel(model).steps(), PlainSteps)  # with gradients
    found = generate(FastModel(model), states, mask, prefixes, options)
    assert found == expected and len(expected[0].ids) > 20


@torch.inference_mode()
def test_a_batch_that_ends_bit_by_bit(model):
    options = [GenerationOptions(length) for length in (3, 70, 5, 9, 20, 4)]
    states = states_of(model, 3)
    assert isinstance(FastModel(model).steps(), FastSteps)
    prefixes = [[2, 7], [2], [9], [8, 8, 8], [4], [5]]
    assert generate(FastModel(model), states, None, prefixes, options) == generate(
        model, states, None, prefixes, options
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.untie_output(),
        lambda model: model.untie_decoder(),
        lambda model: model.decoder.layers[0].ffn.fc1.register_forward_hook(lambda layer, given, out: out * 2),
        lambda model: model.to(torch.bfloat16),
    ],
    ids=["own output layer", "own table", "hook", "bfloat16"],
)
def test_other_networks(model, change):
    change(model)
    states = states_of(model, 1).to(model.embed_tokens.weight.dtype)
    options = GenerationOptions(12)
    assert generate(FastModel(model), states, None, [[2]], options) == generate(model, states, None, [[2]], options)


@torch.inference_mode()
def test_autocast_is_left_to_the_plain_network(model):
    """Which hands tensors of other types from layer to layer."""
    states, options = states_of(model, 1), GenerationOptions(12)
    with torch.autocast("cpu", torch.bfloat16):
        assert isinstance(FastModel(model).steps(), PlainSteps)
        found, expected = (generate(each, states, None, [[2]], options) for each in (FastModel(model), model))
    assert found == expected


def test_it_can_be_copied(model):
    copied = copy.deepcopy(FastModel(model, "int8"))
    assert copied.plain is not model and copied.config == model.config
