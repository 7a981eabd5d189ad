"""How far a run is, in the numbers that its user needs, as a bar or as lines of a log; and what it came to."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from florence_lite.annotate.parts import Answers
from florence_lite.progress import SECONDS_BETWEEN_LINES, duration, progress_bar

MANY = 100_000  # images whose hours are told
MOST_KINDS = 20  # of errors that are counted apart
OTHER = "other"


@dataclass
class Report:
    """What a run came to.

    images: that the source lists, as far as the run came; of these done: answered before; duplicates: of the same bytes
    as another one; answered: in this run; failed: those of them with an error. errors: kind → images. rows: that this
    run added, in `parts` files; seconds: from the first image to the last. damaged: parts that had to be redone.
    """

    output: str
    images: int = 0
    done: int = 0
    duplicates: int = 0
    answered: int = 0
    failed: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    parts: int = 0
    damaged: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, errors: Sequence[str]) -> None:
        """Count an image that was answered. errors: kinds of those of its rows."""
        self.answered += 1
        self.failed += bool(errors)
        for kind in errors:
            self.errors[kind if kind in self.errors or len(self.errors) < MOST_KINDS else OTHER] += 1

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
        rate = f", {self.answered / self.seconds:.1f} images/s" if self.answered and self.seconds else ""
        return [
            f"{self.answered:,} of {self.images:,} images answered{f' ({told})' if told else ''}",
            *(f"  {count:,} × {kind}" for kind, count in self.errors.most_common()),
            f"{self.rows:,} rows in {self.parts:,} new parts, {duration(self.seconds)}{rate}: {self.output}",
        ]


def error_kinds(answers: Answers) -> tuple[str, ...]:
    """The kinds of errors among the answers about an image, none twice."""
    return tuple(dict.fromkeys(kind_of(row.error, row.image.source) for row in answers.rows if row.error))


def kind_of(error: str, source: str) -> str:
    """An error without what is true of one image alone, so that those of a kind can be counted."""
    return error.replace(f"image {source}", "").replace(source, "").split(":")[0].strip() or error


class Progress:
    """Shows how far a run is, as a bar in a terminal and otherwise in a line of a log every half a minute.

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
        self.started = self._told = clock()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._bar = stack.enter_context(progress_bar(True, "{task.description}"))
            self._task = self._bar.add_task("begins", total=None)
            self._stack = stack.pop_all()
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
            parts.append(f"{rate:.1f} images/s")
            if self.total is not None and self.total > behind:
                parts.append(f"{duration((self.total - behind) / rate)} left")
            parts.append(f"{MANY / rate / 3600:.1f} h for {MANY:,} images")
        parts.append(f"{report.failed:,} errors" if report.failed != 1 else "1 error")
        return ", ".join(parts)


def damage_told(damaged: Sequence[Any]) -> list[str]:
    """Lines about parts that could not be read (`parts.Damage`)."""
    return [
        f"a part was damaged and is moved to {each.path}: {each.reason}; its images are asked again" for each in damaged
    ]
