"""Decoding steps by the compiled kernel, for networks on a processor. In float32 it reads the weights where they are:
nothing is packed or copied, and a weight that changes is used as it is at the next answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from florence_lite.engine.fast import kernel
from florence_lite.engine.fast.linear import dense
from florence_lite.engine.fast.precision import Weights
from florence_lite.engine.prefill import Prefix
from florence_lite.model import CrossCache, FlorenceModel
from florence_lite.model.cache import BLOCK
from florence_lite.model.transformer import POSITION_OFFSET

BYTES_OF_A_THREAD = 2**20  # weights of a layer that are worth another thread, which has to be waited for


class FastSteps:
    """See `engine.steps.PlainSteps`, whose names these are.

    Beams share what they have in common: a row's cache is a list of places in the cache, and a new order of rows only
    changes these lists.
    """

    def __init__(self, model: FlorenceModel, cross: CrossCache, encoder_mask: Tensor | None, weights: Weights):
        """weights: how the model's are read; the others as in `PlainSteps`."""
        self.model, self.cross, self.length = model, cross, 0
        self.encoder_mask = None if encoder_mask is None else encoder_mask.contiguous()
        self._library = kernel.library()
        self._decoder, self._kept = _decoder(model, weights), weights  # which the decoder points into
        self._head = weights.of(model.embed_tokens if model.lm_head is None else model.lm_head)
        self._threads = _threads(model)
        self._share_images()

    def keep_images(self, images: Tensor) -> None:
        self.cross = self.cross.select(images)
        if self.encoder_mask is not None:
            self.encoder_mask = self.encoder_mask[images]
        self._share_images()

    def start(self, read: Sequence[Prefix], max_length: int) -> Tensor:
        """Begin with a row for every prefix. Returns the states [R, D] behind them."""
        self.max_length, self.length = max_length, max(prefix.length for prefix in read)
        self.first = torch.tensor([self.length - prefix.length for prefix in read], dtype=torch.int32)
        rows, (layers, heads, _, width) = len(read), read[0].keys.shape
        shape = (min(max_length, -(-self.length // BLOCK) * BLOCK), rows, heads * width)
        self.keys, self.values = ([torch.zeros(shape) for _ in range(layers)] for _ in range(2))
        for row, prefix in enumerate(read):
            for kept, of_prefix in ((self.keys, prefix.keys), (self.values, prefix.values)):
                for layer, part in zip(kept, of_prefix, strict=True):
                    layer[self.length - prefix.length : self.length, row] = part.transpose(0, 1).flatten(1)
        self.slots = torch.arange(rows, dtype=torch.int32)[:, None].repeat(1, max_length)
        return torch.stack([prefix.hidden[-1] for prefix in read])

    def reorder(self, order: list[int]) -> None:
        """Row i becomes the former row `order[i]`."""
        index = torch.tensor(order)
        self.first, self.slots = self.first[index], self.slots[index]
        if len(order) > self.keys[0].shape[1]:
            self._resize(len(self.keys[0]), len(order))

    def step(self, ids: list[int]) -> Tensor:
        """Read one more id of every row. Returns the states [R, D] behind them."""
        return self.step_on([[each] for each in ids])[:, 0]

    def step_on(self, ids: list[list[int]]) -> Tensor:
        """Read a few more ids of every row, equally many. Returns the states [R, n, D] behind them: to the last bit what
        as many calls of `step` give."""
        hidden = self._read(self._decoder, ids, self.length)
        self.length += len(ids[0])
        return hidden

    def _read(self, decoder: kernel.Decoder, ids: list[list[int]], length: int) -> Tensor:
        """What the ids [R][n] are, read from position `length` on."""
        rows, count = len(ids), len(ids[0])
        if length + count > len(self.keys[0]):
            capacity = min(self.max_length, length + count + BLOCK)
            self._resize(capacity, self.keys[0].shape[1])
        self.slots[:, length : length + count] = torch.arange(rows, dtype=torch.int32)[:, None]
        tokens = torch.tensor(ids)
        positions = torch.arange(length, length + count) - self.first.long()[:, None]
        # Outside the table lie only filler rows that outlived their answer.
        places = positions.clamp(max=self.model.config.text.positions - 1) + POSITION_OFFSET
        hidden = torch.empty(rows, count, decoder.dim)
        keys = self.cross.keys[0]
        mask = self.encoder_mask
        past = _attended([*zip(self.keys, self.values, strict=True)])
        self._library.florence_step(
            decoder,
            kernel.Step(
                tokens.data_ptr(), places.data_ptr(), self.first.data_ptr(), self.slots.data_ptr(),
                past, self._cross, None if mask is None else mask.data_ptr(),
                *keys.stride()[:3], hidden.data_ptr(), rows, count, len(keys), length,
                self.slots.shape[1], self.keys[0].shape[1], keys.shape[2], self._threads,
            ),
        )  # fmt: skip
        return hidden

    def logits(self, hidden: Tensor, ids: range | None = None) -> Tensor:
        """As `FlorenceModel.logits`, of hidden [R, D]."""
        ids = range(self._head.out) if ids is None else ids
        return dense(self._head, hidden, hidden.new_empty(len(hidden), len(ids)), ids)

    def _resize(self, capacity: int, slots: int) -> None:
        for kept in (self.keys, self.values):
            for number, former in enumerate(kept):  # one after the other, so that hardly more is in memory meanwhile
                kept[number] = former.new_empty(capacity, slots, former.shape[2])
                kept[number][: len(former), : former.shape[1]] = former

    def _share_images(self) -> None:
        keys, values = self.cross.keys, self.cross.values
        if len({part.stride() for part in (*keys, *values)}) > 1:
            self.cross = CrossCache(*(tuple(part.contiguous() for part in kept) for kept in (keys, values)))
        self._cross = _attended([*zip(self.cross.keys, self.cross.values, strict=True)])


def _threads(model: FlorenceModel) -> int:
    of_layer = sum(weight.nbytes for weight in model.decoder.layers[0].parameters())
    return max(1, min(torch.get_num_threads(), of_layer // BYTES_OF_A_THREAD))


def _norm(norm: nn.LayerNorm) -> kernel.Norm:
    return kernel.Norm(norm.weight.data_ptr(), norm.bias.data_ptr(), norm.eps)


def _attended(pairs: Sequence[tuple[Tensor, Tensor]]):
    return (kernel.Attended * len(pairs))(*[(keys.data_ptr(), values.data_ptr()) for keys, values in pairs])


def _decoder(model: FlorenceModel, weights: Weights) -> kernel.Decoder:
    decoder, text = model.decoder, model.config.text
    layers = []
    for layer in decoder.layers:
        own, cross, ffn = layer.attention, layer.cross_attention, layer.ffn
        matrices = [
            weights.of(part)
            for part in (
                *(own.q_proj, own.k_proj, own.v_proj, own.out_proj),
                *(cross.q_proj, cross.out_proj, ffn.fc1, ffn.fc2),
            )
        ]
        norms = [_norm(part) for part in (layer.attention_norm, layer.cross_attention_norm, layer.ffn_norm)]
        layers.append(kernel.Layer(*matrices[:4], norms[0], *matrices[4:6], norms[1], *matrices[6:], norms[2]))
    array = (kernel.Layer * len(layers))(*layers)
    table = model.embed_tokens if decoder.embed_tokens is None else decoder.embed_tokens
    sizes = (text.decoder_layers, text.heads, text.d_model, text.ffn_dim)
    return kernel.Decoder(
        array, table.weight.data_ptr(), decoder.positions.weight.data_ptr(), _norm(decoder.norm), *sizes
    )
