"""What is asked about an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from florence_lite.cards import TaskCard
from florence_lite.tokens import grammar

SHOWN = 40  # letters of long words in a message


@dataclass(frozen=True)
class Prompt:
    """A task with its input, for calls that mix tasks whose inputs differ.

    task: a marker such as "<OD>" or a free sentence.
    text, phrases, region: what the task takes: a caption or question; a list of phrases; (x0, y0, x1, y1) in pixels.
    """

    task: str
    text: str | None = None
    phrases: Sequence[str] | None = None
    region: Sequence[float] | None = None


def check_room(what: str, words: str, tokens: int, room: int) -> None:
    """Raise ValueError where words have more tokens than a network has room for. what: they are, for the message."""
    if tokens > room:
        said = words if len(words) <= SHOWN else f"{words[:SHOWN]}…"
        raise ValueError(f"{what} {said!r} has {tokens} tokens; the network takes {room}: shorten it")


def check_places(option: str, cards: Sequence[TaskCard]) -> None:
    """Raise ValueError where an option about boxes and outlines is given, but none of the tasks answers with any."""
    if cards and not any(grammar(card.grammar).places for card in cards):
        names = ", ".join(dict.fromkeys(card.name for card in cards))
        raise ValueError(f"{option} has no part in task {names}: no boxes or outlines are answered; leave it out")


def as_prompts(
    prompts: Any,
    text: str | None = None,
    phrases: Sequence[str] | None = None,
    region: Sequence[float] | None = None,
) -> list[Prompt]:
    """One prompt or a list of them as a list; those given as strings get `text`, `phrases` and `region`.

    Raises ValueError for anything else, and for input that no string could take.
    """
    if not isinstance(prompts, str | Prompt | list | tuple):
        raise ValueError(f"prompts is {prompts!r}; it must be a task marker, a sentence, a Prompt or a list of them")
    prompts = [prompts] if isinstance(prompts, str | Prompt) else prompts
    if any(value is not None for value in (text, phrases, region)) and not any(
        isinstance(prompt, str) for prompt in prompts
    ):
        raise ValueError("text, phrases and region belong to prompts given as strings; a Prompt carries its own")
    return [each if isinstance(each, Prompt) else Prompt(each, text, phrases, region) for each in prompts]
