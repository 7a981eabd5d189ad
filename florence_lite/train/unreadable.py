"""Images that a run met and could not read: each is reported once, whatever process prepared its batch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from accelerate.utils import gather_object

from florence_lite.train.collate import Batch
from florence_lite.train.log import TrainingLog


class UnreadableImages:
    """Tells of unreadable images on standard error as soon as it knows of them, and in the log of the run.

    main: whether this process tells; it learns what the others met when all of them `write`.
    """

    def __init__(self, main: bool) -> None:
        self._main = main
        self._known: set[str] = set()  # names
        self._new: dict[str, str] = {}  # name → reason, to be logged

    def meet(self, parts: Sequence[Batch]) -> None:
        """Take note of what the batches of this process bring."""
        for part in parts:
            self._new |= self._unknown(part.unreadable)

    def write(self, log: TrainingLog, step: int) -> None:
        """Log what all processes met since the last time, if anything: {"step": …, "count": …, "unreadable": {…}}."""
        met: dict[str, str] = {}
        for each in gather_object([self._new]):
            met = each | met
        self._unknown(met)
        self._new = {}
        if met:
            log.write(step, "unreadable", met, count=len(met))

    def _unknown(self, unreadable: Mapping[str, str]) -> dict[str, str]:
        """Those that were not known before, of which people are told now."""
        new = {name: reason for name, reason in unreadable.items() if name not in self._known}
        self._known |= new.keys()
        for name, reason in new.items() if self._main else ():
            print(f"image {name} is left out, another takes its place: {reason}", file=sys.stderr, flush=True)
        return new
