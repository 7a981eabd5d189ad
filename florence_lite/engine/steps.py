"""Decoding steps by the plain network: one new id for every row, and what the network makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from florence_lite.engine.prefill import Prefix, start_cache
from florence_lite.model import CrossCache, FlorenceModel, SelfCache

KEPT_SHARE_OF_IMAGES = 0.75  # Finished images are dropped once at most this share is left: dropping copies the others.


@dataclass(frozen=True, eq=False)
class Source:
    """What rows attend to: an image of a batch, with its prompt where that goes to the encoder.

    cross: keys and values of B images; mask: bool [B, S], False on padding, or None; number: which of the B images.
    Two are equal where they are one image of one batch.
    """

    cross: CrossCache
    mask: Tensor | None = None
    number: int = 0

    @classmethod
    def all_of(cls, cross: CrossCache, mask: Tensor | None = None) -> list[Source]:
        return [cls(cross, mask, number) for number in range(len(cross.keys[0]))]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source) and self.cross is other.cross and self.number == other.number

    def __hash__(self) -> int:
        return hash((id(self.cross), self.number))

    def copied(self) -> Source:
        """The image without its batch, which need not stay in memory then, and without padding."""
        own = self.unpadded
        return Source(CrossCache(*(tuple(part.clone() for part in kept) for kept in (own.keys, own.values))))

    @property
    def unpadded(self) -> CrossCache:
        """Keys and values [1, heads, S, d] of this image without padding; where that stands on the right or there is
        none, not copied."""
        own = slice(self.number, self.number + 1)
        alone = self.cross.part(own)
        if self.mask is None or self.mask[own].all():
            return alone
        seen: Tensor | slice = self.mask[self.number]
        if seen[: int(seen.sum())].all():
            seen = slice(int(seen.sum()))
        return CrossCache(tuple(k[:, :, seen] for k in alone.keys), tuple(v[:, :, seen] for v in alone.values))


class PlainSteps:
    """The rows of a batch, with what the network remembers of them. Rows may come and go between steps.

    The network wants equally many rows of every image, standing together: where rows have another order, or images
    fewer rows, they are moved, with fillers, whose content nobody reads, behind those of an image. All end at one
    position, with padding in front of the shorter ones.
    """

    def __init__(self, model: FlorenceModel):
        self.model, self.device = model, model.embed_tokens.weight.device
        self._sources: list[Source] = []  # of every row
        self._places: list[int] = []  # of every row among those of the network, the fillers included
        self._images: list[Source] = []  # in the order of the network's batch
        self._cache: SelfCache | None = None
        self._padding: list[int] = []  # in front of each row of the network

    def enter(self, read: Sequence[Prefix], sources: Sequence[Source]) -> Tensor:
        """Add a row for every prefix, behind those that are there. sources: what each attends to; rows that share an
        image have the same. Returns the states [N, D] behind the prefixes."""
        # A row that is there when another enters may go on for as many positions again as the network has.
        cache, padding = start_cache(self.model, read, 2 * self.model.config.text.positions)
        if self._cache is not None:
            own = max(self._cache.length - self._padding[place] for place in self._places)
            length = max(own, cache.length)
            former = [max(0, each + length - self._cache.length) for each in self._padding]
            padding = former + [each + length - cache.length for each in padding]
            self._cache.join(cache, length)
        else:
            self._cache = cache
        first, self._padding = len(self._padding), padding
        self._places += range(first, first + len(read))
        self._sources += sources
        self._arrange()
        return torch.stack([prefix.hidden[-1] for prefix in read])

    def reorder(self, order: list[int]) -> None:
        """Row i becomes the former row `order[i]`, of any number. Images that no row is about are dropped."""
        self._sources, self._places = ([each[row] for row in order] for each in (self._sources, self._places))
        if order:
            self._arrange()
        else:
            self.__init__(self.model)

    def step(self, ids: list[int]) -> Tensor:
        """Read one more id of every row. Returns the states [R, D] behind them."""
        positions = input_mask = None
        if any(self._padding):
            padding = torch.tensor(self._padding, device=self.device)[:, None]
            place = torch.arange(self._cache.length + 1, device=self.device)
            input_mask = place >= padding  # [rows of the network, past + 1]
            # Outside the table lie only padding and filler rows that outlived their answer.
            positions = (place[-1:] - padding).clamp(0, self.model.config.text.positions - 1)
        read = [ids[0]] * len(self._padding)
        for place, token in zip(self._places, ids, strict=True):
            read[place] = token
        input_ids = torch.tensor(read, device=self.device)[:, None]
        cross, mask = self._images[0].cross, self._images[0].mask
        hidden = self.model.decode(input_ids, cross, mask, self._cache, positions, input_mask)[:, -1]
        return hidden if self._places == list(range(len(read))) else hidden[self._places]

    def logits(self, hidden: Tensor, ids: range | None = None) -> Tensor:
        """As `FlorenceModel.logits`, of hidden [R, D]."""
        return self.model.logits(hidden, ids)

    def _arrange(self) -> None:
        """Give the network the images that rows are about, and rows in their order."""
        used = list(dict.fromkeys(self._sources))
        kept = [image for image in self._images if image in used]
        fresh = [image for image in used if image not in self._images]
        if fresh or len(kept) <= KEPT_SHARE_OF_IMAGES * len(self._images):
            self._images = stacked([*kept, *fresh])
            stands_for = dict(zip([*kept, *fresh], self._images, strict=True))
            self._sources = [stands_for[source] for source in self._sources]
        rows_of: dict[Source, list[int]] = {image: [] for image in self._images}
        for row, source in enumerate(self._sources):
            rows_of[source].append(row)
        height, order, places = max(map(len, rows_of.values())), [], [0] * len(self._sources)
        for number, rows in enumerate(rows_of.values()):
            for row in rows:
                places[row] = len(order)
                order.append(self._places[row])
            # A filler row stays where it is if it can, which often leaves the cache untouched.
            order += [min(row, len(self._padding) - 1) for row in range(len(order), (number + 1) * height)]
        self._places = places
        if order != list(range(len(self._padding))):
            self._cache.reorder(torch.tensor(order, device=self.device))
            self._padding = [self._padding[row] for row in order]


def stacked(sources: Sequence[Source]) -> list[Source]:
    """The images as one batch; they themselves where they are a whole one already."""
    cross, mask = sources[0].cross, sources[0].mask
    numbers = [source.number for source in sources]
    if all(source.cross is cross for source in sources):
        if numbers == list(range(len(cross.keys[0]))):
            return list(sources)
        index = torch.tensor(numbers, device=cross.keys[0].device)
        return Source.all_of(cross.select(index), None if mask is None else mask[index])
    alone = [source.unpadded for source in sources]
    lengths = torch.tensor([each.keys[0].shape[2] for each in alone], device=cross.keys[0].device)
    longest = int(lengths.max())
    padded = [
        CrossCache(
            *(
                tuple(F.pad(part, (0, 0, 0, longest - part.shape[2])) for part in kept)
                for kept in (each.keys, each.values)
            )
        )
        for each in alone
    ]
    seen = torch.arange(longest, device=lengths.device) < lengths[:, None]
    return Source.all_of(CrossCache.joined(padded), None if seen.all() else seen)
