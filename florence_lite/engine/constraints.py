"""Ids that may not follow what a row has so far, most of them as functions of plain ids, and what applies them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from florence_lite.engine.options import GenerationOptions
from florence_lite.model.device import on_device


def second_bos(history: list[int], options: GenerationOptions) -> list[int]:
    """The forced first id, which does not come again."""
    banned = options.forced_bos is not None and options.ban_bos_after_forced
    return [options.forced_bos] if banned else []


def repeated_ngrams(history: list[int], options: GenerationOptions) -> list[int]:
    """Ids that would complete a run of `no_repeat_ngram_size` ids which `history` already holds.

    The end token is never among them (with size 1 the id before the answer, which is the end token, would ban it).
    """
    size = options.no_repeat_ngram_size
    if size == 0 or len(history) < size:
        return []
    beginning = tuple(history[len(history) + 1 - size :])
    runs = zip(*(history[offset:] for offset in range(size)), strict=False)
    return [run[-1] for run in runs if run[:-1] == beginning and run[-1] != options.eos]


def empty_answer(history: list[int], options: GenerationOptions) -> list[int]:
    """The end token where an answer begins that must not be empty."""
    begins = len(history) == 1 + (options.forced_bos is not None)
    return [options.eos] if begins and options.not_empty else []


CONSTRAINTS = (second_bos, repeated_ngrams, empty_answer)


def constrain(logits: Tensor, rows: Iterable[tuple[int, list[int], GenerationOptions]]) -> None:
    """Set the logits (or log-probabilities) [R, V] of banned ids to -inf, in place.

    rows: (row number, history, options). A history begins with the last id of the prefix. Of a row that has a guide,
    other ids than the guide's are -inf already; it keeps those that it has where all of them are banned.
    """
    banned: list[tuple[int, int]] = []
    guided: dict[int, list[int]] = {}
    for number, history, options in rows:
        tokens = [token for constraint in CONSTRAINTS for token in constraint(history, options)]
        banned += [(number, token) for token in tokens]
        if tokens and options.guide is not None:
            guided[number] = tokens
    if not banned:
        return
    former = {number: logits[number, tokens] for number, tokens in guided.items()}
    number, token = on_device(logits.device, banned).unbind(1)
    logits[number, token] = -math.inf
    for number, tokens in guided.items():
        if logits[number].max() == -math.inf:
            logits[number, tokens] = former[number]
