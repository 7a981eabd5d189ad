"""What a visitor of the page asks, and what the page shows of the answer, while it is written and when it is whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from florence_lite.answers import Box, Instance
from florence_lite.cards import INPUTS, TaskCard, task, tasks
from florence_lite.images import load_image
from florence_lite.inference import EncodedImage, Prompt
from florence_lite.results import Result
from florence_lite.results.pictures import draw
from florence_lite.tokens import grammar

if TYPE_CHECKING:
    from florence_lite.florence import Florence

FREE = "a sentence of your own"  # stands in the list of tasks
LEAST_SCORE = 0.3  # of what is shown at first, where no presence decides
LARGEST_SIDE = 1200  # pixels of a picture that is sent to the browser
CORNER = 2  # pixels around a first corner that are marked
SECONDS_BETWEEN = 0.15  # two pictures of an answer that grows


@dataclass(frozen=True)
class Question:
    """What is asked, as it stands in the fields of the page.

    task: a marker, or `FREE`, where `text` is the whole prompt. phrases: one a line. region: x0 y0 x1 y1 in pixels of
    the image. Fields that the task does not take are not looked at: they may hold what another task was asked with.
    """

    task: str
    text: str = ""
    phrases: str = ""
    region: str = ""

    @property
    def card(self) -> TaskCard:
        """Raises ValueError for an unknown task, and for a sentence of one's own that is empty."""
        if self.task != FREE:
            return task(self.task)
        if not self.text.strip():
            raise ValueError("a sentence of your own needs the field text, which is empty: fill it in")
        return task(self.text.strip())

    def prompt(self) -> Prompt:
        """Raises as `card`, and ValueError for a field that is empty and for a region that is no four numbers."""
        card = self.card
        given = taken(card)
        if given and not getattr(self, given).strip():
            how = "click two corners in the image" if given == "region" else "fill it in"
            raise ValueError(f"{card.name} needs the field {given}, which is empty: {how}")
        return Prompt(
            card.name,
            text=(self.text.strip() or None) if given == "text" else None,
            phrases=([line.strip() for line in self.phrases.splitlines() if line.strip()] or None)
            if given == "phrases"
            else None,
            region=read_region(self.region) if given == "region" else None,
        )


@dataclass(frozen=True)
class Shown:
    """What the page shows: the drawn picture; the words; rows of label, score, x0, y0, x1, y1; the answer as JSON, None
    while it is written; and a line about time and doubts."""

    picture: Image.Image
    words: str
    rows: list[list[Any]]
    record: dict[str, Any] | None
    note: str


@dataclass
class Visit:
    """What is kept for a visitor between two questions: the image that was looked at last, and the last answer, with
    everything in it that any threshold could show."""

    path: str = ""
    encoded: EncodedImage | None = field(default=None, repr=False)
    result: Result | None = field(default=None, repr=False)
    note: str = ""


def choices() -> list[str]:
    """The tasks by their markers, and last `FREE`."""
    return [*(card.name for card in tasks()), FREE]


def summary(chosen: str) -> str:
    """What a choice asks for."""
    return "the text is the whole prompt" if chosen == FREE else task(chosen).summary


def taken(card: TaskCard) -> str:
    """The field that the task takes: "text", "phrases", "region" or ""."""
    return next(iter(INPUTS[card.input]), "")


def has_threshold(card: TaskCard) -> bool:
    """Whether a threshold means anything to the answers of a task."""
    return grammar(card.grammar).places


def first_threshold(florence: Florence, card: TaskCard) -> float:
    """Where the threshold stands before a visitor moves it: for phrases that of the checkpoint."""
    return round(florence.answering.threshold({}), 2) if taken(card) == "phrases" else LEAST_SCORE


def read_region(words: str) -> Box | None:
    """Four numbers apart by spaces or commas; None where there is nothing. Raises ValueError for anything else."""
    if not words.strip():
        return None
    try:
        x0, y0, x1, y1 = map(float, words.replace(",", " ").split())
    except ValueError:
        raise ValueError(
            f"region {words.strip()!r} must be four numbers x0 y0 x1 y1, in pixels: click two corners in the image"
        ) from None
    return x0, y0, x1, y1


def clicked(region: str, x: float, y: float) -> str:
    """The region after a click at x, y: the second corner where there is one already, else the first of a new one."""
    try:
        first = [float(number) for number in region.split()]
    except ValueError:
        first = []
    if len(first) != 2:
        return f"{x:.0f} {y:.0f}"
    (x0, x1), (y0, y1) = sorted((first[0], x)), sorted((first[1], y))
    return f"{x0:.0f} {y0:.0f} {x1:.0f} {y1:.0f}"


