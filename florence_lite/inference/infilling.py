"""Words in the place of masks."""

from __future__ import annotations

from dataclasses import replace

from florence_lite.inference.guides import MASK
from florence_lite.results import Result
from florence_lite.tokens import marks_in

INFILLING = "<INFILLING>"


def check_masked(text: object) -> None:
    """Raise ValueError where a text has no mask, or marks that are no words."""
    if not isinstance(text, str) or MASK not in text:
        raise ValueError(f'text={text!r} has no {MASK}: put one in the place of what is missing, "a {MASK} on grass"')
    if others := [mark for mark in marks_in(text) if mark != MASK]:
        raise ValueError(f"text={text!r} holds {others[0]}, which is no word: leave it out")


def filled(result: Result, text: str) -> Result:
    """The answer to `INFILLING` as the whole sentence, with an instance for each mask, in order.

    Where there are fewer instances than masks, the masks that are left stay in the sentence; further instances are left
    out. Each counts as a parse error.
    """
    before, *parts = text.strip().split(MASK)
    words = [item.label.strip() for item in result.instances][: len(parts)]
    sentence = before
    for number, behind in enumerate(parts):
        sentence += (words[number] if number < len(words) else MASK) + behind
    return replace(
        result,
        text=sentence,
        instances=result.instances[: len(parts)],
        parse_errors=result.parse_errors + abs(len(result.instances) - len(parts)),
    )
