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
from florence_lite.train.lanes import RowGroup, packed_rows, rows_by_length
from florence_lite.train.rows import Row, RowWriter


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
            [self._drawn(name, of_image[name], annotation, each_rng) for name in slots]
            for annotation, of_image, each_rng in zip(annotations, known, rngs, strict=True)
        ]
        pad = self.codec.tokenizer.vocabulary.pad
        groups = (packed_rows if self.prompt_side == "decoder" else rows_by_length)(slots, rows, pad)
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
