"""How far a run is, in the numbers that its user needs, as a bar or as lines of a log; and what it came to."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

from florence_lite.annotate.parts import Answers
from florence_lite.progress import SECONDS_BETWEEN_LINES, duration, progress_bar

MANY = 100_000  # images whose hours are told,
FEW = 1_000  # but not beside fewer, which may be over before the rate is known
MOST_KINDS = 20  # of errors that are counted apart
OTHER = "other"
FOREIGN = (
    "unlike those that the checkpoint knows, or with nothing sure in the answer (foreign): refine drops these answers; "
    "for photographs take --checkpoint microsoft/Florence-2-base or one of your own"
)


class Told(NamedTuple):
    """What is counted of the answers about an image.

    source: of the image. errors: kinds of those of its rows, none twice. foreign: some answer says that it is unsure,
    as the checkpoint knows pictures of another kind. left_out: instances that scored too little.
    """

    source: str = ""
    errors: tuple[str, ...] = ()
    foreign: bool = False
    left_out: int = 0


@dataclass
class Report:
    """What a run came to.

    images: that the source lists, as far as the run came; of these done: answered before; duplicates: of the same bytes
    as another one; answered: in this run; failed: those of them with an error; failed_before: images of the folder that
    had one before. errors: kind → images; first: kind → the
    first of them. foreign: images with answers that are unsure; left_out: instances that scored too little. rows: that
    this run added, in `parts` files; seconds: from the first image to the last. damaged: parts that had to be redone.
    """

    output: str
    images: int = 0
    done: int = 0
    duplicates: int = 0
    answered: int = 0
    failed: int = 0
    failed_before: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    foreign: int = 0
    left_out: int = 0
    rows: int = 0
    parts: int = 0
    damaged: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, image: Told) -> None:
        """Count an image that was answered."""
        self.answered += 1
        self.failed += bool(image.errors)
        self.foreign += image.foreign
        self.left_out += image.left_out
        for kind in image.errors:
            kind = kind if kind in self.errors or len(self.errors) < MOST_KINDS else OTHER
            self.errors[kind] += 1
            self.first.setdefault(kind, image.source)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, with images_per_second."""
        rate = self.answered / self.seconds if self.seconds else 0.0
        return {**asdict(self), "errors": dict(self.errors.most_common()), "images_per_second": round(rate, 3)}

    def lines(self) -> list[str]:
        """The summary for people."""
        apart = [
            f"{self.done:,} done before" if self.done else "",
            f"{self.failed:,} with errors" if self.failed else "",
        ]
        if self.duplicates:
            apart.append(f"{self.duplicates:,} of the same bytes as others, listed in duplicates.jsonl")
        told = ", ".join(filter(None, apart))
        rate = f", {_rate(self.answered / self.seconds)}" if self.answered and self.seconds else ""
        all_done = 0 < self.done == self.images
        lines = [
            f"all {self.images:,} images were answered before"
            if all_done
            else f"{self.answered:,} of {self.images:,} images answered{f' ({told})' if told else ''}",
            *(f"  {count:,} × {kind}; the first: {self.first[kind]}" for kind, count in self.errors.most_common()),
        ]
        if self.left_out:
            lines.append(f"  {self.left_out:,} instances scored too little and were left out (dropped)")
        if self.foreign:
            lines.append(f"  {self.foreign:,} images {FOREIGN}")
        if self.failed_before:
            lines.append(f"  {self.failed_before:,} images had an error before; their rows tell it")
        rows = f"{self.rows:,} rows in {self.parts:,} new parts, {duration(self.seconds)}{rate}"
        return [*lines, f"{rows}: {self.output}"]


def told_of(answers: Answers) -> Told:
    """What is counted of the answers about an image."""
    if not answers.rows:
        return Told()
    results = [row.result for row in answers.rows if row.result is not None]
    return Told(
        answers.rows[0].image.source,
        tuple(dict.fromkeys(kind_of(row.error, row.image.source) for row in answers.rows if row.error)),
        any(result.foreign for result in results),
        sum(result.dropped for result in results),
    )


def kind_of(error: str, source: str) -> str:
    """An error without what is true of one image alone, so that those of a kind can be counted."""
    return error.replace(f"image {source}", "").replace(source, "").split(":")[0].strip() or error


class Progress:
    """Shows how far a run is, as a bar in a terminal and otherwise in lines of a log: at the beginning, after the first
    images, and every half a minute.

    total: images of the source, as soon as somebody knows. tell: gets each line. clock: gives seconds.
    """

    def __init__(
        self,
        report: Report,
        tell: Callable[[str], None],
        interval: float = SECONDS_BETWEEN_LINES,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.report, self.tell, self.interval, self.clock = report, tell, interval, clock
        self.total: int | None = None
        self.started = clock()
        self._told = -math.inf

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._bar = stack.enter_context(progress_bar(True, "{task.description}"))
            self._task = self._bar.add_task("begins", total=None)
            self._stack = stack.pop_all()
        if self._bar.disable:
            self.tell(f"answers go to {self.report.output}")
        return self

    def __exit__(self, *fault: Any) -> None:
        self._stack.__exit__(*fault)

    def update(self) -> None:
        """The report has changed."""
        now = self.clock()
        self.report.seconds = now - self.started
        if not self._bar.disable:
            self._bar.update(self._task, description=self.line())
        elif now - self._told >= self.interval:
            self._told = now
            self.tell(self.line())

    def line(self) -> str:
        """ "1,204 of 5,000 images (300 done before), 12.3 images/s, 5 min left, 2.3 h for 100,000 images, 3 errors" """
        report, elapsed = self.report, self.clock() - self.started
        behind = report.done + report.duplicates + report.answered
        parts = [f"{behind:,}{f' of {self.total:,}' if self.total is not None else ''} images"]
        if report.done:
            parts[0] += f" ({report.done:,} done before)"
        if report.answered and elapsed > 0:
            rate = report.answered / elapsed
            parts.append(_rate(rate))
            if self.total is not None and self.total > behind:
                parts.append(f"{duration((self.total - behind) / rate)} left")
            if self.total is None or self.total >= FEW:
                parts.append(f"{MANY / rate / 3600:.1f} h for {MANY:,} images")
        parts.append(f"{report.failed:,} errors" if report.failed != 1 else "1 error")
        return ", ".join(parts)


def _rate(images_per_second: float) -> str:
    """Two digits at least, so that slow ones are no 0.0."""
    return f"{images_per_second:.{1 if images_per_second >= 1 else 2}f} images/s"


def damage_told(damaged: Sequence[Any]) -> list[str]:
    """Lines about parts that could not be read (`parts.Damage`)."""
    return [
        f"a part was damaged and is moved to {each.path}: {each.reason}; its images are asked again" for each in damaged
    ]
