"""Layers of encoder and decoder by the compiled kernels: `model/transformer.py` with the same weights, read where they
are. Dropout is left out, as there is none in answers."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from florence_lite.engine.fast.linear import linear
from florence_lite.model.transformer import Attention, DecoderLayer, EncoderLayer, FeedForward


def encoder_layer(layer: EncoderLayer, x: Tensor, mask: Tensor | None) -> Tensor:
    """As `EncoderLayer.forward`."""
    keys, values = keys_values(layer.attention, x)
    x = layer.attention_norm(_attention(layer.attention, x, keys, values, mask))
    return layer.ffn_norm(_feed_forward(layer.ffn, x))


def decoder_layer(
    layer: DecoderLayer,
    x: Tensor,
    cross_keys: Tensor,
    cross_values: Tensor,
    self_mask: Tensor | None,
    cross_mask: Tensor | None,
    causal: bool,
    remember: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    last: int | None = None,
) -> Tensor:
    """As `DecoderLayer.forward`."""
    keys, values = keys_values(layer.attention, x)
    if remember is not None:
        keys, values = remember(keys, values)
    if last is not None:
        x = x[:, -last:].contiguous()
    x = layer.attention_norm(_attention(layer.attention, x, keys, values, self_mask, causal))
    x = layer.cross_attention_norm(_attention(layer.cross_attention, x, cross_keys, cross_values, cross_mask))
    return layer.ffn_norm(_feed_forward(layer.ffn, x))


def keys_values(attention: Attention, x: Tensor) -> tuple[Tensor, Tensor]:
    """As `Attention.keys_values`."""
    return attention.split(linear(attention.k_proj, x)), attention.split(linear(attention.v_proj, x))


def _attention(
    attention: Attention, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool = False
) -> Tensor:
    """As `Attention.forward`, with x added."""
    R, T, D = x.shape
    q = attention.split(linear(attention.q_proj, x).view(keys.shape[0], -1, D))
    mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, is_causal=causal)
    return linear(attention.out_proj, mixed.transpose(1, 2).reshape(R, T, D), residual=x)


def _feed_forward(ffn: FeedForward, x: Tensor) -> Tensor:
    """As `FeedForward.forward`, with x added."""
    return linear(ffn.fc2, linear(ffn.fc1, x, gelu=True), residual=x)
