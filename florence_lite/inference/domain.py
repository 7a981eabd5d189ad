"""Pictures of a kind that a checkpoint knows nothing about: told by what its vision tower sees, or by answers that are
sure of nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from florence_lite.answers import Answer
from florence_lite.cards import CheckpointCard

FILE = "domain.safetensors"
UNSURE = 0.4  # score below which an answer, or the best instance of a list, counts as a guess
SURE = 0.75  # from which an instance in a picture of another kind counts as none
UNHEARD = math.inf  # the same for what an unknown word asks for: there the network is sure of anything
AXES = 32  # principal components; with more of them, cells under a microscope look like scenes
SHARE = 0.99  # of the known pictures that lie within the limit


@dataclass(frozen=True)
class Domain:
    """What a vision tower sees in the pictures that it was trained on.

    A picture is taken as the mean and the deviation over its image tokens, float32 [2 D], and compared by its place on
    the principal components of these: the mean square of its deviations (Mahalanobis's distance, a share of it).

    mean: [2 D]. axes: [2 D, K], the components, each divided by the deviation along it.
    limit: the distance that `SHARE` of the pictures of the training's kind do not exceed.
    """

    mean: Tensor
    axes: Tensor
    limit: float

    @classmethod
    def fit(cls, training: Iterable[Tensor], held_out: Iterable[Tensor]) -> Domain:
        """From the features [N, D] of pictures of the training, and of others of their kind, which set the limit."""
        seen = torch.stack([_summary(features) for features in training])
        centred = (seen - seen.mean(0)).double()
        variances, components = torch.linalg.eigh(centred.T @ centred / (len(seen) - 1))  # ascending
        axes = components[:, -AXES:] / variances[-AXES:].sqrt()
        domain = cls(seen.mean(0), axes.float(), 0.0)
        distances = torch.tensor([domain.distance(features) for features in held_out])
        return cls(domain.mean, domain.axes, float(distances.quantile(SHARE)))

    @classmethod
    def read(cls, folder: Path) -> Domain | None:
        """From a checkpoint's folder; None where it has none. Raises ValueError for a damaged file."""
        file = folder / FILE
        if not file.is_file():
            return None
        try:
            tensors = load_file(file)
            domain = cls(tensors["mean"].float(), tensors["axes"].float(), float(tensors["limit"]))
        except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
            raise ValueError(f"{file} is damaged ({error}); copy it again") from None
        if domain.axes.ndim != 2 or domain.mean.shape != domain.axes.shape[:1]:
            raise ValueError(f"{file} is damaged: its parts are of other sizes; copy it again")
        return domain

    def write(self, folder: Path) -> Path:
        """Into a checkpoint's folder, whose card must then have the digest of the file."""
        save_file({"mean": self.mean, "axes": self.axes.contiguous(), "limit": torch.tensor(self.limit)}, folder / FILE)
        return folder / FILE

    def distance(self, features: Tensor) -> float:
        """Of a picture by its features [N, D]; 1 on average for those of the training."""
        return float(((_summary(features) - self.mean) @ self.axes).square().mean())

    def holds(self, features: Tensor) -> bool:
        """Whether a picture is of the training's kind. Raises ValueError for features of another tower."""
        if 2 * features.shape[-1] != len(self.mean):
            raise ValueError(f"{FILE} is of a tower of width {len(self.mean) // 2}, not {features.shape[-1]}")
        return self.distance(features) <= self.limit


def _summary(features: Tensor) -> Tensor:
    features = features.float().cpu()
    return torch.cat([features.mean(0), features.std(0, correction=0)])


def least_score(known: bool, heard: bool = True) -> float:
    """Below which an instance of a foreign answer is a guess.

    known: whether the vision tower knows the picture. heard: whether the training asked with all words of the prompt.
    """
    if not heard:
        return UNHEARD
    return UNSURE if known else SURE


def is_foreign(card: CheckpointCard | None, is_known: Callable[[], bool], answer: Answer, score: float | None) -> bool:
    """Whether an answer of a checkpoint that knows one kind of pictures, as its card says, is about another kind, or is
    sure of nothing.

    is_known: whether its vision tower knows pictures like this one.
    score: of the answer as a whole, or None where its instances have their own. An answer without instances claims
    nothing and counts as sure.
    """
    if card is None or not card.for_photographs:
        return False
    if not is_known():
        return True
    scores = [item.score for item in answer.instances] if score is None else [score]
    return bool(known := [each for each in scores if each is not None]) and max(known) < UNSURE
