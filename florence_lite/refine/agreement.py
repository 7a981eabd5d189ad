"""Stages that compare answers: of two checkpoints to one question, of two tasks about one image.

Answers that a stage before has dropped bear no witness.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from florence_lite.answers import Instance, same_label
from florence_lite.checks import check, check_list, check_share, is_text
from florence_lite.geometry import box_iou
from florence_lite.refine.judged import ImageRows, JudgedRow, Opinion
from florence_lite.refine.stage import Found, Stage
from florence_lite.refine.words import common_words, is_named

CAPTIONS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")
SAME_PLACE = 0.9  # IoU of a box and the region that was asked about because of it


@dataclass
class Opinions(Stage):
    """What another opinion does not confirm: of another checkpoint, or of the same one asked in another way.

    keep: the opinion whose rows stay; "" is the first in the alphabet. The others' rows of the tasks that both were
        asked are left out when they have borne witness.
    iou: an instance stays where another opinion has one of the same label whose box has at least this IoU with its own.
        Labels of up to three words must be the same, longer ones share `words`.
    words: an answer in words stays where it shares that many of its words with another opinion's, as an F1 from 0 to 1;
        what words like "the" and "with" have in common does not count.

    A question that no other opinion was asked is not judged.
    """

    NAME = "opinions"
    keep: str = ""
    iou: float = 0.5
    words: float = 0.5

    def __post_init__(self):
        check(self, "keep", lambda value: isinstance(value, str), "the name of an opinion")
        check_share(self, "iou", "words")
        self._kept: Opinion | None = None
        self._names: Mapping[Opinion, str] = {}
        self._single = Counter()

    def check(self, found: Found) -> None:
        self._names = found.names
        names = sorted(self._names.values())
        if len(names) < 2:
            raise ValueError(
                f"opinions: the rows hold one opinion only, {names[0]!r}; annotate with a second checkpoint or tag "
                "into the same folder, or leave this stage out"
            )
        wanted = self.keep or names[0]
        if wanted not in names:
            raise ValueError(f"opinions.keep = {wanted!r} is none of the opinions {', '.join(map(repr, names))}")
        [self._kept] = (opinion for opinion, name in self._names.items() if name == wanted)

    def judge(self, image: ImageRows) -> None:
        asked = defaultdict(list)  # question → rows of the other opinions, dropped ones too
        for row in image.rows:
            if not row.is_of_person and row.opinion != self._kept:
                asked[row.question].append(row)
        own_tasks = {row.task for row in image.rows if row.opinion == self._kept}
        for row in image.open:
            if row.opinion != self._kept:
                continue
            others = asked[row.question]
            witnesses = [other for other in others if not other.is_out]
            if not others:
                self._single[row.task] += 1
            elif not witnesses:
                row.drop(self.NAME, "no second opinion", "the other opinion's answer was left out")
            else:
                self._compare(row, witnesses)
        for row in image.open:
            if row.opinion != self._kept and row.task in own_tasks:
                row.drop(self.NAME, "second opinion", f"it was asked to confirm {self._names[self._kept]}")

    def _compare(self, row: JudgedRow, witnesses: list[JudgedRow]) -> None:
        if row.text:
            best = max(common_words(row.text, other.text) for other in witnesses)
            if best < self.words:
                row.drop(self.NAME, "not confirmed", f"{best:.2f} of its words are, below {self.words:g}")
            return
        seen = [item for other in witnesses for item in other.left.values()]
        for place, item in list(row.left.items()):
            alike = [other for other in seen if self._same_name(item.label, other.label)]
            if not alike:
                row.drop(self.NAME, "not confirmed", "no other opinion has its label", place)
            elif item.bounds is not None and (best := _overlap(item, alike)) < self.iou:
                row.drop(self.NAME, "not confirmed", f"IoU {best:.2f} is below {self.iou:g}", place)

    def _same_name(self, one: str, other: str) -> bool:
        if max(len(one.split()), len(other.split())) <= 3:
            return same_label(one) == same_label(other)
        return common_words(one, other) >= self.words

    def told(self) -> list[str]:
        kept = self._names[self._kept]
        others = ", ".join(sorted(name for name in self._names.values() if name != kept))
        single = ", ".join(f"{count} of {task}" for task, count in sorted(self._single.items()))
        return [f"opinions: {kept} stays, confirmed by {others}"] + (
            [f"opinions: only {kept} was asked, not judged: {single}"] if single else []
        )


@dataclass
class Captions(Stage):
    """Objects whose label no caption of the image mentions, in the singular or plural.

    tasks: whose instances are judged. captions: the tasks whose words count; empty for all captions that there are.
    words: label → other words for it, such as person = ["man", "woman"].
    """

    NAME = "captions"
    tasks: tuple[str, ...] = ("<OD>",)
    captions: tuple[str, ...] = ()
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self):
        check_list(self, "tasks", is_text)
        check_list(self, "captions", is_text)
        if not isinstance(self.words, Mapping) or not all(
            isinstance(each, list | tuple) for each in self.words.values()
        ):
            raise ValueError(f"words = {self.words!r} must be a table of lists of words")
        self._words = {same_label(label): (label, *more) for label, more in self.words.items()}
        self._captions = self.captions

    def check(self, found: Found) -> None:
        found.check_tasks("captions.tasks", self.tasks)
        found.check_tasks("captions.captions", self.captions)
        self._captions = self.captions or tuple(task for task in CAPTIONS if task in found.tasks)
        if not self._captions:
            raise ValueError(
                f"captions: no row is a caption ({', '.join(CAPTIONS)}) to compare with; the tasks are "
                f"{', '.join(sorted(found.tasks))}"
            )

    def judge(self, image: ImageRows) -> None:
        told = [row.text for row in image.standing if row.task in self._captions and row.text]
        for row in image.open:
            if row.task not in self.tasks:
                continue
            for place, item in list(row.left.items()):
                names = self._words.get(same_label(item.label), (item.label,))
                if not any(is_named(name, text) for name in names for text in told):
                    kind = "not in a caption" if told else "no caption left"
                    row.drop(self.NAME, kind, repr(item.label), place)


@dataclass
class Regions(Stage):
    """Objects that are called otherwise when the model is asked about their box, and those answers.

    tasks: whose instances are judged. by: the task that was asked about their boxes. The two agree where they are the
    same words or one is named in the other, as "car" is in "a red car". Answers about boxes that are gone go too.
    """

    NAME = "regions"
    tasks: tuple[str, ...] = ("<OD>",)
    by: str = "<REGION_TO_CATEGORY>"

    def __post_init__(self):
        check_list(self, "tasks", is_text)
        check(self, "by", is_text, "the marker of a task")

    def check(self, found: Found) -> None:
        found.check_tasks("regions.tasks", self.tasks)
        found.check_tasks("regions.by", (self.by,))

    def judge(self, image: ImageRows) -> None:
        answers = [row for row in image.standing if row.task == self.by and row.row.query.region is not None]
        places = [Instance(box=row.row.query.region) for row in answers]
        agreeing: set[int] = set()
        for row in image.standing:
            if row.task not in self.tasks:
                continue
            for place, item in list(row.left.items()):
                about = [n for n, region in enumerate(places) if item.bounds and _overlap(item, [region]) >= SAME_PLACE]
                same = {n for n in about if _agree(item.label, answers[n].text)}
                agreeing |= same
                if same or row.is_of_person:
                    continue
                said = " and ".join(sorted({repr(answers[number].text) for number in about}))
                kind, detail = ("called otherwise", f"{item.label!r} is {said}") if about else ("not asked about", "")
                row.drop(self.NAME, kind, detail, place)
        for number, row in enumerate(answers):
            if number not in agreeing and not row.is_of_person:
                row.drop(self.NAME, "no such object left", f"{row.text!r}")


def _agree(one: str, other: str) -> bool:
    return same_label(one) == same_label(other) or is_named(one, other) or is_named(other, one)


def _overlap(item: Instance, others: list[Instance]) -> float:
    """The greatest IoU of its box with those of the others; 0 where none has coordinates."""
    boxes = [other.bounds for other in others if other.bounds is not None]
    return float(box_iou(item.bounds, boxes).max()) if boxes else 0.0
