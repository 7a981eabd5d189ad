"""What a caller may ask of the decoder, and what comes back."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class GenerationOptions:
    """How one answer is decoded. Every row of a batch may have its own.

    max_new_tokens: most ids an answer may have, the forced first one and the end token included. An answer that reaches
        the limit gets its end token there.
    num_beams: hypotheses kept by beam search; 1 is greedy decoding (or sampling).
    length_penalty: a finished beam is ranked by log-probability / length ** length_penalty.
    early_stopping: when beam search ends, once `num_beams` hypotheses are finished. True: at once. False: when the best
        running beam, ranked at its present length, cannot overtake them. "never": when it could not even at the length
        that favours it most.
    no_repeat_ngram_size: no run of this many ids occurs twice in an answer; 0 switches the rule off.
    do_sample: draw each id at random, from the distribution sharpened by `temperature` (< 1) or flattened (> 1), then
        limited to the `top_k` likeliest ids, then to the likeliest ids that together reach probability `top_p`.
    seed: makes sampling repeatable. Every row draws from a generator of its own, so its answer does not depend on the
        rest of the batch, and equal rows with equal seeds get equal answers. None: fresh randomness.
    forced_bos: id that every answer begins with, or None.
    ban_bos_after_forced: `forced_bos` cannot occur again (large Florence-2 checkpoints would repeat it).
    eos, pad: the ids that end an answer and fill up batches.
    coordinates: range of ids that compete with the end together where an answer begins: in greedy and beam search it
        stays empty only if the end is likelier than all of them in sum. A network that is sure of an object spreads its
        coordinate over neighbouring bins, and each of these alone would lose against the end. None: each for itself.

    Raises ValueError for values that cannot be met.
    """

    max_new_tokens: int
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = True
    no_repeat_ngram_size: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    forced_bos: int | None = 0
    ban_bos_after_forced: bool = True
    eos: int = 2
    pad: int = 1
    coordinates: range | None = None

    def __post_init__(self):
        for name, least in (("max_new_tokens", 1), ("num_beams", 1), ("no_repeat_ngram_size", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} = {value!r} must be a whole number of at least {least}")
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise ValueError(f"early_stopping = {self.early_stopping!r} must be True, False or 'never'")
        if not math.isfinite(self.length_penalty):
            raise ValueError(f"length_penalty = {self.length_penalty} must be finite")
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature = {self.temperature} must be above 0 and finite; do_sample=False takes the likeliest id"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k = {self.top_k} must be at least 1, or None for all ids")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p = {self.top_p} must lie in (0, 1], or be None for all ids")
        if self.do_sample and self.num_beams > 1:
            raise ValueError(f"do_sample=True draws one answer: num_beams = {self.num_beams} must be 1")
        if not self.do_sample and (self.temperature != 1 or self.top_k is not None or self.top_p is not None):
            raise ValueError(
                f"temperature = {self.temperature}, top_k = {self.top_k}, top_p = {self.top_p} change nothing without "
                "sampling: set do_sample=True or leave them out"
            )
        if self.forced_bos == self.eos:
            raise ValueError(f"forced_bos = {self.forced_bos} is also eos: every answer would end where it begins")


@dataclass(frozen=True)
class Generated:
    """One decoded answer.

    ids: what follows the prefix: the forced first id, the answer, the end token.
    truncated: the limit put the end token there, not the network.
    """

    ids: list[int]
    truncated: bool
