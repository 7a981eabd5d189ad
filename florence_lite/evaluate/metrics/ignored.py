"""Answers that lie in something ignored: a crowd, a difficult object, text that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from florence_lite.answers import Instance, same_label
from florence_lite.evaluate.metrics.measurement import needed

WITHIN = 0.5  # share of an answer's area that lies in something ignored, from which it is neither right nor wrong


def in_ignored(answered: Sequence[Instance], ignored: Sequence[Instance]) -> list[bool]:
    """Of each answer, whether it lies by `WITHIN` in something ignored of its label, or of the label "", which is any.

    The rule of COCO's crowds, with areas of the first outlines from `shapely`.
    """
    if not ignored or not answered:
        return [False] * len(answered)
    shared, area, _ = outline_areas(answered, ignored)
    alike = np.array([[same_label(b.label) in ("", same_label(a.label)) for b in ignored] for a in answered])
    inside = alike & (shared >= WITHIN * area[:, None]) & (shared > 0)
    return np.any(inside, axis=1).tolist()


def outline_areas(a: Sequence[Instance], b: Sequence[Instance]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Areas of the first outlines: shared float64[N, M], of each of a [N] and of each of b [M].

    A quad that crosses itself counts with the parts that it encloses; an instance without coordinates has none.
    """
    shapely = needed("shapely")
    left, right = (
        shapely.make_valid([shapely.Polygon(i.outlines[0] if i.outlines else ()) for i in items]) for items in (a, b)
    )
    return shapely.area(shapely.intersection(left[:, None], right[None, :])), shapely.area(left), shapely.area(right)
