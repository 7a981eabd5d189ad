"""What a data set holds and whether a checkpoint can learn it: counts, problems, lengths of answers, a contact sheet.

report = check_dataset(read_dataset("photos"), RowWriter.of(config, tokenizer))
report.tasks["<OD>"], report.lengths["<OD>"].too_long, report.problems
contact_sheet(dataset).save("sheet.png")
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from florence_lite.answers import Answer, Instance
from florence_lite.cards import task as task_card
from florence_lite.data.samples import Dataset, Problem, Sample, summary_lines
from florence_lite.results import Result
from florence_lite.results.pictures import tiled
from florence_lite.rules import Pair, pairs, rule_of, tasks_with_rules
from florence_lite.train.rows import RowWriter

TILE = 480  # pixels of the longer side of an image on the contact sheet
COLUMNS = 4


@dataclass(frozen=True)
class Lengths:
    """Tokens of all answers that a task may be trained on; ends are counted.

    shortest, typical (median), longest: tokens of the answers. prompt: of the longest prompt.
    limit: the longest answer that is allowed, given the network's positions and the task's `max_new_tokens`.
    too_long: how many answers do not fit; longest_in: name of the sample of the longest.
    """

    shortest: int
    typical: int
    longest: int
    prompt: int
    limit: int
    too_long: int
    longest_in: str


@dataclass(frozen=True)
class DatasetCheck:
    """What `check_dataset` found.

    format, files, summary: as in `Dataset`.
    classes: category → (objects, images with it), the most frequent first.
    tasks: marker → number of images that it can be trained on; without the tasks that have none.
    lengths: marker → token lengths; empty without a writer.
    sizes: "smallest", "typical", "largest" → width and height of that image in pixels, by area.
    problems: what was left out or repaired, and images whose pixels cannot be read.
    """

    format: str
    files: tuple[str, ...]
    summary: dict[str, Any]
    classes: dict[str, tuple[int, int]]
    tasks: dict[str, int]
    lengths: dict[str, Lengths]
    sizes: dict[str, tuple[int, int]]
    problems: tuple[Problem, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the names of the fields."""
        return asdict(self)


def check_dataset(
    dataset: Dataset, writer: RowWriter | None = None, step: Callable[[], Any] = lambda: None
) -> DatasetCheck:
    """Read every image and every annotation of a data set.

    writer: for the network that is to be trained; without one no token lengths are measured.
    step: called after each image, for a progress bar.
    """
    problems = list(dataset.problems)
    tasks: Counter[str] = Counter()
    names = []
    for name in tasks_with_rules():
        try:
            rule_of(task_card(name))
            names.append(name)
        except ValueError as error:
            problems.append(Problem(dataset.format, "its card", str(error), f"task {name} left out"))
    lengths = {name: _Measured(name, writer) for name in names} if writer else {}
    for sample in dataset:
        try:
            sample.load()
        except (ValueError, OSError) as error:
            problems.append(Problem(dataset.format, sample.name, str(error), "image unreadable"))
        for name in names:
            try:
                found = pairs(name, sample.annotation)
            except ValueError as error:
                problems.append(Problem(dataset.format, sample.name, str(error), f"no target for {name}"))
                continue
            for pair in found:
                if pair.fault:
                    problems.append(Problem(dataset.format, sample.name, pair.fault, f"prompt of {name} left out"))
            targets = [(pair, target) for pair in found for target in pair.targets]
            tasks[name] += bool(targets)
            for pair, target in targets if writer else ():
                try:
                    lengths[name].add(sample, pair, target)
                except ValueError as error:
                    problems.append(Problem(dataset.format, sample.name, str(error), f"no target for {name}"))
        step()
    whole = replace(dataset, problems=tuple(problems))
    return DatasetCheck(
        dataset.format,
        dataset.files,
        whole.summary(),
        _classes(dataset),
        {name: tasks[name] for name in names if tasks[name]},
        {name: measured.lengths() for name, measured in lengths.items() if measured.answers},
        _sizes(dataset),
        whole.problems,
    )


class _Measured:
    """The rows of one task, measured one after the other."""

    def __init__(self, task: str, writer: RowWriter):
        self.task, self.writer, self.most = task, writer, task_card(task).max_new_tokens
        self.answers: list[int] = []
        self.names: list[str] = []
        self.prompt = self.too_long = 0
        self.limit = writer.positions

    def add(self, sample: Sample, pair: Pair, target: Answer) -> None:
        row = self.writer.write(self.task, pair, target, sample.annotation.size_wh)
        room = min(self.writer.positions - len(row.start), self.most - 1)  # the card counts the opening <s> as well
        self.limit = min(self.limit, room)
        self.too_long += len(row.answer) > room or not self.writer.fits(row)
        self.prompt = max(self.prompt, len(row.prompt))
        self.answers.append(len(row.answer))
        self.names.append(sample.name)

    def lengths(self) -> Lengths:
        longest = max(self.answers)
        name = self.names[self.answers.index(longest)]
        typical = round(median(self.answers))
        return Lengths(min(self.answers), typical, longest, self.prompt, self.limit, self.too_long, name)


