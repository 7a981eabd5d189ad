"""Which texts suit which images: likelihoods without what is likely anyway, and the odds of "yes" against "no"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from florence_lite.cards import CheckpointCard
from florence_lite.checks import is_number, is_text
from florence_lite.tokens import check_marks

MATCHING = "<IMAGE_TEXT_MATCHING>"
YES, NO = "yes", "no"
PRIOR_WEIGHT = 0.5  # α of `ranking_scores`, from validation


def ranking_scores(
    log_likelihoods: NDArray[np.float64],
    background: NDArray[np.float64],
    lengths: Sequence[int],
    prior_weight: float,
) -> NDArray[np.float64]:
    """s(I, T) = (1 / |T|) · [log P(T | I) − α · log mean_j P(T | I_j)], float64 [I, T].

    log_likelihoods: [I, T], log P(T | I). background: [J, T], the same of the images I_j, which tell how likely a text
        is whatever the image. lengths: [T], ids of the texts. prior_weight: α.
    """
    highest = background.max(0)
    prior = highest + np.log(np.exp(background - highest).mean(0))
    return (log_likelihoods - prior_weight * prior) / np.array(lengths)


def check_texts(texts: Any) -> list[str]:
    """The texts without space around them. Raises ValueError where they are no list of words, or there are none."""
    if isinstance(texts, str):
        raise ValueError(f"texts is one string, {texts[:40]!r}; give a list, texts=[{texts[:40]!r}]")
    if not isinstance(texts, list | tuple):
        raise ValueError(f"texts is {texts!r}; it must be a list of strings, each with something in it")
    if not texts:
        raise ValueError("texts=[] is empty; give at least one text")
    for place, text in enumerate(texts):
        if not is_text(text):
            raise ValueError(f"texts[{place}]={text!r} must be a string with something in it")
        check_marks(f"texts[{place}]", text)
    return [text.strip() for text in texts]


def check_prior_weight(prior_weight: Any) -> float:
    if not is_number(prior_weight) or prior_weight < 0:
        raise ValueError(f"prior_weight is {prior_weight!r}; it must be a number of at least 0, 0 for no prior at all")
    return float(prior_weight)


def check_matching(card: CheckpointCard | None, name: str) -> None:
    """Raise ValueError for a checkpoint that, as its card says, was not trained to tell whether a text is true."""
    if card is not None and card.tasks and MATCHING not in card.tasks:
        raise ValueError(
            f"checkpoint {name!r} was not trained on {MATCHING}, so its yes and no mean nothing: use rank, which works "
            "with every checkpoint that writes captions, or train that task"
        )


def probability(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """σ of log-odds."""
    return np.exp(-np.logaddexp(0, -log_odds))
