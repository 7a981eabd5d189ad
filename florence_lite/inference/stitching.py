"""A line of text that the borders of tiles cut: its parts as one line, without doubled words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from florence_lite.answers import Instance

GAP = 0.3  # of the width of a letter; parts that are farther from each other have a space between them
MARGIN = 0.3  # of the letters that two parts seem to share: letters are not equally wide


def stitched(parts: Sequence[Instance]) -> Instance:
    """Parts of one line of text, quads that may overlap, as one: their words joined in reading direction, the quad from
    the start of the first to the end of the last, and the score of the surest. No part is a shorter view of another.
    """
    longest = max(parts, key=lambda part: np.linalg.norm(_ends(part)[1] - _ends(part)[0]))
    start, end = _ends(longest)
    direction = (end - start) / (np.linalg.norm(end - start) or 1)
    spans = {id(part): [float(point @ direction) for point in _ends(part)] for part in parts}
    first, *others = sorted(parts, key=lambda part: spans[id(part)])
    words, last = first.label, first
    for part in others:
        (begin, stop), (before_begin, before_stop) = spans[id(part)], spans[id(last)]
        if stop <= before_stop:
            continue
        letter = (stop - begin) / max(1, len(part.label))
        shared = before_stop - begin
        if shared < letter / 2:
            words += (" " if -shared > GAP * letter else "") + part.label
        else:
            of_words = shared / max(before_stop - before_begin, 1e-9) * len(last.label)
            words = joined_words(words, part.label, of_words, shared / letter)
        last = part
    quad = (*first.quad[:2], *last.quad[2:6], *first.quad[6:])
    score = max((part.score for part in parts if part.score is not None), default=None)
    return replace(longest, label=words, quad=quad, score=score, tokens=None, coords_at=None)


def joined_words(left: str, right: str, of_left: float, of_right: float) -> str:
    """Two readings of one line as one, where both have read the same stretch: about the last `of_left` letters of
    `left` and the first `of_right` of `right`.

    They are laid over each other so that the longest run of letters agrees, less a letter for each by which the stretch
    is longer or shorter than thought, and joined there. Letters that a border cuts are read wrongly: those of `left`
    behind the run and those of `right` before it are left out. Where nothing agrees, each gives half of the stretch.
    """
    shared = (of_left + of_right) / 2
    margin = math.ceil(MARGIN * shared) + 1
    best = (0.0, 0, 0)
    for letters in range(max(1, round(shared) - margin), min(len(left), round(shared) + margin) + 1):
        start, end = _longest_run(left[len(left) - letters :], right)
        best = max(best, (end - start - abs(letters - shared), len(left) - letters + end, end))
    if best[0] > 0:
        return left[: best[1]] + right[best[2] :]
    return left[: len(left) - round(of_left / 2)] + right[round(of_right / 2) :]


def _longest_run(one: str, other: str) -> tuple[int, int]:
    """[start, end) of the longest stretch of places where two texts have the same letters."""
    best, start = (0, 0), 0
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            start = place + 1
        elif place + 1 - start > best[1] - best[0]:
            best = start, place + 1
    return best


def _ends(part: Instance) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The middles of the sides of a quad where reading starts and where it ends."""
    corners = np.array(part.quad).reshape(4, 2)
    return corners[[0, 3]].mean(0), corners[[1, 2]].mean(0)
