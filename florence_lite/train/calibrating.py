"""Fitting the calibration of a checkpoint: what its log-odds of phrases mean on annotated images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from florence_lite.cards import Calibration
from florence_lite.data.samples import Sample
from florence_lite.evaluate.metrics.measurement import needed
from florence_lite.evaluate.metrics.presence import BINS, calibration_error
from florence_lite.evaluate.negatives import PHRASES, Negatives
from florence_lite.florence import Florence
from florence_lite.inference import IMAGES_AT_ONCE
from florence_lite.progress import progress_bar
from florence_lite.rules import pairs

FEWEST = 8  # phrases of either kind, in either half


class Judged(NamedTuple):
    """The log-odds that a checkpoint gives a phrase, and whether it means something in its image."""

    log_odds: float
    present: bool


@dataclass(frozen=True)
class Fitted:
    """A calibration with what was measured on images that it was not fitted on.

    ece_before, ece_after: expected calibration error without it and with it. present, absent: phrases that it was
        fitted on; held_out: phrases of the other images. problems: images that were left out.
    """

    calibration: Calibration
    ece_before: float
    ece_after: float
    present: int
    absent: int
    held_out: tuple[Judged, ...]
    problems: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; of the phrases that were held out, their number."""
        return asdict(self) | {"held_out": len(self.held_out)}

    def draw(self, file: Path) -> None:
        """A reliability diagram before and after: how often phrases of a presence are present, and how many there are.
        Needs matplotlib (extra `vis`)."""
        figure = needed("matplotlib.figure").Figure(figsize=(9, 4.8), layout="constrained")
        rows = figure.subplots(2, 2, sharex=True, height_ratios=(3, 1))
        ways = (("before", Calibration(), self.ece_before), ("after", self.calibration, self.ece_after))
        present = np.array([each.present for each in self.held_out])
        for (top, bottom), (name, calibration, error) in zip(rows.T, ways, strict=True):
            presence = np.array([calibration.presence(each.log_odds) for each in self.held_out])
            edges = np.linspace(0, 1, BINS + 1)
            place = np.clip(np.digitize(presence, edges) - 1, 0, BINS - 1)
            filled = [number for number in range(BINS) if (place == number).any()]
            top.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
            top.plot(
                [presence[place == number].mean() for number in filled],
                [present[place == number].mean() for number in filled],
                marker="o",
            )
            top.axvline(calibration.threshold, color="tab:red", linewidth=1)
            top.set(title=f"{name}: ECE {error:.3f}", ylabel="share that is present", ylim=(-0.02, 1.02))
            bottom.hist([presence[present], presence[~present]], edges, stacked=True, label=["present", "absent"])
            bottom.set(xlabel="presence (red: threshold)", ylabel="phrases", xlim=(0, 1))
            bottom.legend(fontsize="small")
        figure.savefig(file)


def calibrate(florence: Florence, samples: Sequence[Sample], count: int | None = None, about: str = "") -> Fitted:
    """Fit a calibration on every other image, and measure it on those between.

    samples: annotated images that the checkpoint was not trained on; the first `count` of them if it is given. Phrases
        and whether they mean something come from the rule of `<OPEN_VOCABULARY_DETECTION>`; of a data set whose phrases
        all mean something, those that mean nothing are other labels of it, where all objects of an image are known.
    about: on what it was fitted, in words.

    beta and temperature are those of greatest likelihood (`fit`), at the share of present phrases that the data have;
    the threshold is that of the best F1 of telling present phrases on the same images. Images that cannot be read are
    left out and told.

    Raises ValueError where there are too few phrases that mean something or nothing, and where the checkpoint does not
    tell them apart; ModuleNotFoundError, with the remedy, where torchmetrics is missing.
    """
    needed("torchmetrics")
    number = len(samples) if count is None else min(count, len(samples))
    judged: tuple[list[Judged], list[Judged]] = ([], [])
    problems: list[str] = []
    with progress_bar(number > IMAGES_AT_ONCE) as progress:
        bar = progress.add_task("images", total=number)
        for place, phrases in enumerate(_phrases(samples, number)):
            try:
                judged[place % 2].extend(judge(florence, samples[place], phrases))
            except (ValueError, OSError) as error:
                problems.append(f"{samples[place].name}: {error}")
            progress.advance(bar)
    for half in judged:
        present = sum(each.present for each in half)
        if min(present, len(half) - present) < FEWEST:
            raise ValueError(
                f"half of the {number} images have {present} phrases that mean something and {len(half) - present} "
                f"that mean nothing; at least {FEWEST} of each are needed: take more images, or such with phrases of "
                "both kinds"
            )
    fitted, held_out = judged
    calibration = fit(fitted, about)
    ece_before, ece_after = (
        calibration_error([each.presence(one.log_odds) for one in held_out], [one.present for one in held_out])
        for each in (Calibration(), calibration)
    )
    present = sum(each.present for each in fitted)
    absent = len(fitted) - present
    return Fitted(calibration, ece_before, ece_after, present, absent, tuple(held_out), tuple(problems))


