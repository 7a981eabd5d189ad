"""Asking a checkpoint everything that a data set can check, and the metrics of its answers.

report = evaluate(florence, read_dataset("photos"), ["<OD>", "<CAPTION>"])
report.metrics["<OD>"]["ap50"], report.truncated["<OD>"]
print(report)
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from PIL import Image

from florence_lite.cards import task as task_card
from florence_lite.data.samples import Dataset, Problem, Sample
from florence_lite.evaluate.margins import GROUPS, margins
from florence_lite.evaluate.metrics import Case, Metric, metrics_of
from florence_lite.evaluate.negatives import DRAWN, PHRASES, Negatives, why_none
from florence_lite.florence import Florence
from florence_lite.inference import IMAGES_AT_ONCE, EncodedImage, Prompt
from florence_lite.inference.chunks import chunks
from florence_lite.inference.tiling import as_tiling
from florence_lite.progress import progress_bar
from florence_lite.results import Result
from florence_lite.rules import pairs

if TYPE_CHECKING:
    from rich.table import Table

WIDEST = 1000  # columns of the printed report: its lines are not broken, a terminal or a reader does that
SHOWN = 5  # problems that the printed report names


@dataclass(frozen=True)
class Report:
    """Metrics of a checkpoint on a data set. The mappings have the tasks as keys, in the order they were asked for.

    metrics: task → name of the metric → value; None where there was nothing to measure.
    answers: task → number of prompts that were answered. parse_errors: task → faults in these answers (items dropped or
        repaired while reading). truncated: task → answers cut short by their most tokens.
    images: number of images that were answered about.
    notes: what a reader of the metrics has to know, each naming its task.
    problems: images and prompts that were left out.
    margins: task → name of the metric → half the width of its 95 % interval, where it was asked for and can be told.
    """

    metrics: Mapping[str, Mapping[str, float | None]]
    answers: Mapping[str, int]
    parse_errors: Mapping[str, int]
    truncated: Mapping[str, int]
    images: int
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    margins: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def named_metrics(self) -> dict[str, float | None]:
        """All metrics by one name each, such as "<OD>/ap50"."""
        return {f"{task}/{name}": value for task, each in self.metrics.items() for name, value in each.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the names of the fields."""
        return asdict(self)

    def table(self) -> Table:
        """A `rich` table: a row for each metric, with the answers it was measured on and their faults."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD)
        for name in ("task", "metric"):
            table.add_column(name, no_wrap=True)
        for name in ("value", "answers", "parse_errors", "truncated"):
            table.add_column(name, justify="right", no_wrap=True)
        for task, metrics in self.metrics.items():
            counts = [str(number[task]) for number in (self.answers, self.parse_errors, self.truncated)]
            for name, value in metrics.items():
                margin = self.margins.get(task, {}).get(name)
                shown = "–" if value is None else f"{value:.4f}"
                table.add_row(Text(task), name, shown if margin is None else f"{shown} ± {margin:.4f}", *counts)
        return table

    def __str__(self) -> str:
        from rich.console import Console

        shown = io.StringIO()
        Console(file=shown, width=WIDEST, color_system=None).print(self.table())
        lines = [line.rstrip() for line in shown.getvalue().strip("\n").splitlines()]
        lines += [f"images: {self.images}", *(f"note: {note}" for note in self.notes)]
        lines += [f"left out: {kind}: {count}" for kind, count in Counter(p.kind for p in self.problems).items()]
        lines += [f"  {problem}" for problem in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"  … and {len(self.problems) - SHOWN} more")
        return "\n".join(lines)


def evaluate(
    florence: Florence,
    samples: Sequence[Sample],
    tasks: Sequence[str],
    count: int | None = None,
    with_margins: bool = False,
    tile: tuple[int, int] | None = None,
) -> Report:
    """Ask every prompt of `tasks` that the samples can check; measure the answers by the metrics of the tasks' cards.

    samples: annotated images, such as a `Dataset`; only the first `count` of them if it is given.
    tasks: markers. Each image is encoded once for all of them, or its tiles for a few prompts of each; decoding is the
        cards'.
    with_margins: also tell how far the figures may be off, which measures the answers twenty times more and takes more
        than a hundred images; with fewer a note says how many.
    tile: (size, overlap) in pixels of the tiles in which images are asked, as in `Florence.run`; None: as a whole.

    Where no phrase of a data set is absent, `<OPEN_VOCABULARY_DETECTION>` is also asked for labels of other images that
    an image does not show, if all of its objects are known: the same in every call, and told in `Report.notes`.

    An image that cannot be read or has another size than its annotation says, and a prompt that the checkpoint cannot
    take, is left out and reported in `Report.problems`.

    Raises ValueError for no samples, no tasks, a count below 1, a task without a rule, without metrics or with unknown
    ones, and tiles that are wrong or of a task that cannot be asked in tiles; ModuleNotFoundError, with the remedy,
    where a metric's package is missing.
    """
    if isinstance(tasks, str) or not tasks:
        raise ValueError(f'tasks is {tasks!r}; it must be a list of task markers, such as ["<OD>"]')
    if count is not None and count < 1:
        raise ValueError(f"count is {count}; at least one image is needed")
    number = len(samples) if count is None else min(count, len(samples))
    if not number:
        raise ValueError("there are no samples to measure on")
    measures = {name: metrics_of(task_card(name)) for name in dict.fromkeys(tasks)}
    if tile is not None:
        as_tiling(tile, [task_card(name) for name in measures])

    negatives = Negatives.where_lacking(PHRASES, samples, number) if PHRASES in measures else None
    cases: dict[str, list[list[Case]]] = {name: [] for name in measures}  # those of a few images together
    problems: list[Problem] = []
    images = 0
    with progress_bar(number > IMAGES_AT_ONCE) as progress:
        bar = progress.add_task("images", total=number)
        for places in chunks(range(number), IMAGES_AT_ONCE):
            batch = [samples[place] for place in places]
            readable, pictures = read_samples(batch, problems)
            images += len(readable)
            # Tiles are encoded when they are asked.
            encoded = pictures if tile or not pictures else florence.encode(pictures, keep_image=False)
            for name in measures:
                known = readable
                if negatives and name == PHRASES:
                    known = [replace(sample, annotation=negatives.beside(sample)) for sample in readable]
                cases[name].append(_answered(florence, name, known, encoded, problems, tile))
            progress.advance(bar, len(batch))
    of_tasks = {name: list(chain.from_iterable(parts)) for name, parts in cases.items()}
    report = _report(measures, of_tasks, images, problems)
    if with_margins:
        found = {name: margins(partial(_metrics, measures[name]), parts) for name, parts in cases.items()}
        few = () if all(found.values()) else (f"intervals need at least {GROUPS * IMAGES_AT_ONCE} images",)
        report = replace(report, margins=found, notes=(*report.notes, *few))
    if negatives:  # which only a Dataset has
        report = replace(report, notes=(*report.notes, _note(of_tasks[PHRASES], cast(Dataset, samples))))
    return report


def read_samples(batch: Sequence[Sample], problems: list[Problem]) -> tuple[list[Sample], list[Image.Image]]:
    """The samples whose images can be read, with these."""
    readable, pictures = [], []
    for sample in batch:
        try:
            pictures.append(sample.load())
            readable.append(sample)
        except (ValueError, OSError) as error:
            problems.append(problem_of(sample, "image left out", error))
    return readable, pictures


def _answered(
    florence: Florence,
    task: str,
    samples: Sequence[Sample],
    images: Sequence[EncodedImage | Image.Image],
    problems: list[Problem],
    tile: tuple[int, int] | None,
) -> list[Case]:
    """The cases of one task on a batch of images. A few prompts go at a time, for `run` to show no bar of its own."""
    asked = []
    for sample, image in zip(samples, images, strict=True):
        for pair in pairs(task, sample.annotation):
            if pair.fault:
                problems.append(problem_of(sample, f"prompt of {task} left out", pair.fault))
            elif pair.asked:
                asked.append((sample, image, pair))
    cases = []
    for part in chunks(asked, IMAGES_AT_ONCE):
        prompts = [Prompt(task, **pair.inputs) for _, _, pair in part]
        answers = _run(florence, [image for _, image, _ in part], prompts, tile)
        for (sample, _, pair), answer in zip(part, answers, strict=True):
            if isinstance(answer, Result):
                cases.append(Case(pair, replace(answer, token_ids=(), token_logprobs=None)))
            else:
                problems.append(problem_of(sample, f"prompt of {task} left out", answer))
    return cases


def _run(
    florence: Florence, images: list[EncodedImage | Image.Image], prompts: list[Prompt], tile: tuple[int, int] | None
) -> Sequence[Result | ValueError]:
    """Answers in batches; where a prompt is refused, one by one, to lose no other."""
    try:
        if tile is None:
            return florence.run(images, prompts, keep_image=False)
        answers: list[Result] = []
        for _, pairs_of in groupby(zip(images, prompts, strict=True), lambda pair: id(pair[0])):
            (image, *_), few = zip(*pairs_of, strict=True)  # in one call, for its tiles are encoded in each
            answers += florence.run(image, list(few), keep_image=False, tile=tile)
        return answers
    except ValueError as error:
        if len(prompts) == 1:
            return [error]
    return [_run(florence, [image], [prompt], tile)[0] for image, prompt in zip(images, prompts, strict=True)]


def problem_of(sample: Sample, kind: str, error: Exception | str) -> Problem:
    file = str(sample.image) if isinstance(sample.image, Path) else "image in memory"
    return Problem(file, sample.name, str(error), kind)


def _note(cases: Sequence[Case], dataset: Dataset) -> str:
    """Where the absent phrases of a data set come from that names none itself, or why there are none."""
    if drawn := sum(not case.truth.instances for case in cases):
        return (
            f"{PHRASES}: the data name nothing that is absent; {drawn} absent phrases are labels of other images, "
            f"up to {DRAWN} for an image, if all of its objects are known"
        )
    why = why_none(PHRASES, dataset) or "none was drawn"
    return f"{PHRASES}: no phrase is absent, rejection is not measured: {why}"


def _metrics(measures: Mapping[str, Metric], cases: Sequence[Case]) -> dict[str, float | None]:
    return {name: value for each in measures.values() for name, value in each.measure(cases).metrics.items()}


def _report(measures: Mapping, cases: Mapping[str, list[Case]], images: int, problems: list[Problem]) -> Report:
    metrics: dict[str, dict[str, float | None]] = {}
    notes: list[str] = []
    for task, by_name in measures.items():
        metrics[task] = {}
        if not cases[task]:
            notes.append(f"{task}: the data set holds nothing that this task could be measured by")
        for each in by_name.values():
            measured = each.measure(cases[task])
            metrics[task] |= measured.metrics
            notes += [f"{task}: {note}" for note in measured.notes]
    return Report(
        metrics,
        answers={task: len(items) for task, items in cases.items()},
        parse_errors={task: sum(case.result.parse_errors for case in items) for task, items in cases.items()},
        truncated={task: sum(case.result.truncated for case in items) for task, items in cases.items()},
        images=images,
        notes=tuple(dict.fromkeys(notes)),
        problems=tuple(problems),
    )
