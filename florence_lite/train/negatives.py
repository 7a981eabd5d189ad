"""Phrases and sentences that are not true of an image, drawn from what a data set says of its other images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

import numpy as np

from florence_lite.data.annotation import Annotation, ReferringExpression
from florence_lite.data.samples import Dataset
from florence_lite.evaluate.metrics.measurement import same_label
from florence_lite.rules.grounding import names_of_categories

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


def _some(texts: tuple[str, ...], without: Iterable[str], rng: np.random.Generator) -> list[str]:
    """At most `DRAWN` of the texts, none of those that are left out."""
    left_out = {same_label(text) for text in without}
    chosen = (texts[place] for place in rng.permutation(len(texts)))
    return list(islice((text for text in chosen if same_label(text) not in left_out), DRAWN))
