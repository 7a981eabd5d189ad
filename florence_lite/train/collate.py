"""Annotated images to tensors: pixels, and the token rows of the tasks asked about them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from florence_lite.answers import Answer
from florence_lite.data.annotation import Annotation
from florence_lite.rules import NEGATIVES, Pair, draw, pairs
from florence_lite.tokens.codec import Codec
from florence_lite.train.rows import Row, RowWriter

IGNORED = -100  # label of positions that carry no loss: prompt, padding

Lanes = list[list[tuple[int, Row]]]
"""Of an image: in each lane the rows that stand behind each other, with their slots."""


@dataclass(frozen=True)
class RowGroup:
    """Rows of ids in lanes, L for each image; a lane holds one row, or several behind each other.

    input_ids, labels: int64 [B, L, T] of the decoder; `labels[..., t]` is the token that follows `input_ids[..., t]`,
        or `IGNORED`.
    tasks: markers of the rows. places: int64 [M], where in the flattened labels those that carry loss stand: all of the
        first task, then all of the second, and so on. sizes: how many each task has. A GPU would have to be waited for
        to find them.
    positions: int64 [B, L, T], place of each token in its row; None where every lane is one row.
    prompt_ids: int64 [B, L, P], padded on the right, for a network whose prompt goes to the encoder; None where it
        stands in `input_ids`.
    """

    input_ids: Tensor
    labels: Tensor
    tasks: tuple[str, ...]
    places: Tensor
    sizes: tuple[int, ...]
    positions: Tensor | None = None
    prompt_ids: Tensor | None = None

    def moved(self, move: Callable[[Tensor], Tensor]) -> RowGroup:
        """With all tensors elsewhere."""
        return replace(self, **{name: move(each) for name, each in vars(self).items() if isinstance(each, Tensor)})


@dataclass(frozen=True)
class Batch:
    """Images and the token rows about them.

    pixel_values: float32 [B, 3, H, W], or None where `image_features`, float [B, N, D], say what a tower saw in them.
    unreadable: name → reason of the images that were to be here and could not be read; others stand in their places.
    """

    pixel_values: Tensor | None
    groups: tuple[RowGroup, ...]
    image_features: Tensor | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """How many tokens carry loss."""
        return sum(sum(group.sizes) for group in self.groups)

    @property
    def counts(self) -> dict[str, int]:
        """How many values each mean of the loss is over. The parts of a larger batch are summed with its counts, so
        that its loss is the same however it is divided."""
        return {"tokens": self.tokens}

    def moved(self, move: Callable[[Tensor], Tensor]) -> Self:
        """With all tensors elsewhere."""
        images = {name: getattr(self, name) for name in ("pixel_values", "image_features")}
        images = {name: move(tensor) for name, tensor in images.items() if tensor is not None}
        return replace(self, groups=tuple(group.moved(move) for group in self.groups), **images)

    def to(self, device: torch.device) -> Self:
        """On a device. From pinned memory nothing waits for the copy."""
        return self.moved(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """In pinned memory, as torch's loaders ask for it."""
        return self.moved(Tensor.pin_memory)