def with_region(path: str, region: str) -> Image.Image:
    """The image with the region on it, or with its first corner where only that is known."""
    image = load_image(path)
    if len(region.split()) == 4:
        marked = Instance("region", box=read_region(region))
    else:
        x, y = map(float, region.split())
        marked = Instance("first corner", box=(x - CORNER, y - CORNER, x + CORNER, y + CORNER))
    return draw(image, [marked], image.size, max_side=LARGEST_SIDE)


def answer(florence: Florence, visit: Visit, path: str | None, question: Question, threshold: float) -> Iterator[Shown]:
    """What is shown of the answer, while it grows and when it is whole; `visit` is brought up to date.

    path: of the image. Everything is asked for, and `threshold` leaves out what is not shown: see `at_threshold`.
    Raises as `Florence.stream`, and ValueError where there is no image.
    """
    if not path:
        raise ValueError("there is no image: drop one into the page")
    prompt, card = question.prompt(), question.card
    options: dict[str, Any] = {"threshold": 0.0} if has_threshold(card) else {}
    started = time.perf_counter()
    fresh = visit.path != path or visit.encoded is None
    if fresh:
        visit.path, visit.encoded = "", None  # an image that cannot be read leaves nothing behind
        visit.encoded, visit.path = florence.encode(path), path
    looked = time.perf_counter()
    seen = f"looked at in {looked - started:.2f} s" if fresh else "looked at before"
    words, instances, last = "", [], 0.0
    first = None
    for event in florence.stream(visit.encoded, prompt, **options):
        now = time.perf_counter()
        first = now if first is None else first
        if isinstance(event, Result):
            note = f"image {seen}, answered in {now - looked:.2f} s, the first part after {first - looked:.2f} s"
            visit.result, visit.note = (
                event,
                ". ".join([f"{note}, {len(event.token_ids)} ids", *_doubts(florence, event)]),
            )
            yield shown(visit, threshold)
            return
        if isinstance(event, str):
            words += event
        else:
            instances.append(event)
        if now - last >= SECONDS_BETWEEN:
            last = now
            growing = Result(card.name, visit.encoded.size_wh, words, tuple(instances), image=visit.encoded.image)
            yield _shown(at_threshold(growing, threshold if options else 0.0), None, f"image {seen}, answering …")


def at_threshold(result: Result, threshold: float) -> Result:
    """A result that was asked with a threshold of 0, as it would be with another: of phrases, without those whose
    presence does not reach it; else without instances that score less."""
    if not result.presence:
        return result.filter(score=threshold)
    absent = tuple(phrase for phrase, presence in result.presence.items() if presence < threshold)
    [alone] = result.presence if len(result.presence) == 1 else [None]  # an outline is not labelled with its phrase
    kept = tuple(item for item in result.instances if (item.label or alone) not in absent)
    return replace(result, instances=kept, absent=absent)


def shown(visit: Visit, threshold: float) -> Shown | None:
    """What is shown of the last answer at another threshold, without asking again; None where there is none."""
    if visit.result is None:
        return None
    result = visit.result
    if result.presence or has_threshold(task(result.task)):
        result = at_threshold(result, threshold)
    return _shown(result, result.to_dict(), visit.note)


def _shown(result: Result, record: dict[str, Any] | None, note: str) -> Shown:
    rows = [
        [
            item.label,
            None if item.score is None else round(item.score, 3),
            *(round(number, 1) for number in item.bounds or ()),
        ]
        for item in result.instances
    ]
    rows = [row + [None] * (6 - len(row)) for row in rows]
    words = [result.text] if result.text else []
    if record is not None:
        words += [f"sure: {result.score:.2f}"] if result.score is not None else []
        words += [f"not in the image: {phrase} ({result.presence[phrase]:.2f})" for phrase in result.absent]
        words += [f"left out, as they score less: {result.dropped}"] if result.dropped else []
        words = words or [f"{len(rows)} found" if rows else "nothing found"]
    return Shown(result.draw(max_side=LARGEST_SIDE), "\n".join(words), rows, record, note)


def _doubts(florence: Florence, result: Result) -> Iterator[str]:
    """What a visitor should know before believing the answer."""
    if result.foreign and florence.card is not None:
        yield (
            f"Unsure: {florence.card.name} was trained on {florence.card.trained_on}; for photographs start the page "
            f"with --checkpoint {florence.card.for_photographs}"
        )
    if result.parse_errors:
        yield f"Parse errors in the answer, dropped or repaired: {result.parse_errors}"
    if result.truncated:
        yield "The answer was cut short: it reached the most ids of its task"
