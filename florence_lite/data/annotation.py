"""The truth about one image: what data sets are read into and what training targets are made from.

All coordinates are pixels of the upright image (EXIF orientation applied), x to the right and y down, as floats.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from florence_lite.answers import Box, Polygons, Quad, confidence, set_frozen
from florence_lite.geometry import mask_to_rings

LISTS = ("objects", "lines")  # what may be known to be complete


@dataclass(frozen=True)
class ObjectAnnotation:
    """One object.

    label: category name; "" for an object of which only a phrase is known.
    box: x0 y0 x1 y1 of the visible part.
    polygons: outlines of the visible part, each a tuple of (x, y); holes are further ones (even-odd). () if unknown.
    phrase: a short description of this very object ("a small red apple at the top left"), or "".
    score: how sure the model was that found it, in [0, 1]; None for what a person says. It does not count in
        comparisons.

    Raises ValueError for a box without area and a score outside of [0, 1].
    """

    label: str
    box: Box
    polygons: Polygons = ()
    phrase: str = ""
    score: float | None = field(default=None, compare=False)

    def __post_init__(self):
        _check_box(f"object {self.label!r}", self.box)
        set_frozen(self, "score", confidence(self.score))

    @classmethod
    def from_mask(cls, label: str, mask: ArrayLike, phrase: str = "", tolerance: float = 1.0) -> ObjectAnnotation:
        """The object that covers the pixels of a mask bool[H, W]; its outline may leave theirs by `tolerance` pixels.

        Raises ValueError for a mask of another shape and for one that is empty.
        """
        mask = np.asarray(mask, dtype=bool)
        outlines = mask_to_rings(mask, tolerance)
        if not outlines:
            raise ValueError(f"object {label!r}: its mask is empty")
        ys, xs = np.nonzero(mask)
        box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
        return cls(label, box, tuple(tuple((float(x), float(y)) for x, y in ring) for ring in outlines), phrase)


@dataclass(frozen=True)
class TextLine:
    """One line of text and its quadrilateral x0 y0 … x3 y3, clockwise from the top left of the reading direction.

    score: as in `ObjectAnnotation`.
    """

    text: str
    quad: Quad
    score: float | None = field(default=None, compare=False)

    def __post_init__(self):
        set_frozen(self, "score", confidence(self.score))
        if len(self.quad) != 8:
            raise ValueError(f"text line {self.text!r}: a quad has 8 numbers, not {len(self.quad)}")


@dataclass(frozen=True)
class Region:
    """A place of the image, x0 y0 x1 y1, and what it shows in words. Regions may overlap and never list all there is.

    Raises ValueError for a box without area or no words.
    """

    text: str
    box: Box

    def __post_init__(self):
        _check_box(f"region {self.text!r}", self.box)
        if not self.text.strip():
            raise ValueError(f"the region {self.box} has no text")


@dataclass(frozen=True)
class Stuff:
    """What has no parts that one could count: sky, grass, a wall.

    polygons: its outlines in pixels, even-odd rule; what stands before it counts to it: outlines stay simple.

    Raises ValueError without a label or outlines.
    """

    label: str
    polygons: Polygons

    def __post_init__(self):
        if not self.label.strip() or not self.polygons:
            raise ValueError(f"stuff {self.label!r} needs a label and outlines")

    @property
    def phrase(self) -> str:
        """As prompts ask for it."""
        return f"the {self.label}"


@dataclass(frozen=True)
class ReferringExpression:
    """A phrase and the objects (indices into `Annotation.objects`) that it means: none, one or several.

    kind: of a phrase that means none, how hard that is to see: "random" where nothing of the kind is in the image,
        "changed" where all but one of its attributes are true of something; "" where it is not known.
    """

    phrase: str
    objects: tuple[int, ...] = ()
    kind: str = ""


@dataclass(frozen=True)
class Question:
    """A question about the image and its short answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Annotation:
    """Everything known about one image; a task for which nothing is known is left out of training.

    size_wh: width and height of the image in pixels.
    captions: one sentence, a detailed description and a paragraph: "" for one that is unknown, () for all.
    more_captions: further sentences of the first kind, as COCO has five.
    exhaustive: which of "objects" and "lines" are all that there is in the image, so that () means "none". The others
        may be incomplete: what asks for all of them (detection, reading) is not trained on this image.
    ignored: objects that are neither looked for nor wrong to find: crowds, objects that are marked as difficult. The
        label "" is any. An image that has some is not trained on what asks for all objects.
    ignored_lines: text that cannot be read; its words are not known. A list of lines is complete without it.
    stuff: what the image shows beside its objects; () where nothing is known.
    wrong_captions: sentences that are not true of the image.
    negative: of an image that is known to have no objects, why it is known, in words for reports.

    Raises ValueError for a referring expression to an object that is not there and for another name in `exhaustive`.
    """

    size_wh: tuple[int, int]
    objects: tuple[ObjectAnnotation, ...] = ()
    lines: tuple[TextLine, ...] = ()
    captions: tuple[str, ...] = ()
    expressions: tuple[ReferringExpression, ...] = ()
    questions: tuple[Question, ...] = ()
    regions: tuple[Region, ...] = ()
    more_captions: tuple[str, ...] = ()
    exhaustive: frozenset[str] = frozenset(LISTS)
    ignored: tuple[ObjectAnnotation, ...] = ()
    ignored_lines: tuple[TextLine, ...] = ()
    stuff: tuple[Stuff, ...] = ()
    wrong_captions: tuple[str, ...] = ()
    negative: str = field(default="", compare=False)

    def __post_init__(self):
        for expression in self.expressions:
            outside = [i for i in expression.objects if not 0 <= i < len(self.objects)]
            if outside:
                raise ValueError(f"phrase {expression.phrase!r} names objects {outside}; there are {len(self.objects)}")
        if unknown := sorted(set(self.exhaustive) - set(LISTS)):
            raise ValueError(f"exhaustive holds {unknown}; it may hold {', '.join(LISTS)}")

    @property
    def is_negative(self) -> bool:
        """Whether the image is known to have no objects, not even ignored ones."""
        return "objects" in self.exhaustive and not self.objects and not self.ignored

    @property
    def has_all_objects(self) -> bool:
        """Whether `objects` holds everything that a list of all objects would have to name."""
        return "objects" in self.exhaustive and not self.ignored


def _check_box(what: str, box: Box) -> None:
    x0, y0, x1, y1 = box
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"{what}: box {box} must have x0 < x1 and y0 < y1")
