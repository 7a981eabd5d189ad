"""What lies under every image token of a scene, beside the rows of its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from florence_lite.data.annotation import Annotation
from florence_lite.geometry import quantize, rasterize
from florence_lite.train.collate import Batch, TaskCollator

ASKED = 16  # object cells of an image that are asked for their boxes; an eighth of all cells are object cells
TEXT_CLASS = "<text>"  # pseudo-class of cells that show a line of text


@dataclass(frozen=True)
class SceneBatch(Batch):
    """A batch that tells what lies under each of the N image tokens of the grid.

    cell_classes: int64 [B, N], class of the object, 0 for background.
    cell_boxes: int64 [B, N, 4], bins of that object's box; 0 where there is none.
    asked: bool [B, N], object cells that are asked for their boxes.
    """

    _: KW_ONLY
    cell_classes: Tensor
    cell_boxes: Tensor
    asked: Tensor

    @property
    def counts(self) -> dict[str, int]:
        """The tokens, and the cells of objects, of the background, and those that are asked for their boxes."""
        objects = int((self.cell_classes > 0).sum())
        cells = {"object": objects, "background": self.cell_classes.numel() - objects, "box": int(self.asked.sum())}
        return super().counts | cells

    def to(self, device: torch.device) -> SceneBatch:
        cells = {name: getattr(self, name).to(device) for name in ("cell_classes", "cell_boxes", "asked")}
        return SceneBatch(**vars(super().to(device)), **cells)


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
        cells = {"cell_classes": classes, "cell_boxes": boxes, "asked": asked}
        return SceneBatch(**vars(batch), **{name: torch.from_numpy(np.stack(each)) for name, each in cells.items()})

    def _cells(self, annotation: Annotation) -> tuple[np.ndarray, np.ndarray]:
        """Class [N] and box bins [N, 4] of the grid cells whose centre lies in an object or text line."""
        width, height = grid_wh = self.tasks.grid_wh
        scale = np.array([width / annotation.size_wh[0], height / annotation.size_wh[1]])
        classes = np.zeros((height, width), np.int64)
        boxes = np.zeros((height, width, 4), np.int64)
        shapes = [(item.label, item.polygons, item.box) for item in annotation.objects]
        for line in annotation.lines:
            corners = np.reshape(line.quad, (4, 2))
            shapes.append((TEXT_CLASS, (corners,), (*corners.min(axis=0), *corners.max(axis=0))))
        for label, rings, box in shapes:
            if label not in self.classes:
                raise ValueError(f"class {label!r} is none of the {len(self.classes)} classes of the image cells")
            inside = rasterize([np.asarray(ring) * scale for ring in rings], grid_wh)
            classes[inside] = 1 + self.classes.index(label)
            boxes[inside] = quantize(np.reshape(box, (2, 2)), annotation.size_wh, self.tasks.bins).reshape(4)
        return classes.reshape(-1), boxes.reshape(-1, 4)


def _some(cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At most `ASKED` of the cells [N] that are true, drawn by chance, bool [N]."""
    chosen = np.zeros_like(cells)
    chosen[rng.permutation(np.flatnonzero(cells))[:ASKED]] = True
    return chosen
