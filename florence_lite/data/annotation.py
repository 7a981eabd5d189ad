"""The truth about one image: what data sets are read into and what training targets are made from.

All coordinates are pixels of the image, x to the right and y down, as floats.
"""

from __future__ import annotations

from dataclasses import dataclass

from florence_lite.results import Box, Rings


@dataclass(frozen=True)
class ObjectAnnotation:
    """One object.

    label: category name.
    box: x0 y0 x1 y1 of the visible part.
    rings: outlines of the visible part, each a tuple of (x, y); holes are further rings (even-odd rule). May be empty.
    phrase: a short description of this very object ("a small red apple at the top left"), or "".
    """

    label: str
    box: Box
    rings: Rings = ()
    phrase: str = ""

    def __post_init__(self):
        x0, y0, x1, y1 = self.box
        if not (x0 < x1 and y0 < y1):
            raise ValueError(f"object {self.label!r}: box {self.box} must have x0 < x1 and y0 < y1")


@dataclass(frozen=True)
class TextLine:
    """One line of text and its quadrilateral x0 y0 … x3 y3, clockwise from the top left of the reading direction."""

    text: str
    quad: tuple[float, ...]

    def __post_init__(self):
        if len(self.quad) != 8:
            raise ValueError(f"text line {self.text!r}: a quad has 8 numbers, not {len(self.quad)}")


@dataclass(frozen=True)
class Referral:
    """A phrase and the objects (indices into `Annotation.objects`) that it means: none, one or several."""

    phrase: str
    objects: tuple[int, ...] = ()


@dataclass(frozen=True)
class Question:
    """A question about the image and its short answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Annotation:
    """Everything known about one image; a task for which nothing is known is left out of training.

    captions: one sentence, a detailed description and a paragraph, or () where unknown.
    """

    size_wh: tuple[int, int]
    objects: tuple[ObjectAnnotation, ...] = ()
    lines: tuple[TextLine, ...] = ()
    captions: tuple[str, ...] = ()
    referrals: tuple[Referral, ...] = ()
    questions: tuple[Question, ...] = ()

    def __post_init__(self):
        for referral in self.referrals:
            outside = [i for i in referral.objects if not 0 <= i < len(self.objects)]
            if outside:
                raise ValueError(f"phrase {referral.phrase!r} names objects {outside}; there are {len(self.objects)}")
