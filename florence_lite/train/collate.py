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
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.rules import NEGATIVES, Pair, draw, pairs
from florence_lite.tokens.codec import Codec
from florence_lite.train.rows import Row, RowWriter

IGNORED = -100  # label of positions that carry no loss: prompt, padding


@dataclass(frozen=True)
class RowGroup:
    """Rows of similar length; the rows of an image stand together.

    tasks: marker of each of the R rows of an image.
    input_ids, labels: int64 [B, R, T] of the decoder; `labels[..., t]` is the token that follows `input_ids[..., t]`,
        or `IGNORED`.
    prompt_ids: int64 [B, R, P], padded on the right, for a network whose prompt goes to the encoder; None where it
        stands in `input_ids`.
    places: int64 [M], where in the flattened labels those that carry loss stand: all of the first row of an image, then
        all of the second, and so on. sizes: how many each row has. Found when the group is made: a GPU would have to be
        waited for.
    """

    tasks: tuple[str, ...]
    input_ids: Tensor
    labels: Tensor
    prompt_ids: Tensor | None = None
    places: Tensor | None = None
    sizes: tuple[int, ...] = ()

    def __post_init__(self):
        if self.places is None:
            kept = (self.labels != IGNORED).movedim(1, 0)
            numbers = torch.arange(kept.numel(), device=kept.device).view_as(self.labels).movedim(1, 0)
            object.__setattr__(self, "places", numbers[kept])
            object.__setattr__(self, "sizes", tuple(kept.sum((1, 2)).tolist()))

    def moved(self, move: Callable[[Tensor], Tensor]) -> RowGroup:
        """With all tensors elsewhere."""
        prompts = None if self.prompt_ids is None else move(self.prompt_ids)
        return RowGroup(self.tasks, move(self.input_ids), move(self.labels), prompts, move(self.places), self.sizes)


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

    rates: rows per image of each task; 4.0 draws four targets, 0.25 draws one in a quarter of the batches. All images
        of a batch get the same tasks, so that rows line up.
    max_length: tokens that the network has positions for. shorten: leave out the last objects of answers that are
        longer. negatives: as in `florence_lite.rules.draw`.
    """

    codec: Codec
    preprocessor: Preprocessor
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
        known = {name: [pairs(name, each) for each in annotations] for name in set(slots)}
        rows = {
            slot: [self._drawn(name, *each) for each in zip(known[name], annotations, rngs, strict=True)]
            for slot, name in enumerate(slots)
        }
        groups = tuple(self._group(slots, rows, members) for members in _by_length(rows))
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

    def _group(self, slots: list[str], rows: dict, members: list[int]) -> RowGroup:
        images = len(rows[members[0]])
        present = [row for member in members for row in rows[member] if row]
        pad = self.codec.tokenizer.vocabulary.pad
        input_ids = torch.full((images, len(members), max(row.length for row in present)), pad)
        prompt_ids = torch.full((images, len(members), max(len(row.prompt) for row in present)), pad)
        labels = torch.full_like(input_ids, IGNORED)
        for column, member in enumerate(members):
            for image, row in enumerate(rows[member]):
                if row is None:
                    continue
                ids, start = torch.tensor(row.start + row.answer), len(row.start)
                input_ids[image, column, : row.length] = ids[:-1]
                labels[image, column, start - 1 : row.length] = ids[start:]
                prompt_ids[image, column, : len(row.prompt)] = torch.tensor(row.prompt)
        tasks = tuple(slots[member] for member in members)
        return RowGroup(tasks, input_ids, labels, prompt_ids if self.prompt_side == "encoder" else None)


def _by_length(rows: dict) -> list[list[int]]:
    """Slots in groups of similar length: a group ends where the next slot is over half as long again as its first."""
    lengths = {slot: max((row.length + 1 for row in column if row), default=0) for slot, column in rows.items()}
    groups: list[list[int]] = []
    for slot in sorted((slot for slot, length in lengths.items() if length), key=lengths.get):
        if groups and lengths[slot] <= 1.5 * lengths[groups[-1][0]]:
            groups[-1].append(slot)
        else:
            groups.append([slot])
    return groups
