"""Annotations refuse what cannot be true."""

import pytest

from florence_lite.data.annotation import Annotation, ObjectAnnotation, ReferringExpression, TextLine


@pytest.mark.parametrize("box", [(5, 0, 5, 9), (0, 9, 5, 9), (6, 0, 5, 9), (0, float("nan"), 5, 9)])
def test_empty_boxes(box):
    with pytest.raises(ValueError, match="object 'dog': box .* must have x0 < x1 and y0 < y1"):
        ObjectAnnotation("dog", box)


def test_quads_have_four_corners():
    with pytest.raises(ValueError, match="text line 'STOP': a quad has 8 numbers, not 4"):
        TextLine("STOP", (0, 0, 5, 5))


@pytest.mark.parametrize("objects", [(1,), (-1,), (0, 2)])
def test_referrals_name_objects_that_are_there(objects):
    with pytest.raises(ValueError, match=r"phrase 'the dog' names objects \[.*\]; there are 1"):
        Annotation(
            (9, 9), (ObjectAnnotation("dog", (0, 0, 5, 5)),), expressions=(ReferringExpression("the dog", objects),)
        )


def test_an_image_may_be_without_annotations():
    assert Annotation((9, 9)).objects == ()
