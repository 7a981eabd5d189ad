"""Decoding steps by the compiled kernel, for networks on a processor. In float32 it reads the weights where they are;
guesses have copies in int8. A weight that changes is used as it is at the next answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence_lite.engine.fast import kernel
from florence_lite.engine.fast.linear import dense
from florence_lite.engine.fast.precision import Weights
from florence_lite.engine.prefill import Prefix
from florence_lite.engine.steps import Source
from florence_lite.model import CrossCache, FlorenceModel
from florence_lite.model.cache import BLOCK
from florence_lite.model.transformer import POSITION_OFFSET

SPARE = 16  # slots for each row by which the cache grows
MEETINGS = 8  # of the threads in a layer


class FastSteps:
    """See `engine.steps.PlainSteps`, whose names these are.

    What is remembered lies in slots, one for each token, in no order; a row is a list of slots. So beams share what
    they have in common, a new order of rows only changes lists, and rows that come or go move nothing.
    """

    def __init__(self, model: FlorenceModel, weights: Weights, drafts: Weights | None = None):
        """weights: how the model's are read. drafts: in int8, where ids may be drafted with them; else None."""
        self.model, self.draft_weights = model, drafts
        self._library = kernel.library()
        self._decoder = _decoder(model, weights)
        self._head = weights.of(model.embed_tokens if model.lm_head is None else model.lm_head)
        self._layer_weights = sum(weight.numel() for weight in model.decoder.layers[0].parameters())
        layers, width = model.config.text.decoder_layers, model.config.text.d_model
        self._keys, self._values = ([torch.empty(0, width) for _ in range(layers)] for _ in range(2))
        self._free = torch.empty(0, dtype=torch.int32)  # slots that no row needs
        self._slots = torch.zeros(0, BLOCK, dtype=torch.int32)  # of every row, [R, width]
        self._lengths = torch.zeros(0, dtype=torch.int32)  # tokens of every row
        self._held = self._lengths.clone()  # slots of every row, those of tokens ahead of its length included
        self._drafts: tuple[kernel.Decoder, kernel.Matrix] | None = None  # in int8, once they are needed
        self._sources: list[Source] = []  # of every row
        self._images: dict[Source, CrossCache] = {}

    def enter(self, read: Sequence[Prefix], sources: Sequence[Source]) -> Tensor:
        former = len(self._slots)
        lengths = torch.tensor([prefix.length for prefix in read], dtype=torch.int32)
        self._widen(int(lengths.max()))
        self._slots = torch.cat([self._slots, torch.zeros(len(read), self._slots.shape[1], dtype=torch.int32)])
        self._lengths, self._held = (torch.cat([of, torch.zeros_like(lengths)]) for of in (self._lengths, self._held))
        taken = self._take(int(lengths.sum())).split(lengths.tolist())
        for row, (prefix, slots) in enumerate(zip(read, taken, strict=True), start=former):
            self._slots[row, : prefix.length] = slots
            for kept, of_prefix in ((self._keys, prefix.keys), (self._values, prefix.values)):
                for layer, part in zip(kept, of_prefix, strict=True):
                    layer[slots] = part.transpose(0, 1).flatten(1)
        self._lengths[former:] = self._held[former:] = lengths
        self._sources += sources
        self._attend()
        return torch.stack([prefix.hidden[-1] for prefix in read])

    def reorder(self, order: list[int]) -> None:
        index = torch.tensor(order, dtype=torch.int64)
        self._slots, self._lengths, self._held = (of[index] for of in (self._slots, self._lengths, self._held))
        self._sources = [self._sources[row] for row in order]
        self._attend()

    def step(self, ids: list[int]) -> Tensor:
        hidden = self._read(self._decoder, [[each] for each in ids])[:, 0]
        self.accept()
        return hidden

    def accept(self) -> None:
        """Every row has one more token: the first of those that were read ahead."""
        self._lengths = self._lengths + 1
        self._held = torch.maximum(self._held, self._lengths)

    def ahead(self, ids: list[list[int]]) -> Tensor:
        """States [R, n, D] behind n more ids of every row, to the last bit those of n steps. The rows stay as they
        are: only `accept` makes them longer."""
        return self._read(self._decoder, ids)

    def draft(self, ids: list[int], ahead: int) -> Tensor:
        """About what the states [R, D] behind one more id of every row are, `ahead` places behind its end: by weights
        in int8. What it leaves in the cache is overwritten when the places are read by `ahead` or `step`."""
        return self._read(self._in_int8()[0], [[each] for each in ids], ahead)[:, 0]

    def draft_logits(self, hidden: Tensor, ids: range) -> Tensor:
        return dense(self._in_int8()[1], hidden, hidden.new_empty(len(hidden), len(ids)), ids)

    def _in_int8(self) -> tuple[kernel.Decoder, kernel.Matrix]:
        if self._drafts is None:
            model, weights = self.model, self.draft_weights
            head = weights.of(model.embed_tokens if model.lm_head is None else model.lm_head)
            self._drafts = _decoder(model, weights), head
        return self._drafts

    def _read(self, decoder: kernel.Decoder, ids: list[list[int]], ahead: int = 0) -> Tensor:
        rows, count = len(ids), len(ids[0])
        lengths = self._lengths + ahead
        end = lengths + count
        self._widen(int(end.max()))
        while lacking := (self._held < end).nonzero()[:, 0].tolist():
            slots = self._take(len(lacking))
            self._slots[lacking, self._held[lacking].long()] = slots
            self._held[lacking] += 1
        tokens, hidden = torch.tensor(ids), torch.empty(rows, count, decoder.dim)
        # The kernel knows rows of one token: n of them have the same list of slots, each sees one token more.
        lengths = (lengths[:, None] + torch.arange(count, dtype=torch.int32)).flatten()
        slots = self._slots.repeat_interleave(count, 0) if count > 1 else self._slots
        image_sizes, heads, of_rows, bounds = self._of_images
        if count > 1:
            of_rows = (of_rows[:, None] * count + torch.arange(count, dtype=torch.int32)).flatten()
            bounds = bounds * count
        past = _attended([*zip(self._keys, self._values, strict=True)])
        self._library.florence_step(
            decoder,
            kernel.Step(
                *(part.data_ptr() for part in (tokens, lengths, slots)), past, self._cross,
                *(part.data_ptr() for part in (image_sizes, heads, of_rows, bounds, hidden)),
                rows * count, len(self._images), slots.shape[1],
                kernel.threads_for(rows * count * self._layer_weights // MEETINGS),
            ),
        )  # fmt: skip
        return hidden

    def logits(self, hidden: Tensor, ids: range | None = None) -> Tensor:
        ids = range(self._head.out) if ids is None else ids
        return dense(self._head, hidden, hidden.new_empty(len(hidden), len(ids)), ids)

    def _widen(self, tokens: int) -> None:
        """Make the lists of slots long enough."""
        if (lacking := tokens - self._slots.shape[1]) > 0:
            self._slots = F.pad(self._slots, (0, -(-lacking // BLOCK) * BLOCK))

    def _take(self, count: int) -> Tensor:
        """Slots for new tokens, int32 [count]. Where none are left, those that no row needs any more are found."""
        if count > len(self._free):
            capacity, rows = len(self._keys[0]), len(self._slots)
            used = torch.zeros(capacity, dtype=torch.bool)
            used[self._slots[torch.arange(self._slots.shape[1]) < self._held[:, None]].long()] = True
            self._free = (~used).nonzero()[:, 0].int()
            if len(self._free) < count + rows * SPARE // 2:  # so that they last for a while
                more = count + rows * SPARE
                for kept in (self._keys, self._values):
                    for number, former in enumerate(kept):  # one by one: hardly more is in memory meanwhile
                        kept[number] = torch.cat([former, former.new_empty(more, former.shape[1])])
                self._free = torch.cat([self._free, torch.arange(capacity, capacity + more, dtype=torch.int32)])
        taken, self._free = self._free[:count], self._free[count:]
        return taken

    def _attend(self) -> None:
        """Tell the kernel which rows attend to which image."""
        rows_of: dict[Source, list[int]] = {}
        for row, source in enumerate(self._sources):
            rows_of.setdefault(source, []).append(row)
        # Kept: the kernel has only their addresses.
        self._images = {source: self._images.get(source) or _head_by_head(source) for source in rows_of}
        caches = self._images.values()
        rows = [row for of_image in rows_of.values() for row in of_image]
        self._of_images = [
            torch.tensor([cache.keys[0].shape[2] for cache in caches], dtype=torch.int32),
            torch.tensor([cache.keys[0].stride(1) for cache in caches], dtype=torch.int64),
            torch.tensor(rows, dtype=torch.int32),
            torch.tensor([0, *accumulate(map(len, rows_of.values()))], dtype=torch.int32),
        ]
        layers = range(len(self._keys))
        self._cross = _attended([(cache.keys[layer], cache.values[layer]) for layer in layers for cache in caches])


def _head_by_head(source: Source) -> CrossCache:
    """Keys and values of an image, [1, heads, S, d], those of a head in a row; as they are if they lie so."""
    own = source.unpadded
    if len({part.stride() for part in (*own.keys, *own.values)}) == 1 and own.keys[0].stride(2) == own.keys[0].shape[3]:
        return own
    return CrossCache(*(tuple(part.contiguous() for part in kept) for kept in (own.keys, own.values)))


def _norm(norm: nn.LayerNorm) -> kernel.Norm:
    return kernel.Norm(norm.weight.data_ptr(), norm.bias.data_ptr(), norm.eps)


def _attended(pairs: Sequence[tuple[Tensor, Tensor]]):
    return (kernel.Attended * len(pairs))(*[(keys.data_ptr(), values.data_ptr()) for keys, values in pairs])


def _decoder(model: FlorenceModel, weights: Weights) -> kernel.Decoder:
    """Its `kept` are what it points to."""
    decoder, text = model.decoder, model.config.text
    layers, kept = [], [each.detach() for each in decoder.parameters()]
    for layer in decoder.layers:
        own, cross, ffn = layer.attention, layer.cross_attention, layer.ffn
        matrices = [
            weights.of(part)
            for part in (
                *(own.q_proj, own.k_proj, own.v_proj, own.out_proj),
                *(cross.q_proj, cross.out_proj, ffn.fc1, ffn.fc2),
            )
        ]
        kept += [each.kept for each in matrices]
        norms = [_norm(part) for part in (layer.attention_norm, layer.cross_attention_norm, layer.ffn_norm)]
        layers.append(kernel.Layer(*matrices[:4], norms[0], *matrices[4:6], norms[1], *matrices[6:], norms[2]))
    array = (kernel.Layer * len(layers))(*layers)
    table = model.embed_tokens if decoder.embed_tokens is None else decoder.embed_tokens
    sizes = (text.decoder_layers, text.heads, text.d_model, text.ffn_dim)
    tables = (table.weight, decoder.positions.weight[POSITION_OFFSET:])
    made = kernel.Decoder(array, *(part.data_ptr() for part in tables), _norm(decoder.norm), *sizes)
    made.kept = (kept, table.weight.detach())
    return made
