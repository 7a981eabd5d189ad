"""Scores of answers and of the instances in them, from the network's own probabilities of the ids it wrote."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from florence_lite.answers import Instance

TOLERANCE = 1 / 40  # of the image's side: a coordinate counts as sure if the network puts no other farther off
LOWEST = 1e-6  # scores lie in [LOWEST, 1 - LOWEST]: float32 rounds a confident probability to exactly 1


def score_instances(
    instances: tuple[Instance, ...],
    token_logprobs: NDArray[np.float64],
    location_logprobs: NDArray[np.float64],
    tolerance_logprobs: NDArray[np.float64],
) -> tuple[Instance, ...]:
    """The instances with their scores: P(label)^(1/length) · P(coordinates) · P(in tolerance)^(1/coordinates).

    token_logprobs: [T], log-probability of every id the instances were read from.
    location_logprobs: [T], log of the summed probability of all location ids in place of each of them. The sum counts,
        not the chosen coordinate alone, because a sure detector spreads its first coordinate over neighbouring bins.
    tolerance_logprobs: [T], log of how probable it is among all locations that each id is one within `TOLERANCE` of the
        one that was written; NaN for ids that are no locations.

    The first factor is the geometric mean over the label's ids; instances that share a label share it, and it is 1
    where there are no words. The second says how sure the model is to place one more instance rather than to stop or
    to go on to another label. None for an instance whose place in the ids is unknown.
    """
    scored = []
    label_logprob = 0.0
    for instance in instances:
        if instance.tokens is None:
            scored.append(instance)
            continue
        start, end = instance.tokens
        label_end = end if instance.coords_at is None else instance.coords_at
        if label_end > start:
            label_logprob = float(token_logprobs[start:label_end].mean())
        elif not instance.label:
            label_logprob = 0.0
        # `<poly>` opens a polygon as a location opens a box; its own probability counts.
        opening = place = 0.0
        if instance.coords_at is not None:
            opening = max(location_logprobs[instance.coords_at], token_logprobs[instance.coords_at])
            within = tolerance_logprobs[instance.coords_at : end]
            place = float(within[~np.isnan(within)].mean())
        scored.append(replace(instance, score=probability(label_logprob + opening + place)))
    return tuple(scored)


def score_text(token_logprobs: NDArray[np.float64]) -> float | None:
    """Geometric mean of the probabilities of all ids of an answer; None for an empty one."""
    return probability(token_logprobs.mean()) if len(token_logprobs) else None


def probability(logprob: float) -> float:
    """exp, kept strictly between 0 and 1."""
    return float(np.clip(np.exp(logprob), LOWEST, 1 - LOWEST))
