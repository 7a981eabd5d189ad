"""Encoder layers by flash-attn, for which a module with the same function stands in."""

import sys
from types import SimpleNamespace

import pytest
import torch

from florence_lite.engine.fast import FastModel, flash
from florence_lite.model import FlorenceModel
from tests.tiny import tiny_config


class StandIn:
    """`flash_attn.flash_attn_varlen_func` as its documentation describes it."""

    calls = 0

    def flash_attn_varlen_func(self, q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k):
        self.calls += 1
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        bounds = cu_seqlens_q.tolist()
        assert bounds == cu_seqlens_k.tolist() and bounds[0] == 0 and bounds[-1] == len(q) == len(k) == len(v)
        mixed = torch.empty_like(q)
        for begin, end in zip(bounds, bounds[1:], strict=False):
            assert end - begin <= max_seqlen_q == max_seqlen_k
            of_row = (each[begin:end].transpose(0, 1) for each in (q, k, v))
            mixed[begin:end] = torch.nn.functional.scaled_dot_product_attention(*of_row).transpose(0, 1)
        return mixed


@pytest.fixture
def installed(monkeypatch):
    """The stand-in in place of the package, and a processor that passes for a GPU."""
    module = StandIn()
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    monkeypatch.setattr(FastModel, "_capturable", lambda self, *parts: 0)
    monkeypatch.setattr(flash, "HALVES", (torch.float32,))
    flash.varlen.cache_clear()
    yield module
    flash.varlen.cache_clear()


def on_gpu(tensor):
    """What `flash.can` asks of a tensor."""
    return SimpleNamespace(is_cuda=True, dtype=tensor.dtype)


@torch.inference_mode()
def test_prompts_of_different_lengths(installed, monkeypatch):
    torch.manual_seed(0)
    model, images = FlorenceModel(tiny_config()).eval(), 6
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3) if weight.ndim > 1 else torch.nn.init.normal_(weight)
    features = torch.randn(images, model.config.image_tokens, model.config.text.d_model)
    ids = torch.randint(3, 400, (images, 5))
    mask = torch.arange(5) < torch.tensor([5, 2, 1, 4, 3, 5])[:, None]
    can = flash.can
    monkeypatch.setattr(flash, "can", lambda states: can(on_gpu(states)))
    (found, found_mask), (expected, expected_mask) = (
        net.encode(features, ids, mask) for net in (FastModel(model), model)
    )
    assert installed.calls == model.config.text.encoder_layers and torch.equal(found_mask, expected_mask)
    torch.testing.assert_close(found[found_mask], expected[expected_mask], atol=3e-5, rtol=3e-5)
    FastModel(model).encode(features, ids)  # without padding torch's own attention has the kernel
    assert installed.calls == model.config.text.encoder_layers


def test_only_half_precision_on_a_gpu(installed, monkeypatch):
    monkeypatch.setattr(flash, "HALVES", (torch.float16, torch.bfloat16))
    assert flash.can(on_gpu(torch.zeros(1, dtype=torch.float16)))
    assert not flash.can(on_gpu(torch.zeros(1)))
    assert not flash.can(torch.zeros(1, dtype=torch.float16))


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # importing it raises ImportError
    flash.varlen.cache_clear()
    assert not flash.can(on_gpu(torch.zeros(1, dtype=torch.float16)))
    flash.varlen.cache_clear()
