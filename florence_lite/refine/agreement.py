"""Stages that compare answers: of two checkpoints to one question, of two tasks about one image.

Answers that a stage before has dropped bear no witness.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from florence_lite.answers import Box, Instance, same_label
from florence_lite.checks import check, check_list, check_share, is_list, is_text
from florence_lite.geometry import box_iou
from florence_lite.refine.judged import ImageRows, JudgedRow, Opinion
from florence_lite.refine.stage import Found, Stage
from florence_lite.refine.words import common_words, is_named

CAPTIONS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")
SAME_PLACE = 0.9  # IoU of a box and the region that was asked about because of it


@dataclass
class Opinions(Stage):
    """What another opinion does not confirm: of another checkpoint, or of the same one asked in another way.

    keep: the opinion whose rows stay, a checkpoint and its tag; "" is the one that the run asked first. The others'
        rows of the tasks that it was asked too are left out when they have borne witness.
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
        self._names: dict[str, dict[Opinion, str]] = {}  # task → opinions by their names
        self._kept: dict[str, Opinion] = {}
        self._single = Counter()

    def check(self, found: Found) -> None:
        named = {task: found.names(task) for task in found.tasks}
        self._names = {task: names for task, names in named.items() if len(names) > 1}
        if not self._names:
            known = sorted({name for names in named.values() for name in names.values()})
            raise ValueError(
                f"opinions: no task has answers of two opinions; there {'is' if len(known) == 1 else 'are'} "
                f"{', '.join(map(repr, known))}. Annotate with a second checkpoint, or a second tag, into the same "
                "folder, or leave this stage out"
            )
        known = sorted({name for names in self._names.values() for name in names.values()})
        if self.keep and self.keep not in known:
            raise ValueError(f"opinions.keep = {self.keep!r} is none of the opinions {', '.join(map(repr, known))}")
        for task, names in self._names.items():
            chosen = [opinion for opinion, name in names.items() if name == self.keep]
            self._kept[task] = (chosen or list(names))[0]

    def begin(self) -> None:
        self._single.clear()

    def judge(self, image: ImageRows) -> None:
        asked = defaultdict(list)  # question → rows of the other opinions, dropped ones too
        own_tasks = set()
        for row in image.rows:
            if row.task in self._kept and not row.is_of_person:
                if row.opinion == self._kept[row.task]:
                    own_tasks.add(row.task)
                else:
                    asked[row.question].append(row)
        for row in [row for row in image.open if row.task in own_tasks]:
            if row.opinion != self._kept[row.task]:
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
            if row.task in own_tasks and row.opinion != self._kept[row.task]:
                row.drop(self.NAME, "second opinion", "it was asked to confirm another")

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
        lines = []
        for task, names in sorted(self._names.items()):
            kept = names[self._kept[task]]
            lines.append(
                f"{task}: {kept!r} stays, confirmed by {', '.join(repr(n) for n in names.values() if n != kept)}"
            )
        single = ", ".join(f"{count} of {task}" for task, count in sorted(self._single.items()))
        return lines + ([f"not judged, as no other opinion was asked the same: {single}"] if single else [])


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
        if not isinstance(self.words, Mapping) or not all(is_list(each, is_text) for each in self.words.values()):
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
    """Objects that are called otherwise when the model is asked about their box, and the answers that call them so.

    tasks: whose instances are judged. by: the task that was asked about their boxes. The two agree where they are the
    same words or one is named in the other, as "car" is in "a red car".
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
        contradicted: set[int] = set()
        for row in [row for row in image.open if row.task in self.tasks]:
            for place, item in list(row.left.items()):
                about = [answer for answer in answers if _is_about(answer, item)]
                if any(_agree(item.label, answer.text) for answer in about):
                    continue
                contradicted |= {id(answer) for answer in about}
                said = " and ".join(sorted({repr(answer.text) for answer in about}))
                kind, detail = (
                    ("called otherwise", f"{item.label!r} is {said}") if about else ("no answer about it", "")
                )
                row.drop(self.NAME, kind, detail, place)
        for answer in answers:
            if id(answer) in contradicted and not answer.is_of_person:
                answer.drop(self.NAME, "calls it otherwise", repr(answer.text))


@dataclass
class Orphans(Stage):
    """Answers to questions that were made of an answer that is gone: about a box that was left out, about the words of
    a caption that was. Questions that no answer gave rise to stay."""

    NAME = "orphans"

    def judge(self, image: ImageRows) -> None:
        lists = [row for row in image.rows if row.row.query.region is None and row.row.result is not None]
        left = [item for row in lists if not row.is_out for item in row.left.values()]
        gone = [item for row in lists for place, item in enumerate(row.row.result.instances) if _is_gone(row, place)]
        said = {row.text for row in lists if not row.is_out}
        unsaid = {row.text for row in lists if row.is_out and row.text} - said
        for row in image.open:
            text, region = row.question.text, row.question.region
            if text in unsaid:
                row.drop(self.NAME, "its caption is gone", text)
            elif region is not None and _lies_on(region, gone) and not _lies_on(region, left):
                row.drop(self.NAME, "its box is gone")


def _lies_on(region: Box, items: list[Instance]) -> bool:
    return _overlap(Instance(box=region), items) >= SAME_PLACE


def _is_gone(row: JudgedRow, place: int) -> bool:
    return row.is_out or place not in row.left


def _is_about(answer: JudgedRow, item: Instance) -> bool:
    """Whether an answer about a region is about the box of an instance."""
    return item.bounds is not None and _lies_on(answer.row.query.region, [item])


def _agree(one: str, other: str) -> bool:
    return same_label(one) == same_label(other) or is_named(one, other) or is_named(other, one)


def _overlap(item: Instance, others: list[Instance]) -> float:
    """The greatest IoU of its box with those of the others; 0 where none has coordinates."""
    boxes = [other.bounds for other in others if other.bounds is not None]
    return float(box_iou(item.bounds, boxes).max()) if boxes else 0.0
