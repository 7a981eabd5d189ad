"""Greedy, sampled and beam search for one answer, on plain lists: no tensors, no network.

A search owns some decoder rows. `histories` holds what each of them has got so far: the last id of the prefix, then
the ids of the answer. The loop in `generate` runs the network over the last id of every row and hands the likeliest
next ids to `advance`, which grows, reorders or drops rows and says where each new row comes from.

Forced ids need no network: the forced first id is in the history from the beginning, and a row that has only one id
left gets its end token here. Both count with log-probability 0, as in transformers.
"""

from __future__ import annotations

import math
import os.path
from collections.abc import Hashable

from florence_lite.engine.options import Generated, GenerationOptions


class Search:
    """State that all searches share. `result` is None until the answer is finished; then no histories are left.

    fault: what ended the search without a result. abandoned: nobody wants the result, so that the next step ends it.
    rows: which decoder rows the histories have at present; size: how many ids take part. Kept by the loop.
    states: where each history stands in the guide; all None without one.
    trails: for each history, the rows that predicted its ids, one for each `advance`: (trail before, row), () at first.
    trail: that of the result.
    """

    rows = range(0)
    size = 0
    trail: tuple = ()
    abandoned = False

    def __init__(self, start: int, options: GenerationOptions):
        self.options = options
        self.result: Generated | None = None
        self.fault: Exception | None = None
        forced = options.forced_bos is not None and options.max_new_tokens > 1
        self.histories = [[start, options.forced_bos] if forced else [start]]
        self.states = [None if options.guide is None else options.guide.start]
        self.trails: list[tuple] = [()]
        if forced:
            self.states = [self.guided(self.states[0], options.forced_bos)]

    def guided(self, state: Hashable, token_id: int) -> Hashable:
        """The state of the guide, if there is one, after one more id."""
        return None if self.options.guide is None else self.options.guide.advance(state, token_id)

    @property
    def certain(self) -> list[int]:
        """The ids of the answer that no further step can change."""
        return self.histories[0][1:] if self.result is None else self.result.ids

    @property
    def at_limit(self) -> bool:
        """Only the end token still fits into the answer."""
        return len(self.histories[0]) == self.options.max_new_tokens

    def go_on(self, scores: list[list[float]], ids: list[list[int]]) -> list[int]:
        """`advance`, where an error of the guide becomes the fault of this search alone."""
        try:
            return self.advance(scores, ids)
        except Exception as error:
            self.fail(error)
            return []

    def fail(self, fault: Exception) -> None:
        self.fault, self.histories = fault, []

    def finish(self, history: list[int], truncated: bool, trail: tuple) -> None:
        self.result, self.trail = Generated(history[1:], truncated), trail
        self.histories = []


class SingleSearch(Search):
    """One row that takes the first candidate offered: greedy decoding, or sampling if the candidate was drawn."""

    def __init__(self, start: int, options: GenerationOptions):
        super().__init__(start, options)
        self._finish_at_limit()

    def advance(self, scores: list[list[float]], ids: list[list[int]]) -> list[int]:
        """scores, ids: [1][K] candidates, the best first. Returns [0] if the row lives on, [] if it is finished."""
        history, chosen = self.histories[0], ids[0][0]
        history.append(chosen)
        self.trails = [(self.trails[0], self.rows.start)]
        self.states = [self.guided(self.states[0], chosen)]
        if chosen == self.options.eos:
            self.finish(history, False, self.trails[0])
        else:
            self._finish_at_limit()
        return [0] * len(self.histories)

    def _finish_at_limit(self) -> None:
        if self.at_limit:
            self.finish([*self.histories[0], self.options.eos], True, self.trails[0])


class BeamSearch(Search):
    """Beam search with the finishing rules of transformers' `generate`.

    Begins with one row and keeps up to `num_beams`. Of the 2 · num_beams best continuations, the best `num_beams` that
    do not end live on, and those among the first `num_beams` that do end are candidates for the answer.
    """

    def __init__(self, start: int, options: GenerationOptions):
        super().__init__(start, options)
        self.scores = [0.0]  # log-probability of every row
        self.finished: list[tuple[float, list[int], bool, tuple]] = []  # (rank, history, truncated, trail), best first
        self._finish_if_decided()

    def advance(self, scores: list[list[float]], ids: list[list[int]]) -> list[int]:
        """scores, ids: [rows][K ≥ 2 · num_beams] log-probabilities of the next ids, the best first; -inf if banned.

        Returns, for each row that lives on, the index of the row it continues.
        """
        width, eos = self.options.num_beams, self.options.eos
        continuations = [
            (so_far + score, row, token)
            for row, so_far in enumerate(self.scores)
            for score, token in zip(scores[row], ids[row], strict=True)
            if score > -math.inf
        ]
        continuations.sort(key=lambda continuation: -continuation[0])
        continuations = continuations[: 2 * width]

        running = [c for c in continuations if c[2] != eos][:width]
        trails = [(trail, self.rows.start + number) for number, trail in enumerate(self.trails)]
        ended = [
            (score, [*self.histories[row], eos], False, trails[row])
            for score, row, token in continuations[:width]
            if token == eos
        ]
        self._add_finished(ended)
        self.histories = [[*self.histories[row], token] for _, row, token in running]
        self.states = [self.guided(self.states[row], token) for _, row, token in running]
        self.trails = [trails[row] for _, row, _ in running]
        self.scores = [score for score, _, _ in running]
        self._finish_if_decided()
        return [row for _, row, _ in running[: len(self.histories)]]

    @property
    def certain(self) -> list[int]:
        if self.result is not None:
            return self.result.ids
        candidates = [*self.histories, *(history for _, history, *_ in self.finished)]
        return os.path.commonprefix(candidates)[1:]  # of lists too

    def _add_finished(self, ended: list[tuple[float, list[int], bool, tuple]]) -> None:
        """Rank the ended histories (log-probability, history, truncated, trail) and keep the best `num_beams`."""
        self.finished += [
            (score / (len(history) - 1) ** self.options.length_penalty, history, *rest)
            for score, history, *rest in ended
        ]
        self.finished.sort(key=lambda hypothesis: -hypothesis[0])
        del self.finished[self.options.num_beams :]

    def _finish_if_decided(self) -> None:
        stop = not self.histories or self._can_stop()
        if not stop and self.at_limit:
            rows = zip(self.scores, self.histories, self.trails, strict=True)
            self._add_finished([(score, [*history, self.options.eos], True, trail) for score, history, trail in rows])
            stop = True
        if stop:
            self.finish(*self.finished[0][1:])

    def _can_stop(self) -> bool:
        """Enough hypotheses are finished and, unless that suffices, no running beam can beat the worst of them."""
        options = self.options
        if len(self.finished) < options.num_beams:
            return False
        if options.early_stopping is True:
            return True
        longest = options.early_stopping == "never" and options.length_penalty > 0
        length = options.max_new_tokens if longest else len(self.histories[0]) - 1
        return self.scores[0] / length**options.length_penalty <= self.finished[-1][0]
