"""Encoder layers over prompts of different lengths by flash-attn (the extra `flash`), which skips their padding where
torch's attention would take a slower kernel for its mask. The package is imported when a GPU meets such a batch, and
need not be there. Windows have one length each, for which torch has the same kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from florence_lite.model.transformer import EncoderLayer

HALVES = (torch.float16, torch.bfloat16)  # of which its kernels are


@cache
def varlen() -> Callable[..., Tensor] | None:
    """flash-attn's attention of sequences that stand one behind the other, None where the package is missing."""
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        return None
    return flash_attn_varlen_func


def can(states: Tensor) -> bool:
    """Whether there are kernels for tensors like this."""
    return states.is_cuda and states.dtype in HALVES and varlen() is not None


class EncoderLayers:
    """Runs the layers of an encoder, one call each, over one batch."""

    def __init__(self):
        self._places: Tensor | None = None

    def __call__(self, layer: EncoderLayer, x: Tensor, mask: Tensor) -> Tensor:
        """As `EncoderLayer.forward`, mask [B, 1, 1, S]; what stands in padding means nothing."""
        attention = layer.attention
        if self._places is None:  # rows of x that are no padding, and where those of each sequence begin and end
            self._places = mask.flatten().nonzero()[:, 0]
            self._bounds = F.pad(mask.flatten(1).sum(1).cumsum(0), (1, 0)).int()
        q, k, v = (
            project(x).flatten(0, 1)[self._places].unflatten(-1, (attention.heads, -1))
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        longest = x.shape[1]
        mixed = varlen()(q, k, v, self._bounds, self._bounds, longest, longest)
        padded = x.new_zeros(x.shape).flatten(0, 1).index_copy_(0, self._places, mixed.flatten(1))
        x = layer.attention_norm(x + attention.out_proj(padded.view_as(x)))
        return layer.ffn_norm(x + layer.ffn(x))
