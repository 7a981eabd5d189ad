"""A stage that keeps frequent labels from drowning the others."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from florence_lite.answers import same_label
from florence_lite.checks import check, check_choice, check_list, check_whole, is_text, is_whole
from florence_lite.refine.judged import ImageRows, JudgedRow
from florence_lite.refine.stage import Found, Stage


@dataclass
class Balance(Stage):
    """Answers with labels of which there are enough.

    most: images of each label. What a person corrected counts first, and stays.
    count: what `most` counts. "images": an answer goes as a whole where all of its labels have enough images, so that
        nothing in an image stays without its box; a label may have more of them, beside rarer ones. "instances": single
        instances go, exactly; what is trained on the rest learns that they are none.
    choose: "score", the surest first, an image by its least sure instance; or "hash", at random, but the same in every
        run.
    seed: of that. tasks: whose answers count.
    """

    NAME = "balance"
    looks_ahead = True
    most: int = 1000
    count: str = "images"
    choose: str = "hash"
    seed: int = 0
    tasks: tuple[str, ...] = ("<OD>",)

    def __post_init__(self):
        check_whole(self, 1, "most")
        check_choice(self, "count", ("images", "instances"))
        check_choice(self, "choose", ("score", "hash"))
        check(self, "seed", lambda value: is_whole(value, 0), "a whole number of at least 0")
        check_list(self, "tasks", is_text)
        self._labels: dict[str, int] = {}  # label → its number
        self._found: list[tuple] = []
        self._surplus: set = set()

    def check(self, found: Found) -> None:
        found.check_tasks("balance.tasks", self.tasks)

    def observe(self, images: Sequence[ImageRows]) -> None:
        for row in (row for image in images for row in self._counted(image)):
            person = row.is_of_person
            if self.count == "images":
                labels = {self._number(item.label) for item in row.left.values()}
                scores = [item.score for item in row.left.values() if item.score is not None]
                self._found.append((not person, self._order(row.id, min(scores, default=None)), row.id, tuple(labels)))
                continue
            for place, item in row.left.items():
                order = self._order(row.id, item.score, place)
                self._found.append((not person, order, (row.id, place), (self._number(item.label),)))

    def settle(self) -> None:
        """In the order of preference, what has a label of which there are not enough yet stays."""
        counts = Counter[int]()
        for may_go, _, name, labels in sorted(self._found, key=lambda each: each[:3]):
            if may_go and all(counts[label] >= self.most for label in labels):
                self._surplus.add(name)
            else:
                counts.update(labels)
        self._found.clear()

    def judge(self, image: ImageRows) -> None:
        for row in self._counted(image):
            if row.id in self._surplus:
                labels = ", ".join(sorted({item.label for item in row.left.values()}))
                row.drop(self.NAME, "enough images", f"of {labels}")
                continue
            for place, item in list(row.left.items()):
                if (row.id, place) in self._surplus:
                    row.drop(self.NAME, "enough instances", f"of {item.label}", place)

    def _counted(self, image: ImageRows) -> list[JudgedRow]:
        return [row for row in image.standing if row.task in self.tasks and row.left]

    def _number(self, label: str) -> int:
        return self._labels.setdefault(same_label(label), len(self._labels))

    def _order(self, row_id: int, score: float | None, place: int = 0) -> float:
        """Smaller goes first."""
        if self.choose == "score":
            return 0.0 if score is None else -score
        digest = hashlib.blake2b(f"{self.seed} {row_id} {place}".encode(), digest_size=6).digest()
        return float(int.from_bytes(digest))