def _classes(dataset: Dataset) -> dict[str, tuple[int, int]]:
    objects = Counter(item.label for a in dataset.annotations for item in a.objects if item.label)
    images = Counter(label for a in dataset.annotations for label in {item.label for item in a.objects})
    counts = {label: (objects[label], images[label]) for label in (*dataset.classes, *objects)}
    return dict(sorted(counts.items(), key=lambda entry: -entry[1][0]))


def _sizes(dataset: Dataset) -> dict[str, tuple[int, int]]:
    each = ((a.size_wh[0], a.size_wh[1]) for a in dataset.annotations)
    sizes = sorted(each, key=lambda size: size[0] * size[1])
    return {"smallest": sizes[0], "typical": sizes[len(sizes) // 2], "largest": sizes[-1]} if sizes else {}


# ---- for people ------------------------------------------------------------------------------------------------------


def report_lines(found: DatasetCheck, examples: int = 3) -> Iterator[str]:
    """What was found, as lines for people; of each kind of problem the first `examples`."""
    yield f"format {found.format}: {'; '.join(found.files)}"
    yield from summary_lines(found.summary)
    yield "sizes: " + ", ".join(f"{name} {width}×{height}" for name, (width, height) in found.sizes.items())
    if found.classes:
        yield ""
        width = max(map(len, ("class", *found.classes)))
        yield f"{'class':{width}}  {'objects':>8}  {'images':>7}"
        for label, (objects, images) in found.classes.items():
            if objects:
                yield f"{label:{width}}  {objects:8}  {images:7}"
        if missing := [label for label, (objects, _) in found.classes.items() if not objects]:
            yield f"without a usable object: {', '.join(missing)}"
    yield ""
    yield from _task_lines(found)
    yield ""
    if not found.problems:
        yield "no problems"
    for kind, count in found.summary["problems"].items():
        yield f"{kind}: {count}"
        alike = [problem for problem in found.problems if problem.kind == kind]
        yield from (f"  {problem.file}: {problem.record}: {problem.what}" for problem in alike[:examples])
        if count > examples:
            yield f"  … and {count - examples} more"


def _task_lines(found: DatasetCheck) -> Iterator[str]:
    if not found.tasks:
        yield "no task can be trained on this data"
        return
    width = max(map(len, ("task", *found.tasks)))
    head = f"{'task':{width}}  {'images':>6}"
    yield head + (f"  {'tokens: typical':>15}  {'longest':>7}  {'limit':>6}  {'too long':>8}" if found.lengths else "")
    for name, images in found.tasks.items():
        line = f"{name:{width}}  {images:6}"
        if name in found.lengths:
            each = found.lengths[name]
            line += f"  {each.typical:15}  {each.longest:7}  {each.limit:6}  {each.too_long:8}"
            line += f"  longest in {each.longest_in}" if each.too_long else ""
        yield line


def contact_sheet(dataset: Dataset, count: int = 12) -> Image.Image:
    """A picture of `count` images, evenly taken from the data set, with their annotations drawn on them.

    Objects are outlined; captions, phrases and questions stand below. Unreadable images are skipped.
    Raises ValueError where none can be.
    """
    numbers = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int))
    tiles = []
    for number in numbers.tolist():
        sample = dataset[number]
        try:
            tiles.append(_tile(sample, sample.load()))
        except (ValueError, OSError):
            continue
    if not tiles:
        raise ValueError(f"none of {len(numbers)} images can be read")
    return tiled(tiles, COLUMNS)


def _tile(sample: Sample, image: Image.Image) -> Image.Image:
    annotation = sample.annotation
    named = [(item.label or item.phrase, item) for item in annotation.objects]
    named += [(f"{item.label} (ignored)".strip(), item) for item in annotation.ignored]
    instances = [
        Instance(label, polygons=item.polygons) if item.polygons else Instance(label, box=item.box)
        for label, item in named
    ]
    instances += [Instance(line.text, quad=line.quad) for line in annotation.lines]
    instances += [Instance("(ignored)", quad=line.quad) for line in annotation.ignored_lines]
    instances += [Instance(region.text, box=region.box) for region in annotation.regions]
    words = [*filter(None, annotation.captions[:1])]
    words += [f"phrase: {r.phrase}" + ("" if r.objects else " (absent)") for r in annotation.expressions[:2]]
    words += [f"{q.question} – {q.answer}" for q in annotation.questions[:2]]
    result = Result(sample.name, annotation.size_wh, "\n".join(words), tuple(instances))
    drawn = result.draw(image, max_side=TILE)
    tile = Image.new("RGB", (drawn.width, drawn.height + 14), "white")
    tile.paste(drawn, (0, 14))
    ImageDraw.Draw(tile).text((0, 0), sample.name, fill="black")
    return tile
