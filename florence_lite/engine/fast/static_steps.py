"""Decoding steps on tensors of fixed shapes and places, which a GPU repeats as a CUDA graph."""

from __future__ import annotations

import itertools
import math
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from florence_lite.engine.fast.graphs import Captured, Pool
from florence_lite.engine.prefill import Prefix
from florence_lite.engine.steps import Source
from florence_lite.model import CrossCache, FlorenceModel
from florence_lite.model.cache import BLOCK
from florence_lite.model.device import inference_mode, on_device
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

    def load_images(self, sources: Sequence[Source]) -> None:
        """Take over keys and values of images, of at most the step's number and positions."""
        for part in (*self.cross.keys, *self.cross.values, self.cross_mask):
            part.zero_()
        for image, source in enumerate(sources):
            own = source.unpadded
            length = own.keys[0].shape[2]
            for static, given in ((self.cross.keys, own.keys), (self.cross.values, own.values)):
                for to, part in zip(static, given, strict=True):
                    to[image, :, :length] = part[0]
            self.cross_mask[image, :, :, length:] = -math.inf

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
    longer fits its step, or shrinks to a smaller one, another step takes over the caches. All rows end at one position,
    `length`, with padding in front of the shorter ones.
    """

    def __init__(self, model: FlorenceModel, pool: Pool, weights: int | None):
        """pool: of steps that were used before; weights: `graphs.state_of` the decoder and the tables."""
        self.model, self.device = model, model.embed_tokens.weight.device
        self._pool, self._weights, self._give_back = pool, weights, None
        self.length = 0
        self._sources: list[Source] = []  # of every row
        self._padding: list[int] = []  # in front of every row
        self._former: list[int] = []  # which row of the step each row continues
        self._loaded: list[Source] = []  # images, as the step has them
        self._branching = self._moved = False

    @inference_mode()
    def enter(self, read: Sequence[Prefix], sources: Sequence[Source]) -> Tensor:
        rows, before = len(self._sources), self.length
        past = self._past() if rows else []
        lengths = [before - each for each in self._padding] + [prefix.length for prefix in read]
        self.length = max(lengths)
        self._padding = [self.length - each for each in lengths]
        self._sources += sources
        joined = []
        for layer in range(read[0].keys.shape[0]):
            keys, values = read[0].keys.new_zeros(2, self.length, len(lengths), self.model.config.text.d_model)
            if rows:
                kept = min(before, self.length)
                for to, part in zip((keys, values), past[layer], strict=True):
                    to[self.length - kept :, :rows] = part[before - kept :]
            for row, prefix in enumerate(read, start=rows):
                for to, kept in ((keys, prefix.keys), (values, prefix.values)):
                    to[self._padding[row] :, row] = kept[layer].transpose(0, 1).flatten(1)
            joined.append((keys, values))
        self._use_step(joined)
        return torch.stack([prefix.hidden[-1] for prefix in read])

    def reorder(self, order: list[int]) -> None:
        if not order:
            self._release()
            self.__init__(self.model, self._pool, self._weights)
            return
        self._branching |= len(order) >= len(self._former)
        self._sources, self._padding, self._former = (
            [each[row] for row in order] for each in (self._sources, self._padding, self._former)
        )
        self._moved = True

    @inference_mode()
    def step(self, ids: list[int]) -> Tensor:
        images = self._images
        if self._shape() != self._step.shape or images != self._loaded or (self._moved and not self._branching):
            self._use_step(self._past())
        places, shape = self._places(), self._step.shape
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
        return self.model.logits(hidden, ids)

    @property
    def _images(self) -> list[Source]:
        return list(dict.fromkeys(self._sources))

    def _shape(self) -> Shape:
        images, each = len(self._images), max(Counter(self._sources).values())
        encoded = max(source.cross.keys[0].shape[2] for source in self._images)
        capacity = BLOCK * 2 ** math.ceil(math.log2(max(1, (self.length + 1) / BLOCK)))
        return Shape(_rounded(images), _rounded(each), -(-encoded // BLOCK) * BLOCK, capacity, self._branching)

    def _places(self) -> list[int]:
        """Which row of the step each row is: there, those of an image stand together."""
        first = {image: number * self._step.shape.each for number, image in enumerate(self._loaded)}
        places = []
        for source in self._sources:
            places.append(first[source])
            first[source] += 1
        return places

    def _past(self) -> list[tuple[Tensor, Tensor]]:
        return self._step.past(self.length, on_device(self.device, self._former))

    def _use_step(self, past: list[tuple[Tensor, Tensor]]) -> None:
        """Go on with a step that suits the rows, and with their `past`."""
        self._release()
        key = (self._shape(), self._weights)
        self._step = self._pool.take(key, lambda: StaticStep(self.model, key[0]))
        self._give_back = weakref.finalize(self, self._pool.give_back, key, self._step)
        self._give_back.atexit = False
        self._loaded = self._images
        self._former = self._places()
        self._written = on_device(self.device, self._former)
        self._step.load_images(self._loaded)
        self._step.load_past(past, self._written)
        self._moved = False

    def _release(self) -> None:
        if self._give_back is not None:
            self._give_back()


def _rounded(number: int) -> int:
    """The next number of 1, 2, 3, 4, 6, 8, 12, 16, …"""
    power = 2 ** math.ceil(math.log2(number))
    return power // 4 * 3 if power // 4 * 3 >= number else power
