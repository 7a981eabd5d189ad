"""Keys and values that the decoder keeps between steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 64  # positions by which a self-attention cache grows: most answers are short


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

    @classmethod
    def joined(cls, caches: Sequence[CrossCache]) -> CrossCache:
        """The caches of several images as those of a batch; of a single one, without a copy."""
        if len(caches) == 1:
            return caches[0]
        keys, values = (
            tuple(torch.cat(layer) for layer in zip(*kept, strict=True))
            for kept in ([cache.keys for cache in caches], [cache.values for cache in caches])
        )
        return cls(keys, values)

    def part(self, images: slice) -> CrossCache:
        """The caches of images that stand together, without a copy."""
        return CrossCache(tuple(k[images] for k in self.keys), tuple(v[images] for v in self.values))


class SelfCache:
    """Self-attention keys and values, one tensor [R, heads, capacity, d] of each per layer.

    `length` positions are filled. A decoder call appends its keys layer by layer, then moves `length` on. The capacity
    grows in steps of `BLOCK` up to `max_length`, a tensor at a time, so that hardly more than the cache itself is in
    memory while it is copied.
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
        self.max_length = max_length
        shape = (rows, heads, min(BLOCK, max_length), head_dim)
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.length = 0

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store `keys`, `values` [R, heads, T, d] behind the filled part and return all of that layer so far."""
        end = self.length + keys.shape[2]
        if end > self.max_length:
            raise ValueError(f"the self-attention cache holds {self.max_length} positions, {end} are needed")
        for kept, new in ((self.keys, keys), (self.values, values)):
            if end > kept[layer].shape[2]:
                kept[layer] = self._grown(kept[layer], end)
            kept[layer][:, :, self.length : end] = new
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes the former row `rows[i]` (int64 [R'], R' may differ from R). Only the filled part is copied."""
        for kept in (self.keys, self.values):
            for layer, former in enumerate(kept):
                kept[layer] = former.new_empty(len(rows), *former.shape[1:])
                kept[layer][:, :, : self.length] = former[rows, :, : self.length]

    def join(self, other: SelfCache, length: int) -> None:
        """Add the rows of another. All end at position `length` then; what stands further in front is dropped, and
        before what is shorter stand zeros."""
        for of_self, of_other in ((self.keys, other.keys), (self.values, other.values)):
            for layer, (former, added) in enumerate(zip(of_self, of_other, strict=True)):
                rows, capacity = len(former), min(self.max_length, -(-length // BLOCK) * BLOCK)
                joined = former.new_zeros(rows + len(added), former.shape[1], capacity, former.shape[3])
                for place, part, end in ((0, former, self.length), (rows, added, other.length)):
                    kept = min(end, length)
                    joined[place : place + len(part), :, length - kept : length] = part[:, :, end - kept : end]
                of_self[layer] = joined
        self.length = length

    def _grown(self, tensor: Tensor, least: int) -> Tensor:
        capacity = min(self.max_length, -(-least // BLOCK) * BLOCK)
        larger = tensor.new_empty(*tensor.shape[:2], capacity, tensor.shape[3])
        larger[:, :, : self.length] = tensor[:, :, : self.length]
        return larger
