"""What a rule gives: a prompt about an image, its truth, and what training has the model write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from florence_lite.answers import Answer, Instance, Polygons
from florence_lite.cards import INPUTS, TaskCard
from florence_lite.data.annotation import Annotation
from florence_lite.geometry import even_outlines
from florence_lite.tokens import grammar, marks_in

NAMES_OF_INPUTS = tuple(dict.fromkeys(name for names in INPUTS.values() for name in names))
NEGATIVES = 1 / 3  # share of the phrases that mean nothing; drawn evenly it would be half, and that is learned first


@dataclass(frozen=True)
class Pair:
    """One prompt about an image and its truth, in pixels of the image.

    inputs: what the task takes beside the image, as keyword arguments of `Florence.run`: "text", "phrases" or "region".
    instances: what a right answer finds; () where there is nothing to find.
    ignored: what is neither looked for nor wrong to find; the label "" is any.
    texts: the sentences or short answers that count as right; () where the task asks for places.
    targets: the answers that training may have the model write, drawn evenly; () for a prompt that is not trained.
        None: one for each text, or the instances. Outlines are whole here and are thinned when they are written.
    asked: whether evaluation asks this prompt.
    kind: of a phrase that means nothing, as in `ReferringExpression`; of a sentence that is not true, "wrong".
    objects: labels of all objects of the image, where a sentence may name any of them and all are known.
    fault: why the prompt cannot be asked, "" for one that can; it is neither trained nor asked, and whoever reads pairs
        reports it.

    Raises ValueError for inputs that no task takes, and for texts that are one string.
    """

    inputs: Mapping[str, Any] = field(default_factory=dict)
    instances: tuple[Instance, ...] = ()
    texts: tuple[str, ...] = ()
    targets: tuple[Answer, ...] | None = None
    asked: bool = True
    ignored: tuple[Instance, ...] = ()
    kind: str = ""
    fault: str = ""
    objects: tuple[str, ...] = ()

    def __post_init__(self):
        if unknown := sorted(set(self.inputs) - set(NAMES_OF_INPUTS)):
            raise ValueError(f"Pair.inputs has {unknown}; it may hold {', '.join(NAMES_OF_INPUTS)}")
        if isinstance(self.texts, str):
            raise ValueError(f"Pair.texts is {self.texts!r}; it must be a list of strings, such as [{self.texts!r}]")
        placed = "florence_lite.Instance objects"
        for name, kind, what in (
            ("texts", str, "strings"),
            ("instances", Instance, placed),
            ("ignored", Instance, placed),
        ):
            values = tuple(getattr(self, name))
            if strange := [value for value in values if not isinstance(value, kind)]:
                raise ValueError(f"Pair.{name} has {strange[0]!r}; it must hold {what}")
            object.__setattr__(self, name, values)

    @property
    def absent(self) -> bool:
        """Whether the right answer is that there is nothing."""
        return not self.instances and not self.texts

    @property
    def negative(self) -> bool:
        """Whether its words are not true of the image."""
        return self.absent or bool(self.kind)


Rule = Callable[[Annotation], Iterable[Pair]]
"""From what is known about an image to all prompts that it can check, each with its truth."""


def completed(pair: Pair, card: TaskCard, size_wh: tuple[int, int], marks: bool = False) -> Pair:
    """The pair with its targets, and instances in the order that the card of its task wants; without targets and not
    asked where its prompt has a fault.

    size_wh: of the image, in pixels. marks: whether the prompt may hold marks, because its rule wrote them on purpose.
    """
    if fault := _fault(pair, card, size_wh, marks):
        return replace(pair, targets=(), asked=False, fault=fault)
    targets = _targets(pair, card) if pair.targets is None else pair.targets
    if card.order == "given":
        return pair if targets is pair.targets else replace(pair, targets=targets)
    targets = tuple(replace(target, instances=_ordered(target.instances)) for target in targets)
    return replace(pair, instances=_ordered(pair.instances), targets=targets)


def _fault(pair: Pair, card: TaskCard, size_wh: tuple[int, int], marks: bool) -> str:
    """Why the prompt of a pair cannot be asked, or would be read as something else than its words; "" where it can."""
    try:
        card.prompt(**pair.inputs, size_wh=size_wh)
    except ValueError as error:
        return str(error)
    if marks:
        return ""
    for words in (pair.inputs.get("text"), *(pair.inputs.get("phrases") or ())):
        if found := [mark for mark in marks_in(words or "") if mark not in card.input_marks]:
            return f"task {card.name}: {words!r} holds {found[0]}, which a prompt does not take as words"
    return ""


def _targets(pair: Pair, card: TaskCard) -> tuple[Answer, ...]:
    if not pair.texts:
        return (Answer(instances=pair.instances),)
    if grammar(card.grammar).single:  # words about one box: the box is written too
        box = pair.inputs.get("region")
        return tuple(Answer(instances=(Instance(text, box=box),)) for text in pair.texts)
    return tuple(Answer(text) for text in pair.texts)


def _ordered(instances: tuple[Instance, ...]) -> tuple[Instance, ...]:
    """By top left corners."""
    return tuple(sorted(instances, key=lambda item: (item.bounds or ())[:2]))


def draw(pairs: Sequence[Pair], rng: np.random.Generator, negatives: float = NEGATIVES) -> tuple[Pair, Answer] | None:
    """One of all targets with its pair; None where there is nothing to train.

    If there are prompts whose words are true of the image and prompts whose words are not, a share of `negatives` is
    drawn from the latter.
    """
    choices = [(pair, target) for pair in pairs for target in pair.targets]
    negative = [choice for choice in choices if choice[0].negative]
    positive = [choice for choice in choices if not choice[0].negative]
    if negative and positive:
        choices = negative if rng.random() < negatives else positive
    return choices[int(rng.integers(len(choices)))] if choices else None


def thinned(answer: Answer, size_wh: tuple[int, int]) -> Answer:
    """The answer with outlines that a small model can be asked to write: few points, evenly spaced.

    An instance whose outlines are nowhere wide enough is left out. size_wh: of the image, in pixels.
    """
    if not any(item.polygons for item in answer.instances):
        return answer
    thin = (replace(item, polygons=_even(item.polygons, size_wh)) for item in answer.instances)
    kept = tuple(new for new, old in zip(thin, answer.instances, strict=True) if new.polygons or not old.polygons)
    return replace(answer, instances=kept)


@lru_cache(maxsize=1024)  # an object is asked for by several prompts
def _even(polygons: Polygons, size_wh: tuple[int, int]) -> Polygons:
    return tuple(tuple(map(tuple, ring.tolist())) for ring in even_outlines(polygons, size_wh))
