"""What a row gets does not depend on how many go with it, to the last bit: several ids at once are checked with it."""

import pytest
import torch
from torch import nn

from florence_lite.engine.fast import FastModel
from florence_lite.engine.fast import model as fast_model
from florence_lite.engine.fast.linear import dense
from florence_lite.engine.fast.precision import Weights
from florence_lite.engine.prefill import prefill
from florence_lite.engine.steps import Source
from florence_lite.model import FlorenceModel
from tests.tiny import tiny_config


@torch.inference_mode()
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("sizes", [(64, 75), (45, 33), (768, 131), (3072, 50)])
def test_products_of_many_rows_are_those_of_one(build, precision, sizes):
    torch.manual_seed(4)
    layer, weights = nn.Linear(*sizes), Weights(precision)
    x = torch.randn(30, sizes[0])
    alone = torch.cat([dense(weights.of(layer), row[None], torch.empty(1, sizes[1])) for row in x])
    for rows in range(1, 31):
        assert torch.equal(dense(weights.of(layer), x[:rows], torch.empty(rows, sizes[1])), alone[:rows])
    part = range(3, sizes[1] - 2)
    assert torch.equal(dense(weights.of(layer), x[:5], torch.empty(5, len(part)), part), alone[:5, 3:-2])


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_several_ids_at_once_are_those_of_single_steps(build, monkeypatch, rows, masked):
    monkeypatch.setattr(fast_model, "BYTES_IN_CACHES", 0)
    for seed in range(4):
        torch.manual_seed(seed)
        model = FlorenceModel(tiny_config()).eval()
        for weight in model.parameters():
            nn.init.normal_(weight, std=0.3) if weight.ndim > 1 else nn.init.normal_(weight)
        states = torch.randn(2 if rows > 1 else 1, 21, model.config.text.d_model)
        mask = torch.rand(len(states), 21) < 0.7 if masked else None
        network = FastModel(model)
        cross, prefixes = network.cross_cache(states), [[2], [3, 4, 5], [2, 7], [9]][:rows]
        images = [row * len(states) // rows for row in range(rows)]
        read, all_sources = prefill(network, cross, mask, prefixes, images), Source.all_of(cross, mask)
        sources = [all_sources[image] for image in images]
        ids = torch.randint(3, 400, (rows, 90)).tolist()
        single, several = network.steps(), network.steps()
        single.enter(read, sources), several.enter(read, sources)
        expected = torch.stack([single.step([row[place] for row in ids]) for place in range(90)], 1)
        at = 0
        for count in (1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 28):
            for place in range(count - 1):  # drafts leave nothing behind
                several.draft([7] * rows, place)
            found = several.ahead([row[at : at + count] for row in ids])
            assert torch.equal(found, expected[:, at : at + count])
            kept = (count + 1) // 2  # the others are read again
            for _ in range(kept):
                several.accept()
            at += kept
        assert torch.equal(several.step([row[at] for row in ids]), expected[:, at])
