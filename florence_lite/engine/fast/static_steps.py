"""Decoding steps on tensors of fixed shapes and places, which a GPU repeats as a CUDA graph."""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from florence_lite.engine.fast.graphs import Captured, Pool
from florence_lite.engine.prefill import Prefix
from florence_lite.model import CrossCache, FlorenceModel
from florence_lite.model.cache import BLOCK
from florence_lite.model.device import on_device
from florence_lite.model.transformer import POSITION_OFFSET, Attention, DecoderLayer


@dataclass(frozen=True)
class Shape:
    """Sizes of a step: images, rows of each, positions of an encoded image and prompt, positions of the
    self-attention cache. branching: rows may continue other rows; else each follows its own places in the cache."""

    images: int
    each: int
    encoded: int
    capacity: int
    branching: bool = False

    @property
    def rows(self) -> int:
        return self.images * self.each


class StaticStep(Captured):
    """One step: reads `given`, writes `hidden` [R, D] and its caches.

    given: int64 [3 · R + 1]: the next id of every row, which former row it continues, how many positions of padding
        stand before it, and the length of the cache.
    keys, values: of each layer, [capacity, R, D]; what a row wrote once stays where it is. places: int64 [R, capacity],
        where in them a row finds what it has read: a beam has read what those before it wrote.
    cross: keys and values [B, heads, S, d]; cross_mask: [B, 1, 1, S], 0 or -inf.
    What is not filled is 0: masked as it is, it would still spoil a row if it were NaN.
    """

    def __init__(self, model: FlorenceModel, shape: Shape):
        text, weight = model.config.text, model.embed_tokens.weight
        self.model, self.shape, R = model, shape, shape.rows
        like = {"dtype": weight.dtype, "device": weight.device}
        own, width = (shape.capacity, R, text.d_model), text.d_model // text.heads
        encoded = (shape.images, text.heads, shape.encoded, width)
        self.keys, self.values = ([torch.zeros(own, **like) for _ in model.decoder.layers] for _ in range(2))
        self.cross = CrossCache(*(tuple(torch.zeros(encoded, **like) for _ in model.decoder.layers) for _ in range(2)))
        self.cross_mask = torch.zeros(shape.images, 1, 1, shape.encoded, **like)
        self.hidden = torch.zeros(R, text.d_model, **like)
        self.given = torch.zeros(3 * R + 1, dtype=torch.int64, device=weight.device)
        self.given[R : 2 * R] = torch.arange(R)
        self.own_places = torch.arange(shape.capacity * R, device=weight.device).view(shape.capacity, R).t()
        self.places = self.own_places.clone(memory_format=torch.contiguous_format)
        self.ahead = torch.arange(shape.capacity, device=weight.device)
        tensors = (*self.keys, *self.values, *self.cross.keys, *self.cross.values)
        super().__init__(self._work, weight.device, sum(each.nbytes for each in tensors))

    def load_images(self, cross: CrossCache, mask: Tensor | None) -> None:
        """Take over keys and values of images, of at most the step's number and positions; mask: bool [B, S]."""
        images, _, length, _ = cross.keys[0].shape
        for static, given in ((self.cross.keys, cross.keys), (self.cross.values, cross.values)):
            for to, part in zip(static, given, strict=True):
                to.zero_()[:images, :, :length] = part
        self.cross_mask.zero_()
        self.cross_mask[:images, :, :, length:] = -math.inf
        if mask is not None:
            self.cross_mask[:images, 0, 0, :length].masked_fill_(~mask, -math.inf)

    def load_past(self, past: Sequence[tuple[Tensor, Tensor]], rows: Tensor) -> None:
        """Take over the cache of rows, keys and values [T, R', D] of each layer, as those of `rows` (int64 [R'])."""
        for layer, parts in enumerate(past):
            for kept, part in zip((self.keys[layer], self.values[layer]), parts, strict=True):
                kept.zero_()[: len(part)].index_copy_(1, rows, part)
        self.places.copy_(self.own_places)

    def past(self, length: int, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values [length, R', D] of each layer, in the order in which `rows` have read them."""
        places = self.places[rows, :length].t()
        return [
            (keys.flatten(0, 1)[places], values.flatten(0, 1)[places])
            for keys, values in zip(self.keys, self.values, strict=True)
        ]

    def _work(self) -> None:
        model, R = self.model, self.shape.rows
        ids, order, padding, length = self.given.split((R, R, R, 1))
        if self.shape.branching:
            self.places.copy_(self.places[order])
            self.places.index_copy_(1, length, self.own_places.index_select(1, length))
        decoder = model.decoder
        table = model.embed_tokens if decoder.embed_tokens is None else decoder.embed_tokens
        # Outside the table lie only filler rows that outlived their answer.
        positions = (length - padding).clamp(0, model.config.text.positions - 1) + POSITION_OFFSET
        x = decoder.norm(table(ids) + decoder.positions(positions))
        unread = (self.ahead < padding[:, None]) | (self.ahead > length)
        mask = x.new_zeros(unread.shape).masked_fill_(unread, -math.inf)[:, None, None]
        for number, layer in enumerate(decoder.layers):
            x = self._layer(number, layer, x, mask, length)
        self.hidden.copy_(x)

    def _layer(self, number: int, layer: DecoderLayer, x: Tensor, mask: Tensor, length: Tensor) -> Tensor:
        """As `DecoderLayer.forward`, of x [R, D]."""
        own, cross = layer.attention, layer.cross_attention
        read = []
        for kept, project in ((self.keys[number], own.k_proj), (self.values[number], own.v_proj)):
            kept.index_copy_(0, length, project(x)[None])
            read.append(kept.flatten(0, 1)[self.places] if self.shape.branching else kept.transpose(0, 1))
        keys, values = (own.split(each) for each in read)  # [R, heads, capacity, d]
        x = layer.attention_norm(x + _attend(own, x[:, None], keys, values, mask).flatten(0, 1))
        grouped = x.view(self.shape.images, self.shape.each, -1)
        keys, values = self.cross.keys[number], self.cross.values[number]
        x = layer.cross_attention_norm(x + _attend(cross, grouped, keys, values, self.cross_mask).flatten(0, 1))
        return layer.ffn_norm(x + layer.ffn(x))


def _attend(attention: Attention, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """x [B, T, D]; mask: [B, 1, 1, S] of what is added to the scores."""
    q = attention.split(attention.q_proj(x))
    if q.dtype == torch.float32:  # of few queries, torch's own kernel takes six times as long (H100)
        mixed = (q * q.shape[-1] ** -0.5 @ keys.mT + mask).softmax(-1) @ values
    else:
        mask = mask.expand(-1, q.shape[1], q.shape[2], -1)
        mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


class StaticSteps:
    """See `engine.steps.PlainSteps`, whose names these are.

    Sizes are rounded up, so that few steps serve all batches; rows that nobody reads fill the rest. Where a batch no
    longer fits its step, or shrinks to a smaller one, another step takes over the caches.
    """

    def __init__(
        self, model: FlorenceModel, cross: CrossCache, encoder_mask: Tensor | None, pool: Pool, weights: int | None
    ):
        """pool: of steps that were used before; weights: `graphs.state_of` the decoder and the tables; the others as in
        `PlainSteps`."""
        self.model, self.cross, self.encoder_mask, self.length = model, cross, encoder_mask, 0
        self.device, self._pool, self._weights = cross.keys[0].device, pool, weights
        self._give_back = None

    @staticmethod
    def suit(cross: CrossCache, pool: Pool) -> bool:
        """Whether the copies of keys and values of so many images may be kept."""
        return 2 * sum(each.nbytes for each in (*cross.keys, *cross.values)) <= pool.most_bytes

    def keep_images(self, images: Tensor) -> None:
        self.cross = self.cross.select(images)
        if self.encoder_mask is not None:
            self.encoder_mask = self.encoder_mask[images]
        self._images_changed = True

    @torch.inference_mode()
    def start(self, read: Sequence[Prefix], max_length: int) -> Tensor:
        """Begin with a row for every prefix. Returns the states [R, D] behind them."""
        self.length, self._branching = max(prefix.length for prefix in read), False
        self._padding = [self.length - prefix.length for prefix in read]
        past = []
        for layer in range(read[0].keys.shape[0]):
            keys, values = read[0].keys.new_zeros(2, self.length, len(read), self.model.config.text.d_model)
            for row, prefix in enumerate(read):
                for to, kept in ((keys, prefix.keys), (values, prefix.values)):
                    to[self._padding[row] :, row] = kept[layer].transpose(0, 1).flatten(1)
            past.append((keys, values))
        self._use_step(self._shape(len(read)), len(read), past)
        return torch.stack([prefix.hidden[-1] for prefix in read])

    def reorder(self, order: list[int]) -> None:
        """Row i becomes the former row `order[i]`, which the next step sees to."""
        self._branching |= len(order) >= len(self._former)
        self._former = [self._former[row] for row in order]
        self._padding = [self._padding[row] for row in order]
        self._moved = True

    @torch.inference_mode()
    def step(self, ids: list[int]) -> Tensor:
        """Read one more id of every row. Returns the states [R, D] behind them."""
        shape = self._shape(len(ids))
        if shape != self._step.shape or self._images_changed or (self._moved and not self._branching):
            self._use_step(shape, len(ids), self._step.past(self.length, on_device(self.device, self._former)))
        places = self._places(len(ids))
        if self._moved:
            self._written = on_device(self.device, places)
        columns = [0] * shape.rows, list(range(shape.rows)), [self.length] * shape.rows
        for column, values in zip(columns, (ids, self._former, self._padding), strict=True):
            for place, value in zip(places, values, strict=True):
                column[place] = value
        self._step.given.copy_(on_device(self.device, [*itertools.chain(*columns), self.length]))
        self._step.run()
        self.length += 1
        self._former, self._moved = places, False
        return self._step.hidden[self._written]

    def logits(self, hidden: Tensor, ids: range | None = None) -> Tensor:
        """As `FlorenceModel.logits`, of hidden [R, D]."""
        return self.model.logits(hidden, ids)

    def _shape(self, rows: int) -> Shape:
        images, _, encoded, _ = self.cross.keys[0].shape
        each, capacity = rows // images, BLOCK * 2 ** math.ceil(math.log2(max(1, (self.length + 1) / BLOCK)))
        return Shape(_rounded(images), _rounded(each), -(-encoded // BLOCK) * BLOCK, capacity, self._branching)

    def _places(self, rows: int) -> list[int]:
        """Which rows of the step are those of the batch: in both, rows of an image stand together."""
        images = self.cross.keys[0].shape[0]
        return [image * self._step.shape.each + row for image in range(images) for row in range(rows // images)]

    def _use_step(self, shape: Shape, rows: int, past: list[tuple[Tensor, Tensor]]) -> None:
        """Go on with a step of this shape and with `past` of so many rows."""
        if self._give_back is not None:
            self._give_back()
        key = (shape, self._weights)
        self._step = self._pool.take(key, lambda: StaticStep(self.model, shape))
        self._give_back = weakref.finalize(self, self._pool.give_back, key, self._step)
        self._give_back.atexit = False
        self._former = self._places(rows)
        self._written = on_device(self.device, self._former)
        self._step.load_images(self.cross, self.encoder_mask)
        self._step.load_past(past, self._written)
        self._images_changed = self._moved = False


def _rounded(number: int) -> int:
    """The next number of 1, 2, 3, 4, 6, 8, 12, 16, …"""
    power = 2 ** math.ceil(math.log2(number))
    return power // 4 * 3 if power // 4 * 3 >= number else power
