"""Reading prefixes: once for all that is done behind them, in batches without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from florence_lite.model import CrossCache, FlorenceModel, SelfCache
from florence_lite.model.device import inference_mode

TOKENS_AT_ONCE = 512  # that are read together: with more, what a layer makes of them leaves a processor's cache
TOKENS_ON_GPU = 2**14
KEPT_STATES = 2  # behind a prompt, and behind the forced first id of its answer


class Prefix(NamedTuple):
    """A prefix that the decoder has read.

    keys, values: [layers, heads, T, d] of its T ids. hidden: [1 or 2, D], the states behind the last of them.
    """

    keys: Tensor
    values: Tensor
    hidden: Tensor

    @property
    def length(self) -> int:
        return self.keys.shape[2]


@inference_mode()
def prefill(
    model: FlorenceModel,
    cross: CrossCache,
    encoder_mask: Tensor | None,
    prefixes: Sequence[list[int]],
    images: Sequence[int],
    most: int | None = None,
) -> list[Prefix]:
    """Run the decoder over prefixes.

    cross: keys and values of B images; encoder_mask: bool [B, S], False on padding, or None.
    prefixes: lists of at least one id, of any lengths. images: which of the B images each of them is about.
    most: ids that go through the network together, or a few more; None: as many as suit the device.

    What all of them begin with is read once for each image. Those of equal length go through the network together.
    """
    device = cross.keys[0].device
    most = most or suitable(device)
    shared = _shared(prefixes) if len(prefixes) > len(cross.keys[0]) else []
    begun = model.self_cache(len(cross.keys[0]), max(1, len(shared)))
    if shared:
        model.decode(torch.tensor([shared] * len(cross.keys[0]), device=device), cross, encoder_mask, begun, last=1)
    read: dict[int, Prefix] = {}
    for rows in _alike(prefixes, images, most):
        about = list(dict.fromkeys(images[row] for row in rows))
        part, mask = _of_images(cross, encoder_mask, about)
        input_ids = torch.tensor([prefixes[row][len(shared) :] for row in rows], device=device)
        cache = model.self_cache(len(rows), len(prefixes[rows[0]]))
        if shared:
            of_rows = torch.tensor([images[row] for row in rows], device=device)
            for layer, (keys, values) in enumerate(zip(begun.keys, begun.values, strict=True)):
                cache.append(layer, keys[of_rows], values[of_rows])
            cache.length = len(shared)
        hidden = model.decode(input_ids, part, mask, cache, last=KEPT_STATES)
        keys, values = (
            torch.stack([layer[:, :, : cache.length] for layer in kept], 1) for kept in (cache.keys, cache.values)
        )
        read |= {row: Prefix(*parts) for row, *parts in zip(rows, keys, values, hidden, strict=True)}
    return [read[row] for row in range(len(prefixes))]


def suitable(device: torch.device) -> int:
    """How many ids are best read together."""
    return TOKENS_AT_ONCE if device.type == "cpu" else TOKENS_ON_GPU


def start_cache(model: FlorenceModel, prefixes: Sequence[Prefix], max_length: int) -> tuple[SelfCache, list[int]]:
    """A self-attention cache of rows that begin with the prefixes, and how many positions of padding stand before each
    so that all of them end together."""
    longest = max(prefix.length for prefix in prefixes)
    padding = [longest - prefix.length for prefix in prefixes]
    cache = model.self_cache(len(prefixes), max_length)
    layers, heads, _, width = prefixes[0].keys.shape
    for layer in range(layers):
        keys, values = prefixes[0].keys.new_zeros(2, len(prefixes), heads, longest, width)
        for row, (prefix, first) in enumerate(zip(prefixes, padding, strict=True)):
            keys[row, :, first:] = prefix.keys[layer]
            values[row, :, first:] = prefix.values[layer]
        cache.append(layer, keys, values)
    cache.length = longest
    return cache, padding


def _shared(prefixes: Sequence[list[int]]) -> list[int]:
    """What all prefixes begin with, save for the last ids of the shortest, whose states are kept."""
    first, last = min(prefixes), max(prefixes)  # of all lists in order, these two differ first
    most = min(map(len, prefixes)) - KEPT_STATES
    different = (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: max(0, min(most, next(different, most)))]


def _alike(prefixes: Sequence[list[int]], images: Sequence[int], most: int) -> Iterator[list[int]]:
    """Rows that can go through the network together: of one length, and equally many of each of their images, which
    stand together."""
    by_length: dict[int, dict[int, list[int]]] = {}
    for row, (prefix, image) in enumerate(zip(prefixes, images, strict=True)):
        by_length.setdefault(len(prefix), {}).setdefault(image, []).append(row)
    for length, by_image in by_length.items():
        at_once = max(1, most // length)
        by_shape: dict[tuple[int, int], list[Sequence[int]]] = {}  # no image comes twice in parts of one number
        for rows in by_image.values():
            for number, part in enumerate(_pieces(rows, at_once)):
                by_shape.setdefault((number, len(part)), []).append(part)
        for (_, count), parts in by_shape.items():
            for few in _pieces(parts, max(1, at_once // count)):
                yield [row for part in few for row in part]


def _pieces(items: Sequence, size: int) -> Iterator[Sequence]:
    return (items[first : first + size] for first in range(0, len(items), size))


def _of_images(cross: CrossCache, mask: Tensor | None, images: list[int]) -> tuple[CrossCache, Tensor | None]:
    if images == list(range(cross.keys[0].shape[0])):
        return cross, mask
    if len(images) == 1:
        return cross.part(slice(images[0], images[0] + 1)), None if mask is None else mask[images]
    index = torch.tensor(images, device=cross.keys[0].device)
    return cross.select(index), None if mask is None else mask[index]
