"""Mirrored images: what follows, and what must not be mirrored."""

import dataclasses

import numpy as np
import pytest

from florence_lite.data.annotation import Annotation, ObjectAnnotation, Question, Referral, TextLine
from florence_lite.data.augment import can_mirror, mirror
from florence_lite.geometry import rasterize
from tests.tiny import noise_image

PLAIN = Annotation(
    (90, 70),
    objects=(ObjectAnnotation("dog", (10.0, 5.0, 40.0, 30.0), (((10.0, 5.0), (40.0, 5.0), (20.0, 30.0)),)),),
    captions=("a bright dog",),
)


def test_mirror():
    image, annotation = mirror(noise_image(0), PLAIN)
    assert np.array_equal(np.asarray(image), np.asarray(noise_image(0))[:, ::-1])
    assert annotation.objects[0].box == (50.0, 5.0, 80.0, 30.0)
    before, after = (rasterize(each.objects[0].rings, (90, 70)) for each in (PLAIN, annotation))
    assert np.array_equal(after, before[:, ::-1])
    assert mirror(image, annotation)[1] == PLAIN


@pytest.mark.parametrize(
    ("changes", "possible"),
    [
        ({}, True),
        ({"captions": ("a dog on the left",)}, False),
        ({"captions": ("the Rightmost dog",)}, False),
        ({"captions": ("bright leftovers",)}, True),
        ({"lines": (TextLine("OPEN", (0, 0, 9, 0, 9, 9, 0, 9)),)}, False),
        ({"referrals": (Referral("the leftmost dog", (0,)),)}, False),
        ({"questions": (Question("what is right of the door?", "dog"),)}, False),
        ({"questions": (Question("what is it?", "left"),)}, False),
        ({"objects": (dataclasses.replace(PLAIN.objects[0], phrase="a dog at the top left"),)}, False),
    ],
)
def test_what_may_be_mirrored(changes, possible):
    annotation = dataclasses.replace(PLAIN, **changes)
    assert can_mirror(annotation) is possible
    if not possible:
        with pytest.raises(ValueError, match="would make wrong"):
            mirror(noise_image(0), annotation)
