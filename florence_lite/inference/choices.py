"""Answers from a closed list: how likely each of them is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from florence_lite.cards import TaskCard
from florence_lite.checks import is_text
from florence_lite.inference.encoded import EncodedImage
from florence_lite.inference.likelihoods import Likelihoods
from florence_lite.tokens import check_marks, grammar


def check_choices(card: TaskCard, options: Mapping[str, Any]) -> None:
    """Raise ValueError where the `choices` of a call are no list of different answers of the task.

    Two that differ in nothing but space around them are the same answer.
    """
    choices = options.get("choices")
    if choices is None:
        return
    if not isinstance(choices, list | tuple):
        raise ValueError(f"choices is {choices!r}; it must be a list of strings, each with something in it")
    stripped = []
    for place, choice in enumerate(choices):
        if not is_text(choice):
            raise ValueError(f"choices[{place}]={choice!r} must be a string with something in it")
        check_marks(f"choices[{place}]", choice)
        if choice.strip() in stripped:
            raise ValueError(f"choices[{place}]={choice!r} is given twice: leave one of them out")
        stripped.append(choice.strip())
    if len(choices) < 2:
        raise ValueError(f"choices={list(choices)!r} leaves nothing to choose: give at least two")
    form = grammar(card.grammar)
    if not form.prose or form.single:
        raise ValueError(f"task {card.name} does not answer in words alone: leave choices=… out")
    given = {name for name, value in options.items() if value is not None}
    if others := sorted(given - {"choices", "compat"}):
        raise ValueError(f"{others[0]}=… has no part in answers from choices: leave it out, or leave choices=… out")


def probabilities(
    likelihoods: Likelihoods,
    asked: Sequence[tuple[EncodedImage, list[int]]],
    choices: Sequence[str],
    first: int | None,
) -> list[dict[str, float]]:
    """For each image with the ids of its prompt, the choices as they were given with their probabilities, which add up
    to 1.

    They are P(choice and end | image, prompt), shared out among the choices. first: as in `Likelihoods.of_texts`.

    The mean over a choice's ids in place of their sum chose the same answers of `scenes-nano`, after one training,
    to 717 questions about validation scenes (numbers .53, yes or no .52, classes .86 right; in answers from no list,
    .53, .52 and .78), with worse probabilities: the right choice's negative logarithm was 1.44, .69 and 1.37 on
    average, with the sum 1.24, .69 and .67.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for place, (_, prompt_ids) in enumerate(asked):
        by_prompt.setdefault(tuple(prompt_ids), []).append(place)
    found: dict[int, dict[str, float]] = {}
    texts = [choice.strip() for choice in choices]
    for ids, places in by_prompt.items():
        logprobs = likelihoods.of_texts([asked[place][0] for place in places], list(ids), texts, first)
        shares = np.exp(logprobs - logprobs.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        found |= {
            place: dict(zip(choices, row.tolist(), strict=True)) for place, row in zip(places, shares, strict=True)
        }
    return [found[place] for place in range(len(asked))]
