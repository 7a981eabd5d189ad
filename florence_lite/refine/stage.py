"""What a stage is: a filter with a name, its settings, and a judgement of one image after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from florence_lite.checks import hint
from florence_lite.refine.judged import ImageRows, JudgedRow, Opinion


@dataclass
class Found:
    """What the rows hold, known before any is judged.

    tasks: task → opinion → number of rows; a person's are not counted. order: checkpoint and tag of the opinions as the
    run asked for them, the first first; () where nothing says it.
    """

    tasks: dict[str, Counter[Opinion]] = field(default_factory=dict)
    order: tuple[tuple[str, str], ...] = ()

    def add(self, task: str, opinion: Opinion, rows: int) -> None:
        self.tasks.setdefault(task, Counter())[opinion] += rows

    def names(self, task: str) -> dict[Opinion, str]:
        """The opinions about a task by the shortest names that tell them apart, of checkpoint and tag, decoding and
        revision; those that count first come first, of one checkpoint and tag the one with the least said of
        decoding."""

        def rank(each: Opinion) -> tuple:
            asked = each.checkpoint, each.tag
            place = self.order.index(asked) if asked in self.order else len(self.order)
            return place, each.tag, len(each.decoding), each

        opinions = sorted(self.tasks[task], key=rank)
        for parts in (("checkpoint", "tag"), ("checkpoint", "tag", "decoding"), Opinion._fields):
            names = {each: " ".join(filter(None, (getattr(each, part) for part in parts))) for each in opinions}
            if len(set(names.values())) == len(names):
                break
        return names

    def check_tasks(self, what: str, tasks: Iterable[str]) -> None:
        """ValueError where the rows have no answer to one of the tasks; what: the setting that names it."""
        for task in tasks:
            if task not in self.tasks:
                raise ValueError(
                    f"{what}: no row is of the task {task!r}; {hint(task, self.tasks)}the tasks are "
                    f"{', '.join(sorted(self.tasks))}"
                )


class Stage:
    """A filter. Its subclasses are dataclasses whose fields are its settings.

    NAME: as configurations and reports call it. looks_ahead: it must see all images before it can judge one: `observe`
    is called with some at a time, as the stages before it left them, then `settle` once. Stages keep what they saw: new
    ones are made for each run.
    """

    NAME: ClassVar[str]
    looks_ahead: ClassVar[bool] = False

    def check(self, found: Found) -> None:
        """Raises ValueError where the rows cannot be judged with these settings."""

    def observe(self, images: Sequence[ImageRows]) -> None:
        """See some of all images."""

    def settle(self) -> None:
        """All images have been seen."""

    def begin(self) -> None:
        """All images will be judged, from the first on: before a stage behind this one sees them, and in the end."""

    def judge(self, image: ImageRows) -> None:
        """Drop what is to be dropped of an image's open rows."""

    def margins(self, row: JudgedRow) -> Iterator[tuple[int | None, float]]:
        """(place, how far above its threshold): negative below it; place None for the whole row. Nothing for a stage
        without a threshold of scores."""
        return iter(())

    def told(self) -> list[str]:
        """What a user should know beside the counts, after the run."""
        return []
