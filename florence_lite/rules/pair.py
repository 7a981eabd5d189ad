"""What a rule gives: a prompt about an image, its truth, and what training has the model write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from florence_lite.answers import Answer, Instance, Polygons
from florence_lite.cards import TaskCard
from florence_lite.data.annotation import Annotation
from florence_lite.geometry import simplify_ring
from florence_lite.tokens import grammar

INPUTS = ("text", "phrases", "region")
ABSENT_SHARE = 1 / 3  # of the phrases asked for; drawn evenly, half would mean nothing, and that is learned first
OUTLINE_TOLERANCE = 0.015  # how far a thinned outline may leave the true one, as a share of the image's shorter side


@dataclass(frozen=True)
class Pair:
    """One prompt about an image and its truth, in pixels of the image.

    inputs: what the task takes beside the image, as keyword arguments of `Florence.run`: "text", "phrases" or "region".
    instances: what a right answer finds; () where there is nothing to find.
    texts: the sentences or short answers that count as right; () where the task asks for places.
    targets: the answers that training may have the model write, drawn evenly; () for a prompt that is not trained.
        None: one for each text, or the instances. Outlines are whole here and are thinned when they are written.
    asked: whether evaluation asks this prompt.

    Raises ValueError for inputs that no task takes, and for texts that are one string.
    """

    inputs: Mapping[str, Any] = field(default_factory=dict)
    instances: tuple[Instance, ...] = ()
    texts: tuple[str, ...] = ()
    targets: tuple[Answer, ...] | None = None
    asked: bool = True

    def __post_init__(self):
        if unknown := sorted(set(self.inputs) - set(INPUTS)):
            raise ValueError(f"Pair.inputs has {unknown}; it may hold {', '.join(INPUTS)}")
        if isinstance(self.texts, str):
            raise ValueError(f"Pair.texts is {self.texts!r}; it must be a list of strings, such as [{self.texts!r}]")
        object.__setattr__(self, "instances", tuple(self.instances))
        object.__setattr__(self, "texts", tuple(self.texts))

    @property
    def absent(self) -> bool:
        """Whether the right answer is that there is nothing."""
        return not self.instances and not self.texts


Rule = Callable[[Annotation], Iterable[Pair]]
"""From what is known about an image to all prompts that it can check, each with its truth."""


def completed(pair: Pair, card: TaskCard) -> Pair:
    """The pair with its targets, and instances in the order that the card of its task wants."""
    targets = _targets(pair, card) if pair.targets is None else pair.targets
    targets = tuple(replace(target, instances=_ordered(target.instances, card)) for target in targets)
    return replace(pair, instances=_ordered(pair.instances, card), targets=targets)


def _targets(pair: Pair, card: TaskCard) -> tuple[Answer, ...]:
    if not pair.texts:
        return (Answer(instances=pair.instances),)
    if grammar(card.grammar).single:  # words about one box: the box is written too
        box = pair.inputs.get("region")
        return tuple(Answer(instances=(Instance(text, box=box),)) for text in pair.texts)
    return tuple(Answer(text) for text in pair.texts)


def _ordered(instances: tuple[Instance, ...], card: TaskCard) -> tuple[Instance, ...]:
    if card.order == "given":
        return instances
    return tuple(sorted(instances, key=lambda item: (item.bounds or ())[:2]))


def draw(pairs: Sequence[Pair], rng: np.random.Generator) -> tuple[Pair, Answer] | None:
    """One of all targets with its pair; None where there is nothing to train.

    Where some prompts mean nothing in the image and others something, `ABSENT_SHARE` of the draws are of the former.
    """
    choices = [(pair, target) for pair in pairs for target in pair.targets]
    absent = [choice for choice in choices if choice[0].absent]
    present = [choice for choice in choices if not choice[0].absent]
    if absent and present:
        choices = absent if rng.random() < ABSENT_SHARE else present
    return choices[int(rng.integers(len(choices)))] if choices else None


def thinned(answer: Answer, size_wh: tuple[int, int]) -> Answer:
    """The answer with outlines of so few points that a small model can be asked to write them.

    An instance whose outlines are nowhere wide enough is left out. size_wh: of the image, in pixels.
    """
    tolerance = OUTLINE_TOLERANCE * min(size_wh)
    thin = (
        replace(item, polygons=_thin(item.polygons, tolerance)) if item.polygons else item for item in answer.instances
    )
    kept = tuple(new for new, old in zip(thin, answer.instances, strict=True) if new.polygons or not old.polygons)
    return replace(answer, instances=kept)


def _thin(polygons: Polygons, tolerance: float) -> Polygons:
    return tuple(thin for ring in polygons if len(thin := simplify_ring(np.array(ring), tolerance)) >= 3)
