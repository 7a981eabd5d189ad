"""Instances and answers: what they take, what they refuse and which shape they have."""

import dataclasses

import numpy as np
import pytest

from florence_lite.answers import Answer, Instance

BOX = Instance("dog", box=(10, 20, 30, 60), score=0.75, tokens=(1, 6), coords_at=2)
QUAD = Instance("STOP", quad=(0, 0, 40, 10, 40, 30, 0, 20), score=0.5)
HOLED = Instance("ring", polygons=[[(0, 0), (10, 0), (10, 10), (0, 10)], [(2, 2), (8, 2), (8, 8), (2, 8)]], score=1)
WORDS = Instance("a sentence")


@pytest.mark.parametrize(
    ("instance", "kind", "bounds", "outlines"),
    [
        (BOX, "box", (10, 20, 30, 60), 1),
        (QUAD, "quad", (0, 0, 40, 30), 1),
        (HOLED, "polygons", (0, 0, 10, 10), 2),
        (WORDS, "label", None, 0),
    ],
)
def test_instances_know_their_shape(instance, kind, bounds, outlines):
    assert (instance.kind, instance.bounds, len(instance.outlines)) == (kind, bounds, outlines)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"box": (3, 0, 1, 1)}, "x0 <= x1"),
        ({"box": (0, 3, 1, 1)}, "y0 <= y1"),
        ({"box": (0, 1, 2)}, "box .* must be 4 finite numbers"),
        ({"box": (0, 0, 1, float("nan"))}, "must be 4 finite numbers"),
        ({"quad": (0, 1, 2, 3)}, "quad .* must be 8 finite numbers"),
        ({"polygons": [[(0, 0), (1, 1)]]}, "an outline has 2 points"),
        ({"polygons": [[(0, 0, 0), (1, 1, 1), (2, 2, 2)]]}, "point .* must be 2 finite numbers"),
        ({"box": (0, 0, 1, 1), "polygons": [[(0, 0), (1, 1), (0, 1)]]}, "one of box, quad and polygons"),
        ({"score": 1.5}, "score is 1.5"),
        ({"score": float("nan")}, "score is nan"),
    ],
)
def test_instances_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        Instance("dog", **fields)


def test_arrays_become_plain_numbers():
    instance = Instance("dog", box=np.array([1, 2, 3, 4]), score=np.float32(0.5))
    assert instance == Instance("dog", box=(1.0, 2.0, 3.0, 4.0), score=0.5)
    assert all(type(number) is float for number in (*instance.box, instance.score))
    ring = np.array([[0, 0], [4, 0], [4, 4]])
    assert Instance(polygons=[ring]) == Instance(polygons=(((0, 0), (4, 0), (4, 4)),))
    assert Instance(polygons=[]) == Instance()


def test_where_an_instance_comes_from_does_not_count():
    assert dataclasses.replace(BOX, tokens=None, coords_at=None) == BOX
    assert dataclasses.replace(BOX, score=0.1) != BOX


def test_answers_are_checked():
    assert Answer(instances=[BOX]).instances == (BOX,)
    with pytest.raises(ValueError, match="parse_errors is -1"):
        Answer(parse_errors=-1)
