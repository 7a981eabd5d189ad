"""The decoding loop: one network for a batch of searches.

Every prefix has a search (greedy, sampled or beam), every search some decoder rows, and all rows of the batch go
through the network together, one id per step. After a step the searches say which rows live on; what the network
remembers follows by one `reorder`, which repeats rows when beams branch and drops them when answers finish. Between
steps other searches may enter. The cross-attention keys and values belong to images, not to rows.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from florence_lite.engine.constraints import constrain
from florence_lite.engine.drafting import Ahead, Drafting
from florence_lite.engine.fast import FastModel
from florence_lite.engine.fast.steps import FastSteps
from florence_lite.engine.limits import check_batch, check_ids, check_length
from florence_lite.engine.options import Generated, GenerationOptions
from florence_lite.engine.prefill import Prefix, prefill
from florence_lite.engine.sampling import Sampler
from florence_lite.engine.search import BeamSearch, Search, SingleSearch
from florence_lite.engine.steps import PlainSteps, Source
from florence_lite.model import CrossCache, FlorenceModel
from florence_lite.model.device import inference_mode, on_device


def generate(
    model: FlorenceModel,
    encoder_hidden_states: Tensor,
    encoder_mask: Tensor | None,
    prefixes: Sequence[list[int]],
    options: GenerationOptions | Sequence[GenerationOptions],
    cross: CrossCache | None = None,
    vocab_size: int | None = None,
    read: Sequence[Prefix] | None = None,
) -> list[Generated]:
    """Decode an answer behind every prefix.

    encoder_hidden_states: float [B, S, D] of B images; encoder_mask: bool [B, S], False on padding, or None.
    prefixes: n·B lists of at least one id (any lengths), the n prefixes of an image standing together. The last id
        plays the part of the decoder start token.
    options: for every prefix, or one for all.
    cross: `model.cross_cache(encoder_hidden_states)`, for a caller who has it already.
    vocab_size: ids from here on have rows in the network's table but no token, and never occur; None: all have one.
    read: `prefill` of the prefixes, each with the first id that its options force behind it, for a caller who has it.

    Returns one `Generated` per prefix, in order. The answer to a prefix does not depend on the rest of the batch.
    Raises ValueError if the counts do not match, if an option names an id that the network does not have, or if a
    prefix and its answer need more positions than the model has.
    """
    steps = decoding_steps(model, encoder_hidden_states, encoder_mask, prefixes, options, cross, vocab_size, read)
    searches = deque(steps, maxlen=1)
    return [search.result for search in searches[0]] if searches else []


@inference_mode()
def decoding_steps(
    model: FlorenceModel,
    encoder_hidden_states: Tensor,
    encoder_mask: Tensor | None,
    prefixes: Sequence[list[int]],
    options: GenerationOptions | Sequence[GenerationOptions],
    cross: CrossCache | None = None,
    vocab_size: int | None = None,
    read: Sequence[Prefix] | None = None,
) -> Iterator[list[Search]]:
    """`generate` id by id: yields the searches, one per prefix, at the beginning and after every step of the network.

    They are the same objects each time: `certain` holds what is known of an answer, `result` all of it at the end.
    Arguments and errors as in `generate`, the errors when the first step is taken.
    """
    options = [options] * len(prefixes) if isinstance(options, GenerationOptions) else list(options)
    check_batch(len(encoder_hidden_states), prefixes, options, "options")
    for prefix, option in zip(prefixes, options, strict=True):
        check_length(len(prefix), option.max_new_tokens, model.config.text.positions, "max_new_tokens")
        check_ids(option, model.config.text.vocab_size if vocab_size is None else vocab_size)
    if not prefixes:
        return

    size = model.config.text.vocab_size if vocab_size is None else vocab_size
    searches = [start_search(prefix[-1], option) for prefix, option in zip(prefixes, options, strict=True)]
    yield searches
    each = len(prefixes) // len(encoder_hidden_states)
    left = [number for number, search in enumerate(searches) if search.result is None]
    if not left:
        return
    cross = cross or model.cross_cache(encoder_hidden_states)
    if read is None:
        inputs = [[*prefixes[number], *searches[number].histories[0][1:]] for number in left]
        found = prefill(model, cross, encoder_mask, inputs, [number // each for number in left])
    else:
        found = [read[number] for number in left]
    batch, sources = DecodingBatch(model), Source.all_of(cross, encoder_mask)
    for number, prefix in zip(left, found, strict=True):
        batch.enter(searches[number], prefix, sources[number // each], size)
    while batch:
        for search in batch.step():
            if search.fault is not None:
                raise search.fault
        yield searches


def start_search(start: int, options: GenerationOptions) -> Search:
    return BeamSearch(start, options) if options.num_beams > 1 else SingleSearch(start, options)


class Begun(NamedTuple):
    """Of a running search. hidden: [1 or 2, D], the states behind its prefix, of which the last is behind the forced
    first id, if there is one. step: the number of its first step."""

    hidden: Tensor
    step: int


class DecodingBatch:
    """A running batch, in which searches enter and from which they leave between steps. It is true while there are any.

    What becomes of a search does not depend on the others.
    """

    def __init__(self, model: FlorenceModel, with_last: bool = False):
        """with_last: find by what state the end token of a truncated answer is predicted, too, which takes the row of
        the answer another step."""
        self.model, self.with_last = model, with_last
        self.network = model.steps() if isinstance(model, FastModel) else PlainSteps(model)
        drafts = isinstance(self.network, FastSteps) and self.network.draft_weights is not None
        self._drafting = Drafting(self.network, scores_behind) if drafts else None
        self.searches: list[Search] = []  # the unfinished ones, in the order of their rows
        self.rows = 0
        self._closing: list[tuple[Search, int]] = []  # truncated, with their rows, behind those of the others
        self._entering: list[tuple[Search, Prefix, Source]] = []
        self._begun: dict[Search, Begun] = {}
        self._samplers: dict[Search, Sampler] = {}
        self._states: deque[Tensor] = deque()  # [R, D] of the last steps, as far back as a search needs them
        self._steps = 0

    def __bool__(self) -> bool:
        return bool(self.searches or self._closing or self._entering)

    def enter(self, search: Search, prefix: Prefix, source: Source, size: int) -> None:
        """Let a search take part from the next step on.

        prefix: what its answer stands behind, with the id that it is forced to begin with. source: what it attends to.
        size: how many ids take part.
        """
        search.size = size
        self._entering.append((search, prefix, source))

    @inference_mode()
    def step(self) -> list[Search]:
        """One more id for every search. Returns those that are finished now, with a result or a fault."""
        ahead = self._ahead()
        states = [self._read_last_ids() if ahead is None else ahead.hidden] if self.rows else []
        closed = self._closing
        if self._entering:
            states.append(self._enter())
        hidden = torch.cat(states) if len(states) > 1 else states[0]
        self._states.append(hidden)
        self._steps += 1
        parents = self.advance(self.scores(hidden) if ahead is None else ahead.scores) if self.searches else {}
        ended = [search for search in self.searches if not search.histories]
        self._closing = []
        if self.with_last:  # the row that a truncated answer continues
            self._closing = [(search, search.trail[1]) for search in ended if search.result and search.result.truncated]
        finished = [search for search in ended if search not in dict(self._closing)]
        for search in finished:
            self._complete(search)
        for search, row in closed:
            self._complete(search, hidden[row])
        self._arrange(parents)
        return finished + [search for search, _ in closed]

    def _complete(self, search: Search, last: Tensor | None = None) -> None:
        """Give its states to a result. last: [D], that of the end token of a truncated answer."""
        self._samplers.pop(search, None)
        begun = self._begun.pop(search)
        if search.result is not None:
            search.result = with_states(search, begun.hidden, self._states_since(begun), last)

    def states_so_far(self, search: Search) -> list[Tensor]:
        """The states [D] that predicted what is `certain` of a running search, and maybe more ids."""
        begun = self._begun[search]
        count = len(search.histories[0]) - 1
        return predicted_by(search.trails[0], count, begun.hidden, self._states_since(begun))

    def _states_since(self, begun: Begun) -> Iterator[Tensor]:
        return islice(self._states, begun.step - (self._steps - len(self._states)), None)

    def _enter(self) -> Tensor:
        """Rows for the searches that wait. Returns the states [N, D] behind their prefixes."""
        searches, read, sources = zip(*self._entering, strict=True)
        self._entering = []
        for search, prefix in zip(searches, read, strict=True):
            search.rows = range(self.rows, self.rows + 1)
            self.rows += 1
            self._begun[search] = Begun(prefix.hidden, self._steps)
            if search.options.do_sample:
                self._samplers[search] = Sampler(search.options)
        self.searches += searches
        return self.network.enter(read, sources)

    def _arrange(self, parents: dict[Search, list[int]]) -> None:
        """Drop finished searches, and give the others their rows.

        parents: for each history of a search, which of the search's former rows it continues.
        """
        self.searches = [search for search in self.searches if search.histories]
        order: list[int] = []
        for search in self.searches:
            former = search.rows
            search.rows = range(len(order), len(order) + len(search.histories))
            order += [former[parent] for parent in parents[search]]
        rows = [row for _, row in self._closing]
        self._closing = [(search, len(order) + place) for place, (search, _) in enumerate(self._closing)]
        order += rows
        if order != list(range(self.rows)):
            self.network.reorder(order)
            self.rows = len(order)
            if self._drafting is not None:
                self._drafting.forget()
        oldest = min((begun.step for begun in self._begun.values()), default=self._steps)
        while len(self._states) > self._steps - oldest:
            self._states.popleft()

    def _read_last_ids(self) -> Tensor:
        """The states [R, D] behind the last ids of all rows."""
        ids = [history[-1] for search in self.searches for history in search.histories]
        return self.network.step(ids + [search.result.ids[-2] for search, _ in self._closing])

    def _ahead(self) -> Ahead | None:
        """What is known behind the last ids of all rows, where drafts pay."""
        if self._drafting is None:
            return None
        if self._entering or self._closing or not self.searches:
            self._drafting.forget()
            return None
        return self._drafting.step(self.searches)

    def advance(self, scores: Tensor) -> dict[Search, list[int]]:
        """Offer every search the best next ids of its rows, scores [R, V], which are changed. Returns what `_arrange`
        needs."""
        by_width: dict[int, list[int]] = {}
        for search in self.searches:
            if search.abandoned:
                search.fail(CancelledError("nobody waits for this answer"))
        unharmed = [search for search in self.searches if search.fault is None]
        for search in unharmed:
            by_width.setdefault(search.options.num_beams, []).extend(search.rows)
        index = {
            width: slice(None) if len(rows) == len(scores) else on_device(scores.device, rows)
            for width, rows in by_width.items()
        }
        for width in index.keys() - {1}:
            scores[index[width]] = scores[index[width]].log_softmax(-1)
        constrain(
            scores,
            (
                (row, history, search.options)
                for search in unharmed
                for row, history in zip(search.rows, search.histories, strict=True)
            ),
        )
        best: dict[int, list[float]] = {}
        ids: dict[int, list[int]] = {}
        for width, rows in by_width.items():
            few = scores[index[width]]
            offered = few.max(-1, keepdim=True) if width == 1 else few.topk(min(2 * width, few.shape[1]))  # [R', K]
            best |= zip(rows, offered[0].tolist(), strict=True)
            ids |= zip(rows, offered[1].tolist(), strict=True)
        for search in unharmed:
            if not all(best[row][0] > -math.inf for row in search.rows):
                search.fail(
                    ValueError(
                        "the model gives no finite score to any id: are the weights NaN, or float16 too small for them?"
                    )
                )
        going_on = [search for search in unharmed if search.fault is None]
        for search in going_on:
            if search in self._samplers:
                ids[search.rows[0]] = [self._samplers[search](scores[search.rows[0]])]
        return {
            search: search.go_on([best[row] for row in search.rows], [ids[row] for row in search.rows])
            for search in going_on
        }

    def scores(self, hidden: Tensor) -> Tensor:
        of_rows = {
            row: (search, state)
            for search in self.searches
            for row, state in zip(search.rows, search.states, strict=True)
        }
        return scores_behind(hidden, of_rows, self.network.logits)


def scores_behind(hidden: Tensor, of_rows: Mapping[int, tuple[Search, Hashable]], logits: Callable) -> Tensor:
    """Logits [R, V] behind hidden [R, D]; -inf where a guide allows no id, and where there is no token. An error of a
    guide becomes the fault of its search.

    of_rows: of each row that is asked for its search, and where it stands in the guide. logits: what gives those of a
        range of ids.

    Rows that may be followed by the same ids go through the output layer together, through its rows for these ids
    alone: inside a box these are the locations, a fiftieth of a published network's vocabulary.
    """
    alike: dict[tuple[range, ...], list[int]] = {}
    for row, (search, state) in of_rows.items():
        guide = search.options.guide
        try:
            alike.setdefault((range(search.size),) if guide is None else guide.allowed(state), []).append(row)
        except Exception as error:
            search.fail(error)
    size = max(search.size for search, _ in of_rows.values())
    if set(alike) == {(range(size),)}:
        return logits(hidden, range(size)).float()
    scores = torch.full((len(hidden), size), -math.inf, device=hidden.device)
    for allowed, rows in alike.items():
        index: slice | Tensor = slice(None)
        if len(rows) < len(hidden):
            index = on_device(hidden.device, rows)
        states = hidden[index]
        for ids in allowed:
            scores[index, ids.start : ids.stop] = logits(states, ids).float()
    return scores


def with_states(search: Search, first: Tensor, states: Iterable[Tensor], last: Tensor | None = None) -> Generated:
    """The result of a search with the states that predicted it.

    first, states: as in `predicted_by`. last: [D], behind the last id before the end token of a truncated answer.
    """
    truncated = search.result.truncated
    predicting = predicted_by(search.trail, len(search.result.ids) - truncated, first, states)
    if predicting is None or (truncated and last is None):
        return search.result
    return replace(search.result, states=torch.stack([*predicting, *([last] if truncated else [])]))


def predicted_by(trail: tuple, count: int, first: Tensor, states: Iterable[Tensor]) -> list[Tensor] | None:
    """By what states [D] the `count` ids of a trail were predicted; None where one of them was not kept.

    first: [1 or 2, D], behind the prefix and behind the forced first id; states: [R, D] of every step since then.
    """
    rows = []
    while trail:
        trail, row = trail
        rows.append(row)
    forced = count - len(rows)  # ids that no step predicted
    if forced >= len(first):
        return None
    stepped = zip(states, reversed(rows), strict=False)  # an answer of a beam may have ended steps ago
    return [*first[len(first) - 1 - forced : -1], *(step[row] for step, row in stepped)]
