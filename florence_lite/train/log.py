"""What a run tells about itself: lines for people, and means of its losses for a file and the trackers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from florence_lite.checks import is_whole
from florence_lite.files import replace_text


def tell(line: str) -> None:
    """Print a line at once, so that a file which standard output goes to has it."""
    print(line, flush=True)


def others_aside() -> AbstractContextManager:
    """What others print on standard output, trackers and metrics, goes to standard error."""
    return redirect_stdout(sys.stderr)


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
        with others_aside():
            self.accelerator.log(known, step=step)

    def go_on_at(self, step: int) -> None:
        """Leave out lines that are damaged or of later steps, which are made again, and tell so."""
        if not self.accelerator.is_main_process:
            return
        lines = self.path.read_bytes().decode("utf-8", "replace").splitlines() if self.path.is_file() else []
        kept = [line for line in lines if (at := _step_of(line)) is not None and at <= step]
        if len(kept) < len(lines):
            tell(f"{self.path}: {len(lines) - len(kept)} lines behind step {step}, or damaged, are left out")
        elif step and not lines:
            tell(f"{self.path} is missing or empty: it begins at step {step}")
        replace_text(self.path, "".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> int | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = values.get("step") if isinstance(values, dict) else None
    return step if is_whole(step, 0) else None


class RunningMeans:
    """Means of metrics since they were last taken."""

    def __init__(self):
        self.sums: dict[str, tuple[Tensor | float, int]] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """metrics: name → values [N], each of which counts once. Sums stay where they are: no GPU is waited for."""
        for name, values in metrics.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + values.sum(dtype=torch.float64), count + values.numel())

    def take(self, accelerator: Accelerator | None = None) -> dict[str, float]:
        """The means over all processes, from which counting begins anew."""
        here = {name: (float(total), count) for name, (total, count) in self.sums.items()}
        every = [here] if accelerator is None else gather_object([here])
        sums = {name: [each[name] for each in every if name in each] for each in every for name in each}
        self.sums = {}
        means = {name: sum(t for t, _ in pairs) / max(1, sum(n for _, n in pairs)) for name, pairs in sums.items()}
        return {name: round(mean, 4) for name, mean in means.items()}
