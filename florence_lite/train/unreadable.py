"""Images that a run met and could not read: each is reported once, whatever process prepared its batch."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from accelerate.utils import gather_object

from florence_lite.train.collate import Batch
from florence_lite.train.log import TrainingLog


class UnreadableImages:
    """Tells of unreadable images on standard error as soon as it meets them, and in the log of the run."""

    def __init__(self) -> None:
        self._told: set[str] = set()  # names
        self._new: dict[str, str] = {}  # name → reason, to be logged

    def meet(self, parts: Sequence[Batch]) -> None:
        """Tell of what batches bring that was not told before."""
        for part in parts:
            for name, reason in part.unreadable.items():
                if name not in self._told:
                    self._told.add(name)
                    self._new[name] = reason
                    print(f"image {name} is left out, another takes its place: {reason}", file=sys.stderr, flush=True)

    def write(self, log: TrainingLog, step: int) -> None:
        """Log what all processes met since the last time, if anything: {"step": …, "count": …, "unreadable": {…}}."""
        found = {name: reason for each in gather_object([self._new]) for name, reason in each.items()}
        self._new = {}
        if found:
            log.write(step, "unreadable", found, count=len(found))
