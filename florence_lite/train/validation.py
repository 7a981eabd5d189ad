"""Measuring the checkpoints of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from florence_lite.cards import task as task_card
from florence_lite.data import read_dataset
from florence_lite.data.samples import Dataset, Sample, kinds_listed, summary_lines
from florence_lite.evaluate.metrics import LOWER_IS_BETTER, metrics_of
from florence_lite.evaluate.report import evaluate
from florence_lite.florence import Florence
from florence_lite.rules import pairs
from florence_lite.train.config import ValidationConfig
from florence_lite.train.log import tell


class Validation:
    """Measures checkpoints of a run on images of their own.

    samples, tasks, count: as in `florence_lite.evaluate.report.evaluate`.
    metric: what decides which checkpoint is the best, such as "<OD>/ap50"; the first one if None.

    Raises ValueError for a task or a metric that cannot be measured, ModuleNotFoundError, with the remedy, where a
    metric's package is missing.
    """

    def __init__(
        self, samples: Sequence[Sample], tasks: Sequence[str], count: int | None = None, metric: str | None = None
    ):
        self.samples, self.tasks, self.count = samples, tasks, count
        self._not_measured: Counter[str] = Counter()  # that the user was told of
        self.decisive = decisive_metric(tasks, metric)

    @classmethod
    def on(cls, config: ValidationConfig) -> Validation:
        """On the data set of a configuration. Raises also what `read_dataset` raises, and ValueError for data on which
        the deciding metric has nothing to measure."""
        dataset = read_dataset(config.path, config.format, config.split, config.columns, config.outside)
        validation = cls(dataset, config.tasks, config.count, config.metric)
        task = validation.decisive.rsplit("/", 1)[0]
        measured = dataset.annotations[: config.count]
        if not any(pair.asked for annotation in measured for pair in pairs(task, annotation)):
            raise ValueError(
                f"[validation] path = {config.path!r} holds nothing that {validation.decisive} could be measured on: "
                "no checkpoint could be the best; name another `metric`, other `tasks` or other data"
            )
        return validation

    def told(self) -> list[str]:
        """What is measured on, and what reading left out, as lines for people."""
        if not isinstance(self.samples, Dataset):
            return []
        summary = self.samples.summary()
        left_out = [f"left out or repaired: {kinds_listed(summary['problems'])}"] if summary["problems"] else []
        return [f"validation: {line}" for line in (*summary_lines(summary), *left_out)]

    def metrics(self, folder: Path, device: torch.device) -> dict[str, float | None]:
        """Figures of the checkpoint in `folder`, as "<OD>/ap50"; `device` is where it answers."""
        florence = Florence.from_pretrained(folder, device=device)
        report = evaluate(florence, self.samples, self.tasks, self.count)
        left_out = Counter(problem.kind for problem in report.problems)
        if left_out and left_out != self._not_measured:
            tell(f"validation: not measured: {kinds_listed(left_out)}, such as {report.problems[0].record}")
        self._not_measured = left_out
        return report.named_metrics()

    def merit(self, metrics: Mapping[str, float | None]) -> float | None:
        """The metric that decides which checkpoint is the best, greater for a better one."""
        value = metrics[self.decisive]
        return -value if value is not None and self.decisive.split("/")[-1] in LOWER_IS_BETTER else value


def decisive_metric(tasks: Sequence[str], metric: str | None) -> str:
    """The metric that decides which checkpoint is the best: `metric`, or the first of the tasks.

    Raises ValueError for one that is not measured, and for a task that cannot be.
    """
    measures = [(task, each) for task in tasks for each in metrics_of(task_card(task)).values()]
    names = [f"{task}/{name}" for task, each in measures for name in each.measure(()).metrics]
    if metric is not None and metric not in names:
        raise ValueError(f"[validation] metric = {metric!r} is not measured; choose from {names}")
    return metric or names[0]
