"""Phrases and sentences that are not true of an image, drawn from what a data set says of its other images."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

import numpy as np

from florence_lite.answers import same_label
from florence_lite.cards import own_rule
from florence_lite.cards import task as task_card
from florence_lite.data.annotation import Annotation, ReferringExpression
from florence_lite.data.samples import Dataset, Sample
from florence_lite.rules import pairs
from florence_lite.rules.grounding import names_of_categories

PHRASES = "<OPEN_VOCABULARY_DETECTION>"
OF_PHRASES, OF_SENTENCES = ("grounding.phrases", "segmentation.phrases"), ("matching.captions",)  # rules
DRAWN = 4  # labels, and captions, for an image: more than a batch asks of it


@dataclass(frozen=True)
class Negatives:
    """labels: all that a data set knows, in order. captions: the short ones, in order."""

    labels: tuple[str, ...]
    captions: tuple[str, ...]

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """What the images of a data set are said to show."""
        labels = {item.label for known in dataset.annotations for item in known.objects if item.label.strip()}
        captions = {text for known in dataset.annotations for text in known.captions[:1] if text.strip()}
        return cls(tuple(sorted(labels)), tuple(sorted(captions)))

    @classmethod
    def where_lacking(cls, task: str, samples: Sequence[Sample], count: int) -> Self | None:
        """Those of a data set, to measure `task` by, if of its first `count` images no prompt is untrue; None for one
        that has such prompts itself, and for generated samples."""
        if not isinstance(samples, Dataset):
            return None
        known = (pair for annotation in samples.annotations[:count] for pair in pairs(task, annotation))
        return None if any(pair.negative for pair in known) else cls.of(samples)

    def beside(self, sample: Sample) -> Annotation:
        """The annotation of a sample with what is untrue of it, the same in every call."""
        return self(sample.annotation, np.random.default_rng(zlib.crc32(sample.name.encode())))

    def __call__(self, annotation: Annotation, rng: np.random.Generator, whole: Annotation | None = None) -> Annotation:
        """The annotation with labels that the image does not show, if all of its objects are known, and with captions
        of other images, if it has one itself. What differs from its own in capitals or space alone is the same.

        whole: of the image that this one was cropped from; what it shows may still show at the border.
        """
        if annotation.has_all_objects:
            said = annotation.expressions or names_of_categories(annotation)
            shown = (*annotation.objects, *(whole.objects if whole else ()))
            own = [*(item.label for item in shown), *(expression.phrase for expression in said)]
            random = (ReferringExpression(label, kind="random") for label in _some(self.labels, own, rng))
            annotation = replace(annotation, expressions=(*said, *random))
        if own := [*annotation.captions, *annotation.more_captions]:
            wrong = (*annotation.wrong_captions, *_some(self.captions, own, rng))
            annotation = replace(annotation, wrong_captions=wrong)
        return annotation


def asks_untrue(task: str) -> bool:
    """Whether the rule of a task may ask for what is not true of an image: phrases, or sentences; a function of one's
    own may."""
    card = task_card(task)
    return own_rule(card.name) is not None or card.rule in (*OF_PHRASES, *OF_SENTENCES)


def why_none(task: str, dataset: Dataset) -> str:
    """Why a task that `asks_untrue` can ask nothing of the sort about a data set, neither what it says itself nor what
    `Negatives` draw; "" where it can, and for a function of one's own."""
    known, card = dataset.annotations, task_card(task)
    if own_rule(card.name):
        return ""
    if card.rule in OF_SENTENCES:
        captioned = [{same_label(text) for text in (*a.captions, *a.more_captions)} - {""} for a in known]
        captions = {same_label(text) for a in known for text in a.captions[:1]} - {""}
        if any(a.wrong_captions for a in known) or any(own and captions - own for own in captioned):
            return ""
        return "no image has a caption that another lacks" if any(captioned) else "no image has a caption"
    if any(not expression.objects for a in known for expression in a.expressions):
        return ""
    complete = [a for a in known if a.has_all_objects]
    if not complete:
        return "of no image are all objects known, so that nothing is known to be absent"
    labels = {same_label(item.label) for a in known for item in a.objects} - {""}
    if any(labels - {same_label(item.label) for item in a.objects} for a in complete):
        return ""
    return "no label of the data set is missing in an image all of whose objects are known"


def _some(texts: tuple[str, ...], without: Iterable[str], rng: np.random.Generator) -> list[str]:
    """At most `DRAWN` of the texts, none of those that are left out."""
    left_out = {same_label(text) for text in without}
    chosen = (texts[place] for place in rng.permutation(len(texts)))
    return list(islice((text for text in chosen if same_label(text) not in left_out), DRAWN))