def judge(florence: Florence, sample: Sample, phrases: Iterable[tuple[str, bool]]) -> list[Judged]:
    """What the checkpoint says of phrases about an image, with whether they mean something in it."""
    known = dict(phrases)
    if not known:
        return []
    log_odds = florence.answering.log_odds(florence.encode(sample.load(), keep_image=False), list(known))
    return [Judged(log_odds[phrase], present) for phrase, present in known.items()]


def fit(judged: Sequence[Judged], about: str = "") -> Calibration:
    """Logistic regression with two parameters, by its maximum likelihood, and the threshold of the best F1.

    Source: Platt 1999, "Probabilistic outputs for support vector machines", with its targets just short of 0 and 1, so
    that phrases that are told apart without a fault give no infinite certainty. Raises ValueError where higher log-odds
    are no sign of presence.
    """
    log_odds = torch.tensor([each.log_odds for each in judged], dtype=torch.float64)
    present = torch.tensor([each.present for each in judged], dtype=torch.float64)
    positive, negative = present.sum(), (1 - present).sum()
    targets = torch.where(present > 0, (positive + 1) / (positive + 2), 1 / (negative + 2))
    weight = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)  # of the log-odds, and the constant
    optimizer = torch.optim.LBFGS([weight], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(weight[0] * log_odds + weight[1], targets)
        value.backward()
        return value

    optimizer.step(loss)
    slope, constant = weight.detach().tolist()
    if not slope > 1e-3:
        raise ValueError(
            f"the checkpoint's log-odds of {len(judged)} phrases do not tell those that mean something from those that "
            "mean nothing: it cannot be calibrated; train it on phrases of both kinds"
        )
    calibration = Calibration(-constant / slope, min(1e3, max(1e-3, 1 / slope)))
    presence = np.array([calibration.presence(each.log_odds) for each in judged])
    threshold = best_threshold(presence, present.numpy() > 0)
    return Calibration(calibration.beta, calibration.temperature, threshold, about)


def best_threshold(presence: np.ndarray, present: np.ndarray) -> float:
    """The presence from which to answer so that F1 is best: halfway between two phrases, the lowest of equals."""
    order = np.argsort(-presence, kind="stable")
    right = np.cumsum(present[order])
    f1 = 2 * right / (np.arange(1, len(order) + 1) + present.sum())
    sorted_ = presence[order]
    apart = np.append(sorted_[:-1] > sorted_[1:], True)  # equal ones are answered alike
    last = int(np.flatnonzero(apart & (f1 == f1[apart].max()))[-1])
    below = sorted_[last + 1] if last + 1 < len(order) else 0.0
    return float((sorted_[last] + below) / 2)


def _phrases(samples: Sequence[Sample], number: int) -> Iterable[list[tuple[str, bool]]]:
    """For each image its phrases, each with whether it means something."""
    negatives = Negatives.where_lacking(PHRASES, samples, number)
    for sample in (samples[place] for place in range(number)):
        annotation = negatives.beside(sample) if negatives else sample.annotation
        asked = [pair for pair in pairs(PHRASES, annotation) if pair.asked]
        yield [(pair.inputs["phrases"][0].strip(), bool(pair.instances)) for pair in asked]
