"""Measuring the checkpoints of a fine-tuning run.

This is the one place where training looks up to what is built on top of checkpoints; it does so when it is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from florence_lite.cards import task as task_card
from florence_lite.data.samples import read_dataset
from florence_lite.train.config import ValidationConfig


class Validation:
    """Measures checkpoints of a run on images of their own. Raises what `read_dataset` raises, and ValueError for a
    task or a figure that cannot be measured."""

    def __init__(self, config: ValidationConfig):
        from florence_lite.evaluate.metrics import metrics_of

        self.config = config
        self.dataset = read_dataset(config.path, config.format, config.split, config.columns)
        metrics = [(task, each) for task in config.tasks for each in metrics_of(task_card(task)).values()]
        names = [f"{task}/{name}" for task, each in metrics for name in each.measure(()).figures]
        self.decisive = config.figure or names[0]
        if self.decisive not in names:
            raise ValueError(f"validation: figure = {config.figure!r} is not measured; choose from {names}")

    def figures(self, folder: Path, device: torch.device) -> dict[str, float | None]:
        """Figures of the checkpoint in `folder`, as "<OD>/ap50"; `device` is where it answers."""
        from florence_lite.evaluate.report import evaluate
        from florence_lite.florence import Florence

        florence = Florence.from_pretrained(folder, device=device)
        report = evaluate(florence, self.dataset, self.config.tasks, self.config.count)
        return {f"{task}/{name}": value for task, each in report.figures.items() for name, value in each.items()}

    def merit(self, figures: Mapping[str, float | None]) -> float | None:
        """The figure that decides which checkpoint is the best, greater for a better one."""
        from florence_lite.evaluate.metrics import LOWER_IS_BETTER

        value = figures[self.decisive]
        return -value if value is not None and self.decisive.split("/")[-1] in LOWER_IS_BETTER else value
