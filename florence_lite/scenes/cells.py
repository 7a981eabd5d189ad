"""What lies under every image token of a scene, beside the rows of its tasks."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from florence_lite.data.annotation import Annotation, TextLine
from florence_lite.geometry import quantize, rasterize
from florence_lite.scenes.lettering import character_ends
from florence_lite.train.collate import Batch, TaskCollator

ASKED = 16  # object cells of an image that are asked for their boxes; an eighth of all cells are object cells
TEXT_CLASS = "<text>"  # pseudo-class of cells that show a line of text, but none of the characters that are classes
CHARACTERS = tuple(string.ascii_letters + string.digits)
"""Pseudo-classes of cells that show a character: who learns to tell them learns to read."""


@dataclass(frozen=True)
class SceneBatch(Batch):
    """A batch that tells what lies under each of the N image tokens of the grid.

    pixel_values: uint8, a quarter of the bytes; `ScratchTrainer` normalises them on its device.
    cell_classes: int64 [B, N], class of the object, 0 for background.
    cell_boxes: int64 [B, N, 4], bins of that object's box; 0 where there is none.
    kinds: "object", "background" and "box", the object cells that are asked for their boxes → int64 [M], where in the
        B·N cells they stand.
    """

    _: KW_ONLY
    cell_classes: Tensor
    cell_boxes: Tensor
    kinds: Mapping[str, Tensor]

    @property
    def counts(self) -> dict[str, int]:
        """The tokens, and the cells of objects, of the background, and those that are asked for their boxes."""
        return super().counts | {kind: len(places) for kind, places in self.kinds.items()}

    def moved(self, move: Callable[[Tensor], Tensor]) -> Self:
        """With all tensors elsewhere."""
        kinds = {kind: move(places) for kind, places in self.kinds.items()}
        cells = {name: move(getattr(self, name)) for name in ("cell_classes", "cell_boxes")}
        return replace(super().moved(move), kinds=kinds, **cells)


@dataclass(frozen=True)
class SceneCollator:
    """Turns (image, annotation) examples into a `SceneBatch`.

    tasks: makes the rows. classes: names of the cells' classes, counted from 1.
    """

    tasks: TaskCollator
    classes: Sequence[str]

    def __call__(
        self, examples: Sequence[tuple[Image.Image, Annotation]], rng: np.random.Generator, first: int = 0
    ) -> SceneBatch:
        """As `TaskCollator`. Raises ValueError also for an object of another class."""
        batch, seed = self.tasks(examples, rng, first), int(rng.integers(2**63))
        classes, boxes = zip(*(self._cells(annotation) for _, annotation in examples), strict=True)
        # Drawn for each image by itself, so that the parts of a batch ask what the whole would.
        asked = [_some(each > 0, np.random.default_rng([seed, first + place])) for place, each in enumerate(classes)]
        classes, boxes, asked = (torch.from_numpy(np.stack(each)) for each in (classes, boxes, asked))
        kinds = {"object": classes > 0, "background": classes == 0, "box": asked}
        places = {kind: chosen.flatten().nonzero().squeeze(1) for kind, chosen in kinds.items()}
        return SceneBatch(**vars(batch), cell_classes=classes, cell_boxes=boxes, kinds=places)

    def _cells(self, annotation: Annotation) -> tuple[np.ndarray, np.ndarray]:
        """Class [N] and box bins [N, 4] of the grid cells whose centre lies in an object or text line."""
        width, height = grid_wh = self.tasks.grid_wh
        scale = np.array([width / annotation.size_wh[0], height / annotation.size_wh[1]])
        classes = np.zeros((height, width), np.int64)
        boxes = np.zeros((height, width, 4), np.int64)
        shapes: list[tuple[Any, ...]] = [(item.label, item.polygons, item.box) for item in annotation.objects]
        for line in annotation.lines:
            corners = np.reshape(line.quad, (4, 2))
            shapes.append((line, (corners,), (*corners.min(axis=0), *corners.max(axis=0))))
        for shown, rings, box in shapes:
            inside = rasterize([np.asarray(ring) * scale for ring in rings], grid_wh)
            if isinstance(shown, TextLine):
                classes[inside] = self._characters(shown, (np.argwhere(inside)[:, ::-1] + 0.5) / scale)
            else:
                classes[inside] = self._number(shown)
            boxes[inside] = quantize(np.reshape(box, (2, 2)), annotation.size_wh, self.tasks.bins).reshape(4)
        return classes.reshape(-1), boxes.reshape(-1, 4)

    def _number(self, label: str) -> int:
        if label not in self.classes:
            raise ValueError(f"class {label!r} is none of the {len(self.classes)} classes of the image cells")
        return 1 + self.classes.index(label)

    def _characters(self, line: TextLine, points: np.ndarray) -> list[int]:
        """Classes of the characters of a line at points, float [n, 2] pixels within its quad."""
        start, end = np.reshape(line.quad, (4, 2))[:2]
        share = (points - start) @ (end - start) / max((end - start) @ (end - start), 1e-9)
        places = np.searchsorted(character_ends(line.text), share).clip(max=len(line.text) - 1)
        return [self._number(each if each in self.classes else TEXT_CLASS) for each in (line.text[i] for i in places)]


def _some(cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At most `ASKED` of the cells [N] that are true, drawn by chance, bool [N]."""
    chosen = np.zeros_like(cells)
    chosen[rng.permutation(np.flatnonzero(cells))[:ASKED]] = True
    return chosen
