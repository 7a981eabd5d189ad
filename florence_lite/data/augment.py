"""Changes of an image that its annotation follows."""

from __future__ import annotations

import re
from dataclasses import replace

from PIL import Image, ImageOps

from florence_lite.data.annotation import Annotation

_SIDES = re.compile(r"\b(left|right)(most)?\b", re.IGNORECASE)


def can_mirror(annotation: Annotation) -> bool:
    """Whether everything that is said about the image stays true, or can follow, when left and right change places.

    Mirrored text is no text, and words that tell sides would be wrong.
    """
    words = [*annotation.captions, *annotation.more_captions, *(item.phrase for item in annotation.objects)]
    words += [item.label for item in annotation.objects] + [region.text for region in annotation.regions]
    words += [referral.phrase for referral in annotation.referrals]
    words += [text for pair in annotation.questions for text in (pair.question, pair.answer)]
    return not annotation.lines and not any(_SIDES.search(text) for text in words)


def mirror(image: Image.Image, annotation: Annotation) -> tuple[Image.Image, Annotation]:
    """Image and annotation with left and right exchanged; ValueError where `can_mirror` says no."""
    if not can_mirror(annotation):
        raise ValueError("the annotation has text or tells sides, which mirroring would make wrong")
    width = annotation.size_wh[0]

    def box(values):
        x0, y0, x1, y1 = values
        return (width - x1, y0, width - x0, y1)

    objects = tuple(
        replace(
            item,
            box=box(item.box),
            rings=tuple(tuple((width - x, y) for x, y in reversed(ring)) for ring in item.rings),
        )
        for item in annotation.objects
    )
    regions = tuple(replace(region, box=box(region.box)) for region in annotation.regions)
    return ImageOps.mirror(image), replace(annotation, objects=objects, regions=regions)
