"""Prefixes that are read once, for decoding and for scoring."""

import sys

import pytest
import torch

from florence_lite.engine import GenerationOptions, generate, score
from florence_lite.engine.prefill import prefill
from tests.engine.models import lively_model, random_states

PREFIXES = [[2, 0], [0, 9, 8, 7, 2, 0], [0, 11, 2, 0], [0, 12, 2, 0], [2, 0], [0, 5, 2, 0]]
IMAGES = [0, 0, 0, 0, 1, 1]


@pytest.fixture(scope="module")
def model():
    return lively_model()


@pytest.mark.parametrize("most", [512, 8, 1])
def test_prefixes_are_what_the_decoder_makes_of_each(model, monkeypatch, most):
    """However many go together: any number for an image, of any lengths."""
    monkeypatch.setattr(sys.modules["florence_lite.engine.prefill"], "TOKENS_AT_ONCE", most)
    states, mask = random_states(model, 2)
    cross = model.cross_cache(states)
    for ids, image, read in zip(PREFIXES, IMAGES, prefill(model, cross, mask, PREFIXES, IMAGES), strict=True):
        cache = model.self_cache(1, len(ids))
        with torch.inference_mode():
            hidden = model.decode(
                torch.tensor([ids]), cross.part(slice(image, image + 1)), mask[image : image + 1], cache
            )
        torch.testing.assert_close(read.hidden, hidden[0, -2:])
        assert read.length == len(ids)
        for layer in range(len(read.keys)):
            torch.testing.assert_close(read.keys[layer], cache.keys[layer][0, :, : len(ids)])
            torch.testing.assert_close(read.values[layer], cache.values[layer][0, :, : len(ids)])


def test_what_is_read_is_not_read_again(model, monkeypatch):
    states, mask = random_states(model, 2)
    cross = model.cross_cache(states)
    prefixes = [ids[:-1] for ids in (*PREFIXES[:2], *PREFIXES[4:])]
    read = prefill(model, cross, mask, [[*ids, 0] for ids in prefixes], [0, 0, 1, 1])
    options = [GenerationOptions(12), GenerationOptions(9, num_beams=3), GenerationOptions(2), GenerationOptions(7)]
    plain = generate(model, states, mask, prefixes, options, cross)
    answers = [answer.ids for answer in plain]
    scores = score(model, states, mask, prefixes, answers, range(40, 60), 2, cross)
    lengths = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda ids, *a, **k: lengths.append(ids.shape[1]) or decode(ids, *a, **k))
    assert generate(model, states, mask, prefixes, options, cross, read=read) == plain
    assert set(lengths) == {1}
    lengths.clear()
    again = score(model, states, mask, prefixes, answers, range(40, 60), 2, cross, read=read)
    assert lengths == [max(map(len, answers)) - 2]
    for one, other in zip(again, scores, strict=True):
        for name in ("token_logprobs", "location_logprobs", "tolerance_logprobs"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), equal_nan=True)
    (empty,) = score(model, states[:1], mask[:1], prefixes[:1], [[0, 2]], cross=cross.part(slice(1)), read=read[:1])
    assert empty.token_logprobs.shape == (2,)
