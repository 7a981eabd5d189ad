"""What a caller may ask of the decoder, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from florence_lite.checks import check, check_switch, check_whole, is_number, is_positive, is_whole

MOST_BEAMS = 200  # keys and values of 1,024 ids take 38 MB a beam in a base network, 100 MB in a large one
STEEPEST_PENALTY = 50  # either way: a power of the length that a float can hold


class Guide(Protocol):
    """Says which ids may follow, as a state machine over the ids of an answer.

    start: the state before the first id, that of `forced_bos` if there is one. A state is anything that is hashable.
    """

    start: Any

    def advance(self, state: Any, token_id: int) -> Any:
        """The state after any id."""
        ...

    def allowed(self, state: Any) -> tuple[range, ...]:
        """Ids that may follow: ranges that do not overlap, at least one of them; the end token is an id like others.
        Called at every step for every row, so it should know its answers by heart."""
        ...


@dataclass(frozen=True)
class GenerationOptions:
    """How one answer is decoded. Every row of a batch may have its own.

    max_new_tokens: most ids an answer may have, the forced first one and the end token included. An answer that reaches
        the limit gets its end token there.
    num_beams: hypotheses kept by beam search, at most `MOST_BEAMS`; 1 is greedy decoding (or sampling).
    length_penalty: a finished beam is ranked by log-probability / length ** length_penalty; from -50 to 50.
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
    not_empty: the end token cannot be the first id behind the forced one.
    guide: what says which ids may follow; no others are generated, and of the output layer only their rows are
        computed. Searches see probabilities that sum to 1 over the allowed ids. Where the n-gram rule would leave none
        of them, the guide wins. None: all ids may follow.

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
    not_empty: bool = False
    guide: Guide | None = None

    def __post_init__(self):
        check_whole(self, 1, "max_new_tokens", "num_beams")
        check_whole(self, 0, "no_repeat_ngram_size", "eos", "pad")
        check(self, "num_beams", lambda beams: beams <= MOST_BEAMS, f"at most {MOST_BEAMS}: each beam takes memory")
        check(self, "forced_bos", lambda bos: bos is None or is_whole(bos, 0), "a token id, or None")
        check_switch(self, "do_sample", "ban_bos_after_forced", "not_empty")
        check(
            self,
            "early_stopping",
            lambda stop: isinstance(stop, bool) or isinstance(stop, str) and stop == "never",
            "True, False or 'never'",
        )
        check(
            self,
            "length_penalty",
            lambda penalty: is_number(penalty) and abs(penalty) <= STEEPEST_PENALTY,
            f"a number from {-STEEPEST_PENALTY} to {STEEPEST_PENALTY}",
        )
        check(self, "temperature", is_positive, "a number above 0; do_sample=False takes the likeliest id")
        check(self, "top_k", lambda ids: ids is None or is_whole(ids, 1), "a whole number of at least 1, or None")
        check(
            self, "top_p", lambda p: p is None or is_positive(p) and p <= 1, "a number in (0, 1], or None for all ids"
        )
        check(
            self, "seed", lambda seed: seed is None or is_whole(seed, 0) and seed < 2**64, "from 0 to 2^64 - 1, or None"
        )
        check(
            self,
            "guide",
            lambda guide: guide is None or all(hasattr(guide, name) for name in ("start", "advance", "allowed")),
            "a state machine with start, advance and allowed, or None",
        )
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
    states: float [len(ids), D], by which the network predicted each of them; None where it did not predict all: not the
        end token of a truncated answer, for one.
    """

    ids: list[int]
    truncated: bool
    states: Tensor | None = field(default=None, repr=False, compare=False)
