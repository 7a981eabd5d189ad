"""How well maps of things and stuff fit the truth, through `torchmetrics`.

Panoptic quality: Kirillov et al. 2019, arXiv:1801.00868; pq = sq · rq per category (segmentation quality, the mean IoU
of the segments that match by IoU > 0.5; recognition quality, their F1), then means over the categories of the truth.
Pixels of which the truth says nothing count for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from florence_lite.evaluate.metrics.measurement import Measurement, needed
from florence_lite.results import Panoptic

PACKAGES = ("torchmetrics.detection", "torchmetrics.classification")


class PanopticMeter:
    """Takes pairs of maps, one image after the other; `measure` then gives the metrics.

    things, stuff: the labels that are measured. What an answer calls otherwise counts as nothing found.
    Raises ModuleNotFoundError with the remedy where the package is missing.
    """

    def __init__(self, things: Sequence[str], stuff: Sequence[str]):
        detection, classification = map(needed, PACKAGES)
        self.labels = [*things, *stuff]
        self.things = len(things)
        self.unknown = len(self.labels) + 1  # where the truth says nothing
        # What an answer leaves empty is a category of its own, 0: as unknown, it would not count as missed.
        self._quality = detection.PanopticQuality(
            things=set(range(1, self.things + 1)),
            stuffs={0, *range(self.things + 1, self.unknown)},
            return_sq_and_rq=True,
            return_per_class=True,
        )
        self._overlap = classification.MulticlassJaccardIndex(
            self.unknown + 1, average="none", ignore_index=self.unknown
        )
        self._seen: set[int] = set()

    def add(self, truth: Panoptic, answer: Panoptic) -> None:
        """truth, answer: of one image, of equal size."""
        import torch

        said, true = (torch.from_numpy(each.semantic_map(self.labels)) for each in (answer, truth))
        true[true == 0] = self.unknown
        self._seen |= set(true.unique().tolist()) - {self.unknown}
        said_ids, true_ids = (torch.from_numpy(each.id_map) for each in (answer, truth))
        if (true != self.unknown).any():
            self._quality.update(torch.stack([said, said_ids], -1)[None], torch.stack([true, true_ids], -1)[None])
            self._overlap.update(said, true)

    def measure(self) -> Measurement:
        """pq, sq, rq, the means of all categories that occur in the truth; pq_things, pq_stuff; semantic_miou: the mean
        over the categories of the IoU of all their pixels in all images together. None where there is nothing."""
        names = ("pq", "sq", "rq", "pq_things", "pq_stuff", "semantic_miou")
        if not self._seen:
            return Measurement(dict.fromkeys(names))
        order = [*range(1, self.things + 1), 0, *range(self.things + 1, self.unknown)]  # things, then what is none
        rows = dict(zip(order, self._quality.compute().reshape(-1, 3).tolist(), strict=True))
        overlap = self._overlap.compute().tolist()
        seen = sorted(self._seen)
        quality = np.mean([rows[number] for number in seen], axis=0).tolist()
        things = [rows[number][0] for number in seen if number <= self.things]
        stuff = [rows[number][0] for number in seen if number > self.things]
        parts = [float(np.mean(part)) if part else None for part in (things, stuff)]
        miou = float(np.mean([overlap[number] for number in seen]))
        return Measurement(dict(zip(names, [*quality, *parts, miou], strict=True)))
