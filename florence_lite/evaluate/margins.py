"""How far a figure may lie from the one that all images like the measured ones would give."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from florence_lite.evaluate.metrics import Case

GROUPS = 20
STEPPED = ("ap50_one_class", "ap75_one_class")  # one curve, read at 101 places: it moves in steps or not at all
_T = 2.093  # of Student's distribution with GROUPS - 1 degrees of freedom, two sides, 95 %


def margins(
    measure: Callable[[Sequence[Case]], Mapping[str, float | None]], parts: Sequence[Sequence[Case]]
) -> dict[str, float | None]:
    """Half the width of each metric's 95 % interval, by a jackknife that leaves out one of `GROUPS` groups at a time.

    parts: the cases of images that belong together; at least `GROUPS` of them, or nothing can be said: {}. A metric
        that cannot be measured without one of the groups has None, and so has one of `STEPPED`, about which a jackknife
        says nothing: it comes out far above or below what a bootstrap gives.

    Source: Kott 2001, "The delete-a-group jackknife", Journal of Official Statistics 17 (4).
    """
    if len(parts) < GROUPS:
        return {}
    left = [
        measure([case for place, part in enumerate(parts) if place % GROUPS != group for case in part])
        for group in range(GROUPS)
    ]
    return {name: None if name in STEPPED else _margin([each[name] for each in left]) for name in left[0]}


def _margin(values: Sequence[float | None]) -> float | None:
    if None in values:
        return None
    mean = sum(values) / len(values)
    return _T * math.sqrt((GROUPS - 1) / GROUPS * sum((value - mean) ** 2 for value in values))
