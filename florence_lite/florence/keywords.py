"""The keywords of the general calls, as editors complete them and type checkers know them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class Options(TypedDict, total=False):
    """What any call takes; `Florence.run` says what each means."""

    keep_image: bool
    threshold: float | None
    labels: Sequence[str] | None
    choices: Sequence[str] | None
    num_beams: int
    max_new_tokens: int
    length_penalty: float
    early_stopping: bool | str
    no_repeat_ngram_size: int
    do_sample: bool
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int | None
    constrained: bool
    compat: bool
    general_phrases: bool


class Keywords(Options, total=False):
    """What `Florence.run` and `Florence.run_each` take."""

    text: str | None
    phrases: Sequence[str] | None
    region: Sequence[float] | None
    tile: tuple[int, int] | None