@dataclass(frozen=True)
class TaskCollator:
    """Turns (image, annotation) examples into a `Batch`.

    The rows are those of `RowWriter`. Loss is on the answer and its end.

    preprocessor: makes pixel_values of images, as a `Preprocessor` does.
    rates: rows per image of each task; 4.0 draws four targets, 0.25 draws one in a quarter of the batches. All images
        of a batch get the same tasks.
    max_length: tokens that the network has positions for. shorten: leave out the last objects of answers that are
        longer. negatives: as in `florence_lite.rules.draw`.
    """

    codec: Codec
    preprocessor: Callable[[Sequence[Image.Image]], Tensor]
    rates: Mapping[str, float]
    grid_wh: tuple[int, int]
    bins: int = 1000
    max_length: int = 512
    prompt_side: str = "decoder"
    shorten: bool = False
    negatives: float = NEGATIVES

    def __call__(
        self, examples: Sequence[tuple[Image.Image | Tensor, Annotation]], rng: np.random.Generator, first: int = 0
    ) -> Batch:
        """examples: images, or image features [N, D] that a tower saw in them, with their annotations.

        first: number of the first example in the batch that these are a part of: with a generator in the same state the
        parts of a batch get the rows that the whole would get.
        """
        images, annotations = zip(*examples, strict=True)
        slots, seed = self.draw_tasks(rng), int(rng.integers(2**63))
        rngs = [np.random.default_rng([seed, first + place]) for place in range(len(examples))]
        known = [{name: pairs(name, each) for name in set(slots)} for each in annotations]
        rows = [
            {slot: row for slot, name in enumerate(slots) if (row := self._drawn(name, pairs_of[name], truth, rng))}
            for truth, pairs_of, rng in zip(annotations, known, rngs, strict=True)
        ]
        groups = tuple(self._group(slots, lanes) for lanes in self._lanes(rows))
        if isinstance(images[0], Tensor):
            return Batch(None, groups, torch.stack(images))
        return Batch(self.preprocessor(images), groups)

    def draw_tasks(self, rng: np.random.Generator) -> list[str]:
        """The tasks of a batch at their rates, repeated for several rows."""
        rates = self.rates.items()
        return [name for name, rate in rates for _ in range(int(rate) + int(rng.random() < rate - int(rate)))]

    def row(self, task: str, annotation: Annotation, rng: np.random.Generator) -> Row | None:
        """One question and its answer, drawn of all that the annotation tells; None where it tells nothing.

        Raises ValueError for one that is too long for the network and cannot be shortened.
        """
        return self._drawn(task, pairs(task, annotation), annotation, rng)

    def all_rows(self, task: str, found: Iterable[Pair], size_wh: tuple[int, int]) -> Iterator[Row]:
        """Every row that `row` may draw of the pairs of an image. Raises as `row` does, when it comes to that row."""
        for pair in found:
            for target in pair.targets:
                yield self._fitting(task, pair, target, size_wh)

    @cached_property
    def writer(self) -> RowWriter:
        width, height = self.grid_wh
        return RowWriter(self.codec, self.max_length, 1 + width * height, self.prompt_side, self.bins)

    def _drawn(self, task: str, known: Sequence[Pair], annotation: Annotation, rng: np.random.Generator) -> Row | None:
        drawn = draw(known, rng, self.negatives)
        return None if drawn is None else self._fitting(task, *drawn, annotation.size_wh)

    def _fitting(self, task: str, pair: Pair, target: Answer, size_wh: tuple[int, int]) -> Row:
        """The row of an answer, shortened where that is needed and allowed. Raises as `row` does."""
        writer = self.writer
        row = writer.write(task, pair, target, size_wh)
        if not writer.prompt_fits(row):
            raise ValueError(
                f"a prompt of task {task} has {len(row.prompt)} tokens; behind {writer.image_tokens} image tokens the "
                f"network takes {self.max_length - writer.image_tokens}: leave such images out"
            )
        if writer.fits(row):
            return row
        counts = range(1, len(target.instances) + 1) if self.shorten else ()
        kept = bisect_left(counts, True, key=lambda n: not writer.fits(writer.write(task, pair, target, size_wh, n)))
        if not kept:
            raise ValueError(
                f"a row of task {task} has {row.length + 1} tokens; the network takes {self.max_length}: leave such "
                "images out, let the data set's `shorten` leave out their last objects, or train a network with more "
                "positions"
            )
        return writer.write(task, pair, target, size_wh, kept)

    def _lanes(self, rows: Sequence[dict[int, Row]]) -> Iterator[list[Lanes]]:
        """The rows of the images, by slot, in lanes, group by group."""
        if self.prompt_side == "decoder":
            longest = max((row.length for of_image in rows for row in of_image.values()), default=0)
            if longest:
                yield [_packed(of_image, longest) for of_image in rows]
            return
        for members in _by_length(rows):
            yield [[[(slot, of_image[slot])] if slot in of_image else [] for slot in members] for of_image in rows]

    def _group(self, slots: Sequence[str], images: Sequence[Lanes]) -> RowGroup:
        pad = self.codec.tokenizer.vocabulary.pad
        length = max(sum(row.length for _, row in lane) for lanes in images for lane in lanes)
        input_ids = torch.full((len(images), max(map(len, images)), length), pad)
        labels, positions = torch.full_like(input_ids, IGNORED), torch.zeros_like(input_ids)
        numbers = torch.arange(input_ids.numel()).view_as(input_ids)
        places: dict[str, list[Tensor]] = {}  # task → those of its rows
        for image, lanes in enumerate(images):
            for lane, filled in enumerate(lanes):
                begin = 0
                for slot, row in filled:
                    ids, end = torch.tensor(row.start + row.answer), begin + row.length
                    answer = slice(begin + len(row.start) - 1, end)
                    input_ids[image, lane, begin:end] = ids[:-1]
                    positions[image, lane, begin:end] = torch.arange(row.length)
                    labels[image, lane, answer] = ids[len(row.start) :]
                    places.setdefault(slots[slot], []).append(numbers[image, lane, answer])
                    begin = end
        of_tasks = {task: torch.cat(each) for task, each in places.items()}
        return RowGroup(
            input_ids,
            labels,
            tuple(of_tasks),
            torch.cat(list(of_tasks.values())),
            tuple(map(len, of_tasks.values())),
            positions if self.prompt_side == "decoder" else None,
            self._prompts(images) if self.prompt_side == "encoder" else None,
        )

    def _prompts(self, images: Sequence[Lanes]) -> Tensor:
        """The prompts of lanes that are one row each, [B, L, P]."""
        pad = self.codec.tokenizer.vocabulary.pad
        longest = max(len(row.prompt) for lanes in images for lane in lanes for _, row in lane)
        prompts = torch.full((len(images), len(images[0]), longest), pad)
        for image, lanes in enumerate(images):
            for lane, filled in enumerate(lanes):
                for _, row in filled:
                    prompts[image, lane, : len(row.prompt)] = torch.tensor(row.prompt)
        return prompts


def _packed(rows: Mapping[int, Row], length: int) -> Lanes:
    """The rows of an image in few lanes of a length: the longest first, each in the first lane with room for it."""
    lanes: Lanes = []
    room: list[int] = []
    for slot, row in sorted(rows.items(), key=lambda item: -item[1].length):
        lane = next((n for n, left in enumerate(room) if left >= row.length), len(lanes))
        if lane == len(lanes):
            lanes.append([])
            room.append(length)
        lanes[lane].append((slot, row))
        room[lane] -= row.length
    return lanes


def _by_length(rows: Sequence[Mapping[int, Row]]) -> list[list[int]]:
    """Slots in groups of similar length: a group ends where the next slot is over half as long again as its first."""
    lengths: dict[int, int] = {}
    for of_image in rows:
        for slot, row in of_image.items():
            lengths[slot] = max(lengths.get(slot, 0), row.length + 1)
    groups: list[list[int]] = []
    for slot in sorted(lengths, key=lengths.__getitem__):
        if groups and lengths[slot] <= 1.5 * lengths[groups[-1][0]]:
            groups[-1].append(slot)
        else:
            groups.append([slot])
    return groups
