"""Annotated images to tensors: pixels, and the token rows of the tasks asked about them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from florence_lite.answers import Answer
from florence_lite.cards import task as task_card
from florence_lite.data.annotation import Annotation
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.rules import Pair, draw, pairs, thinned
from florence_lite.tokens.codec import Codec

IGNORED = -100  # label of positions that carry no loss: prompt, padding


@dataclass(frozen=True)
class RowGroup:
    """Rows of similar length; the rows of an image stand together.

    tasks: marker of each of the R rows of an image.
    input_ids, labels: int64 [B, R, T] of the decoder; `labels[..., t]` is the token that follows `input_ids[..., t]`,
        or `IGNORED`.
    prompt_ids: int64 [B, R, P], padded on the right, for a network whose prompt goes to the encoder; None where it
        stands in `input_ids`.
    """

    tasks: tuple[str, ...]
    input_ids: Tensor
    labels: Tensor
    prompt_ids: Tensor | None = None

    def to(self, device: torch.device) -> RowGroup:
        prompts = None if self.prompt_ids is None else self.prompt_ids.to(device)
        return RowGroup(self.tasks, self.input_ids.to(device), self.labels.to(device), prompts)


@dataclass(frozen=True)
class Batch:
    """Images and the token rows about them.

    pixel_values: float32 [B, 3, H, W], or None where `image_features`, float [B, N, D], say what a tower saw in them.
    """

    pixel_values: Tensor | None
    groups: tuple[RowGroup, ...]
    image_features: Tensor | None = None

    @property
    def tokens(self) -> int:
        """How many tokens carry loss."""
        return sum(int((group.labels != IGNORED).sum()) for group in self.groups)

    def to(self, device: torch.device) -> Batch:
        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        groups = tuple(group.to(device) for group in self.groups)
        return Batch(moved(self.pixel_values), groups, moved(self.image_features))


class Row(NamedTuple):
    """Ids of one question.

    prompt: `<s> prompt </s>`. start: what the decoder is given before the answer, the opening `<s>` included. answer:
    with the end token; one that was shortened has none, for the network must not learn to stop there.
    """

    prompt: list[int]
    start: list[int]
    answer: list[int]
    shortened: bool = False

    @property
    def length(self) -> int:
        """What the decoder reads: all but the last token."""
        return len(self.start) + len(self.answer) - 1


@dataclass(frozen=True)
class TaskCollator:
    """Turns (image, annotation) pairs into a `Batch`.

    With a decoder-side prompt the decoder gets `<s> prompt </s> <s> answer </s>`; with an encoder-side one the encoder
    gets `<s> prompt </s>` and the decoder `</s> <s> answer </s>`. Loss is on the answer and its end.

    rates: rows per image of each task; 4.0 draws four targets, 0.25 draws one in a quarter of the batches. All images
        of a batch get the same tasks, so that rows line up.
    max_length: tokens that the network has positions for. shorten: leave out the last objects of answers that are
        longer.
    """

    codec: Codec
    preprocessor: Preprocessor
    rates: Mapping[str, float]
    grid_wh: tuple[int, int]
    bins: int = 1000
    max_length: int = 512
    prompt_side: str = "decoder"
    shorten: bool = False

    def __call__(
        self, pairs: Sequence[tuple[Image.Image | Tensor, Annotation]], rng: np.random.Generator, first: int = 0
    ) -> Batch:
        """pairs: images, or image features [N, D] that a tower saw in them, with their annotations.

        first: number of the first pair in the batch that these pairs are a part of: with a generator in the same state
        the parts of a batch get the rows that the whole would get.
        """
        images, annotations = zip(*pairs, strict=True)
        slots, seed = self.draw_tasks(rng), int(rng.integers(2**63))
        rngs = [np.random.default_rng([seed, first + place]) for place in range(len(pairs))]
        rows = {
            slot: [self.row(name, *each) for each in zip(annotations, rngs, strict=True)]
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
        drawn = draw(pairs(task, annotation), rng)
        return None if drawn is None else self.written(task, *drawn, annotation.size_wh)

    def all_rows(self, task: str, annotation: Annotation) -> Iterator[Row]:
        """Every row that `row` may draw. Raises as `row` does, when it comes to that row."""
        for pair in pairs(task, annotation):
            for target in pair.targets:
                yield self.written(task, pair, target, annotation.size_wh)

    def written(self, task: str, pair: Pair, target: Answer, size_wh: tuple[int, int]) -> Row:
        """The ids of a prompt and of an answer to it. size_wh: of the image, in pixels. Raises as `row` does."""
        card, target = task_card(task), thinned(target, size_wh)
        prompt = card.prompt(**pair.inputs, size_wh=size_wh, bins=self.bins)
        prompt_ids = self.codec.tokenizer.encode_prompt(prompt)
        vocabulary = self.codec.tokenizer.vocabulary
        start = [*(prompt_ids if self.prompt_side == "decoder" else [vocabulary.eos]), vocabulary.bos]

        def written(count: int | None) -> list[int]:
            answer = replace(target, instances=target.instances[:count])
            return self.codec.serialize(answer, card.grammar, size_wh)

        answer_ids, room = written(None), self.max_length - len(start) - 1
        image_tokens = 1 + self.grid_wh[0] * self.grid_wh[1]
        if self.prompt_side == "encoder" and image_tokens + len(prompt_ids) > self.max_length:
            raise ValueError(
                f"a prompt of task {task} has {len(prompt_ids)} tokens; behind {image_tokens} image tokens the network "
                f"takes {self.max_length - image_tokens}: leave such images out"
            )
        if len(answer_ids) <= room:
            return Row(prompt_ids, start, [*answer_ids, vocabulary.eos])
        kept = bisect_right(range(len(target.instances)), room, key=lambda n: len(written(n + 1)))
        if not self.shorten or not kept:
            raise ValueError(
                f"a row of task {task} has {len(start) + len(answer_ids) + 1} tokens; the network takes "
                f"{self.max_length}: leave such images out, let the data set's `shorten` leave out their last objects, "
                "or train a network with more positions"
            )
        return Row(prompt_ids, start, written(kept), shortened=True)

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
