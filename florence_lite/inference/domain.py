"""Pictures of a kind that a checkpoint knows nothing about, told by answers that are sure of nothing."""

from __future__ import annotations

from florence_lite.answers import Answer
from florence_lite.cards import CheckpointCard

UNSURE = 0.4  # score below which an answer, or the best instance of a list, counts as a guess


def is_foreign(card: CheckpointCard | None, answer: Answer, score: float | None) -> bool:
    """Whether the answer of a checkpoint that knows one kind of pictures, as its card says, is sure of nothing.

    score: of the answer as a whole, or None where its instances have their own. An answer without instances claims
    nothing and counts as sure.
    """
    if card is None or not card.for_photographs:
        return False
    scores = [item.score for item in answer.instances] if score is None else [score]
    return bool(known := [each for each in scores if each is not None]) and max(known) < UNSURE
