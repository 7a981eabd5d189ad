"""One progress bar for everything that takes long, and lines for where nobody sees it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

SECONDS_BETWEEN_LINES = 30.0


def progress_bar(shown: bool, *columns: ProgressColumn | str, transient: bool = True) -> Progress:
    """A bar on standard error, or in a notebook; none where nobody would see it.

    columns: what it shows; rich's usual ones if none are given. transient: whether it goes away when it is full.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    hidden = not shown or not (console.is_terminal or _in_notebook(console))
    # While the bar stands, rich would send all prints to the bar's stream, even those that go to a pipe.
    return Progress(*columns, console=console, transient=transient, disable=hidden, redirect_stdout=sys.stdout.isatty())


def is_logged() -> bool:
    """Whether standard output goes where no bar stands beside it: into a file or a pipe, or no bar is to be seen."""
    from rich.console import Console

    console = Console(stderr=True)
    return not _in_notebook(console) and not (console.is_terminal and sys.stdout.isatty())


def _in_notebook(console: Console) -> bool:
    """Whether a bar can stand in a notebook: without ipywidgets rich warns in its place."""
    return console.is_jupyter and find_spec("ipywidgets") is not None


class ProgressLines:
    """Tells how far work is: after its first step, then at most once in `interval` seconds, and at its end.

    total: steps of the whole work; done: before this start. write: gets each line. clock: gives seconds. unit: what a
    step is called.
    """

    def __init__(
        self,
        total: int,
        done: int,
        write: Callable[[str], None],
        interval: float = SECONDS_BETWEEN_LINES,
        clock: Callable[[], float] = time.monotonic,
        unit: str = "step",
    ):
        self.total, self.done, self.write, self.interval, self.clock = total, done, write, interval, clock
        self.unit = unit
        self.started, self.last = clock(), -float("inf")

    def update(self, step: int, note: str = "", most: float = float("inf")) -> None:
        """After step number `step`, counted from 1. note: what else the line tells. most: seconds that are left."""
        now = self.clock()
        if now - self.last < self.interval and step < self.total:
            return
        self.last = now
        each = (now - self.started) / max(1, step - self.done)
        left = f", {duration(min(most, each * (self.total - step)))} left" if step < self.total else ""
        parts = (f"{self.unit} {step} of {self.total}", note, f"{each:.2f} s a {self.unit}{left}")
        self.write(", ".join(filter(None, parts)))


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "3 h 5 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
