"""Decoding steps by the plain network: one new id for every row, and what the network makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from florence_lite.engine.prefill import Prefix, start_cache
from florence_lite.model import CrossCache, FlorenceModel


class PlainSteps:
    """The rows of a batch, with what the network remembers of them. Rows of an image stand together, equally many of
    each.

    length: positions read so far, padding on the left included.
    """

    def __init__(self, model: FlorenceModel, cross: CrossCache, encoder_mask: Tensor | None):
        """cross: of B images; encoder_mask: bool [B, S], False on padding, or None."""
        self.model, self.cross, self.encoder_mask = model, cross, encoder_mask
        self.device = cross.keys[0].device
        self.left_padding: Tensor | None = None  # int64 [R, 1]; None if there is none

    @property
    def length(self) -> int:
        return self.cache.length

    def keep_images(self, images: Tensor) -> None:
        """Drop all images but these (int64 [K])."""
        self.cross = self.cross.select(images)
        if self.encoder_mask is not None:
            self.encoder_mask = self.encoder_mask[images]

    def start(self, read: Sequence[Prefix], max_length: int) -> Tensor:
        """Begin with a row for every prefix; max_length: positions that may be needed. Returns the states [R, D] behind
        the prefixes."""
        self.cache, padding = start_cache(self.model, read, max_length)
        if any(padding):
            self.left_padding = torch.tensor(padding, device=self.device)[:, None]
        return torch.stack([prefix.hidden[-1] for prefix in read])

    def reorder(self, order: list[int]) -> None:
        """Row i becomes the former row `order[i]`, of any number."""
        index = torch.tensor(order, device=self.device)
        self.cache.reorder(index)
        if self.left_padding is not None:
            self.left_padding = self.left_padding[index]

    def step(self, ids: list[int]) -> Tensor:
        """Read one more id of every row. Returns the states [R, D] behind them."""
        positions = input_mask = None
        if self.left_padding is not None:
            place = torch.arange(self.length + 1, device=self.device)
            input_mask = place >= self.left_padding  # [R, past + 1]
            positions = place[-1:] - self.left_padding  # [R, 1]
            # Outside the table lie only padding and filler rows that outlived their answer.
            positions = positions.clamp(0, self.model.config.text.positions - 1)
        input_ids = torch.tensor(ids, device=self.device)[:, None]
        return self.model.decode(input_ids, self.cross, self.encoder_mask, self.cache, positions, input_mask)[:, -1]

    def logits(self, hidden: Tensor, ids: range | None = None) -> Tensor:
        """As `FlorenceModel.logits`, of hidden [R, D]."""
        return self.model.logits(hidden, ids)
