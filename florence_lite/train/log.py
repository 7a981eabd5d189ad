"""What a run tells about itself: means of its losses, written to a file and to the trackers that are installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor


class TrainingLog:
    """Writes metrics into a file of JSON lines and to the trackers; only the main process does."""

    def __init__(self, path: Path, accelerator: Accelerator):
        self.path, self.accelerator = path, accelerator

    def write(self, step: int, kind: str, metrics: Mapping[str, float | str | None], **more: float) -> None:
        """A line {"step": …, kind: metrics, …}; the trackers get what is a number."""
        if not self.accelerator.is_main_process:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **more, kind: metrics}) + "\n")
        known = {f"{kind}/{name}": value for name, value in metrics.items() if isinstance(value, int | float)}
        self.accelerator.log(known, step=step)


class RunningMeans:
    """Means of metrics since they were last taken."""

    def __init__(self):
        self.sums: dict[str, tuple[float, int]] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """metrics: name → values [N], each of which counts once."""
        for name, values in metrics.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + values.sum().item(), count + values.numel())

    def take(self, accelerator: Accelerator | None = None) -> dict[str, float]:
        """The means over all processes, from which counting begins anew."""
        every = [self.sums] if accelerator is None else gather_object([self.sums])
        sums = {name: [each[name] for each in every if name in each] for each in every for name in each}
        self.sums = {}
        means = {name: sum(t for t, _ in pairs) / max(1, sum(n for _, n in pairs)) for name, pairs in sums.items()}
        return {name: round(mean, 4) for name, mean in means.items()}
