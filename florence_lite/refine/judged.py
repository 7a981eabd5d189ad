"""Rows while they are judged: what of each is left, and why the rest is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from florence_lite.answers import Box, Instance
from florence_lite.data.rows import AnswerRow, Query, from_record, to_record

PERSON = "person"  # checkpoint and tag of rows that a person made


class Question(NamedTuple):
    """What was asked about an image, whoever answers."""

    task: str
    text: str | None
    phrases: tuple[str, ...] | None
    region: Box | None


class Opinion(NamedTuple):
    """Who answers, and how."""

    checkpoint: str
    revision: str
    decoding: str
    tag: str


class Drop(NamedTuple):
    """What was left out of a row, and why.

    place: of the instance in the row's answer; None for the whole row. stage: its name. kind: in the same words for all
    of its kind. detail: this case, with its values.
    """

    place: int | None
    stage: str
    kind: str
    detail: str

    @property
    def reason(self) -> str:
        return ": ".join(filter(None, (self.kind, self.detail)))


class JudgedRow:
    """A row with what the stages left of it.

    record: as it was read; row: the same as an `AnswerRow`. left: place in the answer → instance that is left, in the
    order of the answer. is_out: whether it was dropped as a whole. drops: all that was left out, in the order of time.
    """

    def __init__(self, record: Mapping[str, Any]):
        self.record, self.row = record, from_record(record)
        self.left: dict[int, Instance] = dict(enumerate(self.row.result.instances)) if self.row.result else {}
        self.drops: list[Drop] = []
        self.is_out = False
        self.verified = self.row.verified

    @classmethod
    def of(cls, row: AnswerRow) -> JudgedRow:
        return cls(to_record(row))

    @property
    def id(self) -> int:
        return self.record["id"]

    @property
    def question(self) -> Question:
        return question_of(self.row.query)

    @property
    def opinion(self) -> Opinion:
        query = self.row.query
        return Opinion(query.checkpoint, query.revision, query.decoding, query.tag)

    @property
    def task(self) -> str:
        return self.row.query.task

    @property
    def text(self) -> str:
        """The words of prose and of answers about a region, which are judged as a whole; "" for lists."""
        return self.row.result.text if self.row.result else ""

    @property
    def is_of_person(self) -> bool:
        return self.row.query.checkpoint == PERSON

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.row.image.size_wh

    def drop(self, stage: str, kind: str, detail: str = "", place: int | None = None) -> None:
        """Leave out the instance at `place`, or the whole row."""
        self.drops.append(Drop(place, stage, kind, detail))
        if place is None:
            self.is_out = True
        else:
            del self.left[place]

    def kept_record(self) -> dict[str, Any]:
        """The row as it stays, with the instances that are left."""
        record = dict(self.record)
        if self.row.result is not None:
            record["instances"] = [record["instances"][place] for place in self.left]
            record["dropped"] += sum(drop.place is not None for drop in self.drops)
        record["verified"] = self.verified
        return record

    def dropped_records(self) -> Iterator[dict[str, Any]]:
        """What was left out, each with its reason: an instance as a row that has it alone, a row with what was left."""
        for place, _, *why in self.drops:
            record = dict(self.record)
            if record["instances"] is not None:
                chosen = self.left if place is None else (place,)
                record["instances"] = [record["instances"][each] for each in chosen]
            yield record | {"reason": ": ".join(filter(None, why)), "instance": place}


@dataclass
class ImageRows:
    """All rows about an image, by their ids."""

    rows: list[JudgedRow]

    @property
    def image(self):
        return self.rows[0].row.image

    @property
    def standing(self) -> list[JudgedRow]:
        """The rows that are not dropped as a whole."""
        return [row for row in self.rows if not row.is_out]

    @property
    def open(self) -> list[JudgedRow]:
        """The standing rows that may be dropped: where a person said what is right, nothing is."""
        return [row for row in self.standing if not row.is_of_person]

    @property
    def is_of_person(self) -> bool:
        return any(row.is_of_person for row in self.standing)


def question_of(query: Query) -> Question:
    return Question(query.task, query.text, query.phrases, query.region)
