"""The text side: a BART-style post-norm encoder-decoder (Lewis et al., 2019, arXiv 1910.13461)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence_lite.model.cache import CrossCache, SelfCache
from florence_lite.model.config import TextConfig

POSITION_OFFSET = 2  # BART's position tables begin with two unused rows.


class Attention(nn.Module):
    """Multi-head attention. Keys and values are projected apart from queries so that they can be cached."""

    def __init__(self, d_model: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def split(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, heads, T, d]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.split(self.k_proj(x)), self.split(self.v_proj(x))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        """x [R, T, D]; keys, values [B, heads, S, d]; mask bool, broadcast to [B, heads, T, S], True = may attend.

        With R = n·B, the n rows of an image stand together and share its keys and values.
        """
        R, T, D = x.shape
        q = self.split(self.q_proj(x).view(keys.shape[0], -1, D))  # [B, heads, n*T, d]
        x = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, is_causal=causal)
        return self.out_proj(x.transpose(1, 2).reshape(R, T, D))


class FeedForward(nn.Module):
    def __init__(self, d_model: int, ffn_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(d_model, ffn_dim)
        self.fc2 = nn.Linear(ffn_dim, d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class EncoderLayer(nn.Module):
    def __init__(self, config: TextConfig):
        super().__init__()
        self.attention = Attention(config.d_model, config.heads)
        self.attention_norm = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config.d_model, config.ffn_dim)
        self.ffn_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        keys, values = self.attention.keys_values(x)
        x = self.attention_norm(x + self.dropout(self.attention(x, keys, values, mask)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))


class DecoderLayer(nn.Module):
    def __init__(self, config: TextConfig):
        super().__init__()
        self.attention = Attention(config.d_model, config.heads)
        self.attention_norm = nn.LayerNorm(config.d_model)
        self.cross_attention = Attention(config.d_model, config.heads)
        self.cross_attention_norm = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config.d_model, config.ffn_dim)
        self.ffn_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        cross_keys: Tensor,
        cross_values: Tensor,
        self_mask: Tensor | None,
        cross_mask: Tensor | None,
        causal: bool,
        remember: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        last: int | None = None,
    ) -> Tensor:
        """remember: keeps keys and values of the new tokens and returns those of all; None if all are new.
        last: of how many tokens, the last ones, the states are wanted; `self_mask` is theirs. None: of all."""
        keys, values = self.attention.keys_values(x)
        if remember is not None:
            keys, values = remember(keys, values)
        if last is not None:
            x = x[:, -last:]
        x = self.attention_norm(x + self.dropout(self.attention(x, keys, values, self_mask, causal)))
        attended = self.cross_attention(x, cross_keys, cross_values, cross_mask)
        x = self.cross_attention_norm(x + self.dropout(attended))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))


class Encoder(nn.Module):
    """Embedded tokens [B, S, D] to hidden states [B, S, D]."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.positions = nn.Embedding(config.positions + POSITION_OFFSET, config.d_model)
        self.norm = nn.LayerNorm(config.d_model)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None, run: Callable[..., Tensor] = nn.Module.__call__) -> Tensor:
        """mask: bool [B, S], False on padding. run: runs a layer, given first, on what it takes."""
        S = x.shape[1]
        x = self.dropout(self.norm(x + self.positions.weight[POSITION_OFFSET : POSITION_OFFSET + S]))
        attend = None if mask is None else mask[:, None, None, :]
        for layer in self.layers:
            x = run(layer, x, attend)
        return x


class Decoder(nn.Module):
    """Embedded tokens [R, T, D] and cached image keys/values to hidden states [R, T, D].

    `embed_tokens` is its own table of tokens where it has one (`has_table`), else None.
    """

    def __init__(self, config: TextConfig, has_table: bool = False):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model) if has_table else None
        self.positions = nn.Embedding(config.positions + POSITION_OFFSET, config.d_model)
        self.norm = nn.LayerNorm(config.d_model)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.dropout = nn.Dropout(config.dropout)

    def cross_cache(self, encoder_hidden_states: Tensor) -> CrossCache:
        pairs = [layer.cross_attention.keys_values(encoder_hidden_states) for layer in self.layers]
        return CrossCache(tuple(k for k, _ in pairs), tuple(v for _, v in pairs))

    def forward(
        self,
        x: Tensor,
        cross: CrossCache,
        encoder_mask: Tensor | None,
        self_cache: SelfCache | None,
        positions: Tensor | None,
        input_mask: Tensor | None,
        last: int | None = None,
        self_mask: Tensor | None = None,
        run: Callable[..., Tensor] = nn.Module.__call__,
    ) -> Tensor:
        """Arguments as in `FlorenceModel.decode`. run: as in `Encoder`."""
        T = x.shape[1]
        past = self_cache.length if self_cache else 0
        if positions is None:
            positions = torch.arange(past, past + T, device=x.device)[None]
        x = self.dropout(self.norm(x + self.positions(positions + POSITION_OFFSET)))

        # A plain causal call and a single new token need no mask tensor, which keeps the fast attention kernels.
        causal = past == 0 and T > 1 and input_mask is None and self_mask is None
        if self_mask is None and not causal and (T > 1 or input_mask is not None):
            self_mask = causal_mask(past, T, input_mask, x.device)
        cross_mask = None if encoder_mask is None else encoder_mask[:, None, None, :]
        for index, (layer, keys, values) in enumerate(zip(self.layers, cross.keys, cross.values, strict=True)):
            remember = partial(self_cache.append, index) if self_cache else None
            if last is None or last >= T or index < len(self.layers) - 1:
                x = run(layer, x, keys, values, self_mask, cross_mask, causal, remember)
            else:  # the states of the others are read by no further layer
                mask = None
                if last > 1 or input_mask is not None:
                    mask = causal_mask(past + T - last, last, input_mask, x.device)
                x = run(layer, x, keys, values, mask, cross_mask, False, remember, last)
        if self_cache:
            self_cache.length += T
        return x


def rows_mask(positions: Tensor) -> Tensor:
    """Of rows that stand behind each other: bool [R, 1, T, T], True = may attend, from the places in their rows of the
    tokens, int64 [R, T]. Each sees itself and those before it in its own row."""
    index = torch.arange(positions.shape[1], device=positions.device)
    begin = index - positions  # where the row of each token begins
    return ((begin[:, :, None] == begin[:, None, :]) & (index[None, :] <= index[:, None]))[:, None]


def causal_mask(past: int, new: int, input_mask: Tensor | None, device: torch.device) -> Tensor:
    """bool [R or 1, 1, new, past + new], True = may attend.

    Every position may see itself, so that a padded query is never left without a key (its softmax would be NaN).
    """
    query = torch.arange(past, past + new, device=device)[:, None]
    key = torch.arange(past + new, device=device)[None, :]
    if input_mask is None:
        return (key <= query)[None, None]
    return ((key <= query) & input_mask[:, None, None, :]) | (key == query)
