"""Words in the place of masks."""

from __future__ import annotations

from dataclasses import replace

from florence_lite.answers import Answer
from florence_lite.cards import TaskCard
from florence_lite.inference.guides import MASK
from florence_lite.tokens import check_marks, grammar

INFILLING = "<INFILLING>"


def takes_masks(card: TaskCard) -> bool:
    """Whether a task fills in what its text lacks: its answers are parts, and masks may stand in the text."""
    return grammar(card.grammar).parts and MASK in card.input_marks


def check_masked(text: str) -> None:
    """Raise ValueError where a text has no mask, or marks that are no words."""
    if MASK not in text:
        raise ValueError(f'text={text!r} has no {MASK}: put one in the place of what is missing, "a {MASK} on grass"')
    check_marks("text", text, allowed=(MASK,))


def filled(answer: Answer, text: str) -> Answer:
    """The answer to a text with masks as the whole sentence, with an instance for each mask, in order.

    Where there are fewer instances than masks, the masks that are left stay in the sentence; further instances are left
    out. Each counts as a parse error, save for masks that a truncated answer did not get to.
    """
    before, *parts = text.strip().split(MASK)
    words = [item.label.strip() for item in answer.instances][: len(parts)]
    sentence = before
    for number, behind in enumerate(parts):
        sentence += (words[number] if number < len(words) else MASK) + behind
    surplus = len(answer.instances) - len(parts)
    return replace(
        answer,
        text=sentence,
        instances=answer.instances[: len(parts)],
        parse_errors=answer.parse_errors + (max(surplus, 0) if answer.truncated else abs(surplus)),
    )
