"""What became of the rows: counts of each stage, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from florence_lite.refine.judged import ImageRows


@dataclass
class Counts:
    """Rows that stand, their instances, images that have such rows."""

    rows: int = 0
    instances: int = 0
    images: int = 0

    def add(self, image: ImageRows) -> None:
        standing = image.standing
        self.rows += len(standing)
        self.instances += sum(len(row.left) for row in standing)
        self.images += bool(standing)


@dataclass
class StageCounts:
    """What a stage did. rows, instances: dropped, without the instances of dropped rows; kinds: why; left: after it;
    told: what else a user should know."""

    name: str
    settings: dict[str, Any]
    rows: int = 0
    instances: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    left: Counts = field(default_factory=Counts)
    told: list[str] = field(default_factory=list)


@dataclass
class Report:
    """A run of refine.

    source, output: folders. read, kept: what they hold. stages: in the order in which they judged. added: rows of
    corrections. empty: answers that list nothing and are kept, "unverified" or "verified" as negatives, and of the
    former those of which a stage left everything out, "emptied". unmatched: corrections that could not be used. sheet:
    images on the contact sheet.
    """

    source: str
    output: str
    read: Counts = field(default_factory=Counts)
    stages: list[StageCounts] = field(default_factory=list)
    kept: Counts = field(default_factory=Counts)
    added: int = 0
    empty: dict[str, int] = field(default_factory=lambda: {"unverified": 0, "emptied": 0, "verified": 0})
    unmatched: list[str] = field(default_factory=list)
    sheet: int = 0
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """A table for people, what the stages tell, and what to know of empty answers."""
        heads = ("rows dropped", "instances dropped", "rows left", "instances left", "images left")
        first = max(map(len, ("stage", *(each.name for each in self.stages))))

        def line(name: str, *cells: str) -> str:
            return "  ".join(
                [name.ljust(first), *(cell.rjust(len(head)) for cell, head in zip(cells, heads, strict=True))]
            )

        yield line("stage", *heads)
        yield line("read", "", "", *_shown(self.read))
        for each in self.stages:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(each.kinds.items()))
            yield line(each.name, f"{each.rows:,}", f"{each.instances:,}", *_shown(each.left)) + f"  {kinds}".rstrip()
        for each in self.stages:
            yield from (f"{each.name}: {line}" for line in each.told)
        yield from self.notes
        yield f"kept: {self.kept.rows:,} rows about {self.kept.images:,} images in {self.output}"
        if self.added:
            yield f"of them {self.added:,} rows are a person's"
        if any(self.empty.values()):
            yield (
                f"answers that list nothing: {self.empty['verified']} verified, {self.empty['unverified']} unverified "
                f"(of {self.empty['emptied']} a stage left everything out); only verified ones are negatives"
            )


def _shown(counts: Counts) -> list[str]:
    return [f"{count:,}" for count in asdict(counts).values()]
