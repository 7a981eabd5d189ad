"""Keys and values that the decoder keeps between steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CrossCache:
    """Cross-attention keys and values of encoded images, computed once and shared by all rows of an image.

    keys, values: one tensor [B, heads, S, d] per decoder layer.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def select(self, index: Tensor) -> CrossCache:
        """The caches of the images `index` (int64 [K]), copied."""
        return CrossCache(tuple(k[index] for k in self.keys), tuple(v[index] for v in self.values))


class SelfCache:
    """Self-attention keys and values in buffers of fixed size [layers, R, heads, max_length, d].

    `length` positions are filled. A decoder call appends its keys layer by layer, then moves `length` on.
    """

    def __init__(
        self,
        layers: int,
        rows: int,
        heads: int,
        max_length: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        shape = (layers, rows, heads, max_length, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.length = 0

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store `keys`, `values` [R, heads, T, d] behind the filled part and return all of that layer so far."""
        end = self.length + keys.shape[2]
        if end > self.keys.shape[3]:
            raise ValueError(f"the self-attention cache holds {self.keys.shape[3]} positions, {end} are needed")
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes the former row `rows[i]` (int64 [R'], R' may differ from R). Only the filled part is copied."""
        filled = slice(0, self.length)
        keys, values = self.keys, self.values
        if len(rows) != keys.shape[1]:
            shape = (keys.shape[0], len(rows), *keys.shape[2:])
            self.keys, self.values = keys.new_empty(shape), values.new_empty(shape)
        self.keys[:, :, :, filled] = keys[:, rows, :, filled]
        self.values[:, :, :, filled] = values[:, rows, :, filled]
