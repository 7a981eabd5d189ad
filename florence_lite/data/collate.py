"""Annotated images to tensors: pixels, and the token rows of the tasks asked about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from florence_lite.cards import task as task_card
from florence_lite.data.annotation import Annotation
from florence_lite.data.targets import target
from florence_lite.geometry import quantize, rasterize
from florence_lite.preprocess import Preprocessor
from florence_lite.tokens.codec import Codec

IGNORED = -100  # label of positions that carry no loss: prompt, padding
TEXT_CLASS = "<text>"  # pseudo-class of image cells that show a text line


@dataclass(frozen=True)
class RowGroup:
    """Rows of similar length; the rows of an image stand together.

    tasks: marker of each of the R rows of an image.
    input_ids, labels: int64 [B, R, T]; `labels[..., t]` is the token that follows `input_ids[..., t]`, or `IGNORED`.
    """

    tasks: tuple[str, ...]
    input_ids: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Batch:
    """Images and the token rows about them.

    pixel_values: float32 [B, 3, H, W].
    cell_classes: int64 [B, N], class of the object under every image token of the grid, 0 for background.
    cell_boxes: int64 [B, N, 4], bins of that object's box (0 where there is none).
    """

    pixel_values: Tensor
    groups: tuple[RowGroup, ...]
    cell_classes: Tensor
    cell_boxes: Tensor

    def to(self, device: torch.device) -> Batch:
        groups = tuple(RowGroup(g.tasks, g.input_ids.to(device), g.labels.to(device)) for g in self.groups)
        rest = (t.to(device) for t in (self.cell_classes, self.cell_boxes))
        return Batch(self.pixel_values.to(device), groups, *rest)


@dataclass(frozen=True)
class TaskCollator:
    """Turns (image, annotation) pairs into a `Batch` for a decoder-side prompt: `<s> prompt </s> <s> answer </s>`.

    rates: rows per image of each task; 4.0 draws four targets, 0.25 draws one in a quarter of the batches. All images
        of a batch get the same tasks, so that rows line up.
    classes: names of the image cells' classes, counted from 1.
    """

    codec: Codec
    preprocessor: Preprocessor
    rates: Mapping[str, float]
    classes: Sequence[str]
    grid_wh: tuple[int, int]
    bins: int = 1000
    max_length: int = 512

    def __call__(self, pairs: Sequence[tuple[Image.Image, Annotation]], rng: np.random.Generator) -> Batch:
        slots = [
            name for name, rate in self.rates.items() for _ in range(int(rate) + int(rng.random() < rate - int(rate)))
        ]
        annotations = [annotation for _, annotation in pairs]
        rows = {slot: [self._row(name, a, rng) for a in annotations] for slot, name in enumerate(slots)}
        cells = [self._cells(a) for a in annotations]
        return Batch(
            self.preprocessor([image for image, _ in pairs]),
            tuple(self._group(slots, rows, members) for members in _by_length(rows)),
            torch.from_numpy(np.stack([classes for classes, _ in cells])),
            torch.from_numpy(np.stack([boxes for _, boxes in cells])),
        )

    def _row(self, name: str, annotation: Annotation, rng: np.random.Generator) -> tuple[list[int], list[int]] | None:
        """(prompt ids, answer ids) or None where the annotation does not tell."""
        drawn = target(name, annotation, rng)
        if drawn is None:
            return None
        card = task_card(name)
        prompt = card.prompt(**drawn.inputs(), size_wh=annotation.size_wh, bins=self.bins)
        prompt_ids = self.codec.tokenizer.encode_prompt(prompt)
        vocabulary = self.codec.tokenizer.vocabulary
        answer_ids = self.codec.serialize(drawn.answer, card.grammar, annotation.size_wh)
        length = len(prompt_ids) + len(answer_ids) + 2
        if length > self.max_length:
            raise ValueError(
                f"a row of task {name} has {length} tokens; the network takes {self.max_length}: leave such images "
                "out, or train a preset with more positions"
            )
        return prompt_ids + [vocabulary.bos], answer_ids + [vocabulary.eos]

    def _group(self, slots: list[str], rows: dict, members: list[int]) -> RowGroup:
        images = len(rows[members[0]])
        length = max(len(p) + len(a) - 1 for m in members for p, a in filter(None, rows[m]))
        input_ids = torch.full((images, len(members), length), self.codec.tokenizer.vocabulary.pad)
        labels = torch.full_like(input_ids, IGNORED)
        for column, member in enumerate(members):
            for image, row in enumerate(rows[member]):
                if row is None:
                    continue
                prompt, answer = row
                ids = torch.tensor(prompt + answer)
                input_ids[image, column, : len(ids) - 1] = ids[:-1]
                labels[image, column, len(prompt) - 1 : len(ids) - 1] = ids[len(prompt) :]
        return RowGroup(tuple(slots[m] for m in members), input_ids, labels)

    def _cells(self, annotation: Annotation) -> tuple[np.ndarray, np.ndarray]:
        """Class [N] and box bins [N, 4] of the grid cells whose centre lies in an object or text line."""
        width, height = self.grid_wh
        scale = np.array([width / annotation.size_wh[0], height / annotation.size_wh[1]])
        classes = np.zeros((height, width), np.int64)
        boxes = np.zeros((height, width, 4), np.int64)
        shapes = [(item.label, item.rings, item.box) for item in annotation.objects]
        for line in annotation.lines:
            corners = np.reshape(line.quad, (4, 2))
            shapes.append((TEXT_CLASS, (corners,), (*corners.min(axis=0), *corners.max(axis=0))))
        for label, rings, box in shapes:
            if label not in self.classes:
                raise ValueError(f"class {label!r} is none of the {len(self.classes)} classes of the image cells")
            inside = rasterize([np.asarray(ring) * scale for ring in rings], self.grid_wh)
            classes[inside] = 1 + self.classes.index(label)
            boxes[inside] = quantize(np.reshape(box, (2, 2)), annotation.size_wh, self.bins).reshape(4)
        return classes.reshape(-1), boxes.reshape(-1, 4)


def _by_length(rows: dict) -> list[list[int]]:
    """Slots in groups of similar length: a group ends where the next slot is over half as long again as its first."""
    lengths = {
        slot: max((len(p) + len(a) for p, a in filter(None, column)), default=0) for slot, column in rows.items()
    }
    groups: list[list[int]] = []
    for slot in sorted((slot for slot, length in lengths.items() if length), key=lengths.get):
        if groups and lengths[slot] <= 1.5 * lengths[groups[-1][0]]:
            groups[-1].append(slot)
        else:
            groups.append([slot])
    return groups
