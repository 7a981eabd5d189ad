"""How well texts and images belong together, and which come first for which."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Ranking:
    """Images against texts.

    texts: the T texts.
    scores: float64 [I, T], the higher the better; their order says something, not their size.
    log_likelihoods: float64 [I, T], natural logarithm of the probability of each text, given each image.
    """

    texts: tuple[str, ...]
    scores: NDArray[np.float64]
    log_likelihoods: NDArray[np.float64]

    def texts_of(self, image: int) -> list[int]:
        """Places of all texts, those that suit this image (its place, from 0) best first.

        Raises ValueError for what is no place, IndexError where no image is.
        """
        return _best_first(self.scores[_place("image", image, len(self.scores))])

    def images_of(self, text: int) -> list[int]:
        """Places of all images, those that suit this text (its place, from 0) best first. Raises as `texts_of`."""
        return _best_first(self.scores[:, _place("text", text, len(self.texts))])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the names of the fields."""
        return {
            "texts": list(self.texts),
            "scores": self.scores.tolist(),
            "log_likelihoods": self.log_likelihoods.tolist(),
        }


def _place(what: str, place: Any, count: int) -> int:
    try:
        place = operator.index(place)
    except TypeError:
        raise ValueError(f"{what} is {place!r}; it must be the place of one, from 0 to {count - 1}") from None
    if not -count <= place < count:
        raise IndexError(f"{what} is {place}; there are {count}, from 0 to {count - 1}")
    return place


def _best_first(scores: NDArray[np.float64]) -> list[int]:
    return np.argsort(-scores, kind="stable").tolist()
