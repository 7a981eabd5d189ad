"""Stages that look at one answer alone: errors, faults, scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from florence_lite.answers import same_label
from florence_lite.checks import check_share, check_switch, check_whole, is_number
from florence_lite.refine.judged import ImageRows, JudgedRow
from florence_lite.refine.stage import Found, Stage


@dataclass
class Repeated(Stage):
    """Rows that are there twice, as where folders were put together: the first stays."""

    NAME = "repeated"

    def judge(self, image: ImageRows) -> None:
        seen = set()
        for row in image.standing:
            if row.id in seen:
                row.drop(self.NAME, "repeated", "a row of this id is there before")
            seen.add(row.id)


@dataclass
class Errors(Stage):
    """Rows without an answer."""

    NAME = "errors"

    def judge(self, image: ImageRows) -> None:
        for row in image.open:
            if row.row.result is None:
                row.drop(self.NAME, "error", row.row.error)


@dataclass
class Faults(Stage):
    """Answers that went wrong while they were made.

    parse_errors: how many an answer may have; what could not be read is missing from it.
    truncated: whether answers that were cut off stay: a list may go on.
    foreign: whether answers about pictures of a kind that the checkpoint does not know stay. Answers to words or about
        a region are not judged so: there it only means that nothing was found.
    """

    NAME = "faults"
    parse_errors: int = 0
    truncated: bool = False
    foreign: bool = False

    def __post_init__(self):
        check_whole(self, 0, "parse_errors")
        check_switch(self, "truncated", "foreign")

    def judge(self, image: ImageRows) -> None:
        for row in image.open:
            result = row.row.result
            if result is None:
                continue
            if result.parse_errors > self.parse_errors:
                row.drop(self.NAME, "parse errors", str(result.parse_errors))
            elif result.truncated and not self.truncated:
                row.drop(self.NAME, "truncated")
            elif result.foreign and not self.foreign and not any(row.question[1:]):
                row.drop(self.NAME, "foreign picture")


@dataclass
class Scores(Stage):
    """What the model was not sure of.

    threshold: the least score that stays, from 0 to 1. Lists are judged instance by instance, answers in words and
        answers about a region as a whole. What has no score stays. Scores put answers in order; which share of those
        with one score is right depends on the checkpoint and on how much the pictures are like those it knows.
    tasks, labels: thresholds of their own for some tasks and labels; a label's goes before a task's.
    """

    NAME = "scores"
    threshold: float = 0.3
    tasks: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        check_share(self, "threshold")
        for name in ("tasks", "labels"):
            table = getattr(self, name)
            if not isinstance(table, Mapping):
                raise ValueError(f"{name} = {table!r} must be a table of thresholds")
            for key, value in table.items():
                if not (is_number(value) and 0 <= value <= 1):
                    raise ValueError(f"{name}: {key!r} = {value!r} must be a number between 0 and 1")
        self._labels = {same_label(label): value for label, value in self.labels.items()}
        self._unseen = {same_label(label): label for label in self.labels}

    def check(self, found: Found) -> None:
        found.check_tasks("scores.tasks", self.tasks)

    def threshold_of(self, task: str, label: str) -> float:
        return self._labels.get(same_label(label), self.tasks.get(task, self.threshold))

    def margins(self, row: JudgedRow) -> Iterator[tuple[int | None, float]]:
        result = row.row.result
        if result is None:
            return
        if row.text:
            if result.score is not None:
                yield None, result.score - self.threshold_of(row.task, result.text)
            return
        for place, item in enumerate(result.instances):
            if item.score is not None:
                yield place, item.score - self.threshold_of(row.task, item.label)

    def judge(self, image: ImageRows) -> None:
        for row in image.open:
            for item in row.left.values():
                self._unseen.pop(same_label(item.label), None)
            self._unseen.pop(same_label(row.text), None)
            for place, margin in self.margins(row):
                if margin >= 0 or (place is not None and place not in row.left):
                    continue
                score = row.row.result.score if place is None else row.left[place].score
                row.drop(self.NAME, "score", f"{score:.3f} is below {score - margin:g}", place)

    def told(self) -> list[str]:
        names = ", ".join(map(repr, self._unseen.values()))
        return [f"scores.labels: no answer has the label {names}"] if names else []


@dataclass
class Presence(Stage):
    """Instances of phrases that are unlikely to mean anything in the image.

    threshold: the least presence that stays, from 0 to 1. Of a calibrated checkpoint it is a probability: half of the
        phrases with a presence of 0.5 are there, in pictures like those that it was calibrated on.
    """

    NAME = "presence"
    threshold: float = 0.5

    def __post_init__(self):
        check_share(self, "threshold")

    def margins(self, row: JudgedRow) -> Iterator[tuple[int | None, float]]:
        result = row.row.result
        presence = result.presence if result else {}
        for place, item in enumerate(result.instances if presence else ()):
            # An outline without a label answers the one phrase that there is.
            phrase = item.label if item.label or len(presence) > 1 else next(iter(presence))
            if phrase in presence:
                yield place, presence[phrase] - self.threshold

    def judge(self, image: ImageRows) -> None:
        for row in image.open:
            for place, margin in self.margins(row):
                if margin < 0 and place in row.left:
                    detail = f"{self.threshold + margin:.3f} is below {self.threshold:g}"
                    row.drop(self.NAME, "presence", detail, place)
