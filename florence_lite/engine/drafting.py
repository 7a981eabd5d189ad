"""Several ids a step, exactly: cheap weights guess the next ids of greedy answers, one step of the exact ones reads all
guesses together, and those that come true need no step of their own.

A step takes as long as reading the weights, for one id or for a few, and int8 weights have a quarter of the bytes. What
is kept of a guess are the states that the network has behind it, to the last bit those of single steps: the loop takes
its ids from them as it would without, and asks anew at the first one that is another than was guessed.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from florence_lite.engine.constraints import constrain
from florence_lite.engine.search import Search, SingleSearch

MOST_ROWS = 4  # answers together: with more, arithmetic takes longer than reading the weights
MOST_TOGETHER = 8  # ids that are read together
REST = 16  # steps without guesses when hardly any came true


class Ahead(NamedTuple):
    """The last ids of rows, if they are these, and what the network makes of them: states [R, D], scores [R, V]."""

    ids: list[int]
    hidden: Tensor
    scores: Tensor


class Drafting:
    """Looks ahead for a batch of greedy answers.

    score: `generate.scores_behind`.
    """

    def __init__(self, network, score: Callable[[Tensor, Mapping[int, tuple[Search, Hashable]], Callable], Tensor]):
        self.network, self.score = network, score
        self._known: deque[Ahead] = deque()
        self._guesses, self._made, self._resting = 3, 0, 0

    def forget(self) -> None:
        """The rows are others now."""
        self._known.clear()
        self._made = 0

    def step(self, searches: Sequence[Search]) -> Ahead | None:
        """One more id of every row, each a search; None where the network has to be asked as usual."""
        if not all(type(search) is SingleSearch and not search.options.do_sample for search in searches):
            return None
        ids = [search.histories[0][-1] for search in searches]
        if not self._known or self._known[0].ids != ids:
            if self._made:
                self._learn()
            self.forget()
            if self._resting:
                self._resting -= 1
                return None
            self._look(searches, ids)
        if not self._known:
            return None
        self.network.accept()
        return self._known.popleft()

    def _learn(self) -> None:
        """More guesses or fewer, after those that are left over did not come true."""
        if self._known:
            self._guesses -= 1 if 2 * len(self._known) <= self._made else 2  # the more, the earlier they went wrong
            if self._guesses < 1:
                self._guesses, self._resting = 1, REST
        else:
            self._guesses += 1  # at most as many as `_look` makes

    def _look(self, searches: Sequence[Search], ids: list[int]) -> None:
        most = MOST_TOGETHER // len(searches) - 1
        self._guesses = min(self._guesses, most)
        if len(searches) > MOST_ROWS or self._guesses < 1:
            return
        twins = [twin(search) for search in searches]
        standing = [(each, each.states[0]) for each in twins]  # of every row at every place
        read = [ids]
        for ahead in range(self._guesses):
            hidden = self.network.draft(read[-1], ahead)
            scores = self.score(hidden, dict(enumerate(standing[-len(twins) :])), self.network.draft_logits)
            if any(each.fault is not None for each in twins):
                return  # the search itself meets its guide's error when it comes there
            constrain(scores, ((row, each.histories[0], each.options) for row, each in enumerate(twins)))
            guessed = scores.argmax(-1).tolist()
            for each, guess in zip(twins, guessed, strict=True):
                each.go_on([[0.0]], [[guess]])
            if any(each.fault is not None for each in twins):
                return
            if any(each.result is not None for each in twins):
                break
            read.append(guessed)
            standing += [(each, each.states[0]) for each in twins]
        hidden = self.network.ahead([list(row) for row in zip(*read, strict=True)])  # [R, n, D]
        hidden = hidden.transpose(0, 1).contiguous()
        scores = self.score(hidden.flatten(0, 1), dict(enumerate(standing)), self.network.logits)
        if any(each.fault is not None for each in twins):
            return
        self._made = len(read) - 1
        self._known.extend(map(Ahead, read, hidden, scores.view(len(read), len(ids), -1)))


def twin(search: Search) -> Search:
    """A search that goes on without the other."""
    made = copy.copy(search)
    made.histories, made.states, made.trails = (list(each) for each in (search.histories, search.states, search.trails))
    made.histories = [list(history) for history in made.histories]
    return made
