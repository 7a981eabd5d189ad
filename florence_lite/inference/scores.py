"""Scores of answers and of the instances in them, from the network's own probabilities of the ids it wrote.

Every score is a probability or a product of probabilities, whatever the length of the answer, and falls where the
network guesses: on pictures that it knows nothing about too (`benchmarks/scores.py` measures it).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from florence_lite.answers import Instance
from florence_lite.geometry import dequantize

TOLERANCE = 1 / 40  # of the image's side: a coordinate counts as sure if the network puts no other farther off
COORDINATES = 4  # of a box
LOWEST = 1e-6  # scores lie in [LOWEST, 1 - LOWEST]: float32 rounds a confident probability to exactly 1


def score_instances(
    instances: tuple[Instance, ...],
    token_logprobs: NDArray[np.float64],
    location_logprobs: NDArray[np.float64],
    tolerance_logprobs: NDArray[np.float64],
    presence: float | None = None,
) -> tuple[Instance, ...]:
    """The instances with their scores: P(label) · P(one more begins here) · P(it lies here).

    token_logprobs: [T], log-probability of every id the instances were read from.
    location_logprobs: [T], log of the summed probability of all location ids in place of each of them.
    tolerance_logprobs: [T], log of how probable it is among all locations that each id is one within `TOLERANCE` of the
        one that was written; NaN for ids that are no locations.
    presence: of the phrase that all of them answer, where it was asked.

    The first factor is that of `probability_of_words`; instances that share a label share it, and it is 1 where there
    are no words. The second says how sure the network is to place one more instance rather than to stop or to go on to
    another label: the probability of `<poly>` where that opens the coordinates, else of all locations together, because
    a sure detector spreads its first coordinate over neighbouring bins. The third is the probability that all four
    coordinates of a box lie within the tolerance; of a shape with more of them, that of four average ones.
    Of a phrase, its presence stands for the first two factors of the first instance: the same question, calibrated.
    None for an instance whose place in the ids is unknown.
    """
    scored = []
    label = 1.0
    for instance in instances:
        if instance.tokens is None:
            scored.append(instance)
            continue
        start, end = instance.tokens
        label_end = end if instance.coords_at is None else instance.coords_at
        if label_end > start:
            label = probability_of_words(token_logprobs[start:label_end])
        elif not instance.label:
            label = 1.0
        placed = 0.0
        if instance.coords_at is not None:
            is_location = not np.isnan(tolerance_logprobs[instance.coords_at])
            opening = (location_logprobs if is_location else token_logprobs)[instance.coords_at]
            within = tolerance_logprobs[instance.coords_at : end]
            sure_of_place = COORDINATES * within[~np.isnan(within)].mean()
            placed = opening + sure_of_place
            if presence is not None:
                scored.append(replace(instance, score=_inside(presence * np.exp(sure_of_place))))
                presence = None
                continue
        scored.append(replace(instance, score=_inside(label * np.exp(placed))))
    return tuple(scored)


def average_boxes(
    instances: tuple[Instance, ...], mean_bins: NDArray[np.float64], size_wh: tuple[int, int], bins: int
) -> tuple[Instance, ...]:
    """The instances, each coordinate of a box moved to the mean of the network's distribution near the bin that it
    wrote, which lies nearer to the truth than the likeliest bin alone (`benchmarks/scores_ap.py` measures it).

    mean_bins: [T], for every id the mean bin within `TOLERANCE` of it; NaN for ids that are no locations. Means lie
    between the centres of bins, and corners stay in order. Quads and polygons stay as they are written.
    """
    averaged = []
    for instance in instances:
        if instance.box is not None and instance.tokens is not None:
            means = mean_bins[instance.coords_at : instance.tokens[1]]
            means = means[~np.isnan(means)]
            if len(means) == COORDINATES:
                corners = np.sort(means.reshape(2, 2), axis=0)
                (x0, y0), (x1, y1) = dequantize(corners, size_wh, bins)
                instance = replace(instance, box=(x0, y0, x1, y1))
        averaged.append(instance)
    return tuple(averaged)


def score_words(token_logprobs: NDArray[np.float64]) -> float | None:
    """The score of words, `probability_of_words` of the log-probabilities [T] of their ids; None where T is 0."""
    return _inside(probability_of_words(token_logprobs)) if len(token_logprobs) else None


def probability_of_words(token_logprobs: NDArray[np.float64]) -> float:
    """Mean probability of the less likely half of ids, from their log-probabilities [T], T at least 1; an odd one more
    belongs to it.

    The likelier half are ids that follow from those before them ("a", "on the", the rest of a long word), whatever the
    picture shows. A mean, since one id that a rule of the decoding forced into the answer should not decide it.
    """
    half = math.ceil(len(token_logprobs) / 2)
    return float(np.exp(np.sort(token_logprobs)[:half]).mean())


def _inside(probability: float) -> float:
    """Kept strictly between 0 and 1."""
    return float(np.clip(probability, LOWEST, 1 - LOWEST))
