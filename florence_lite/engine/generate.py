"""The decoding loop: one network for a batch of searches.

Every prefix has a search (greedy, sampled or beam), every search some decoder rows, and all rows of the batch go
through the network together, one id per step. After a step the searches say which rows live on; the self-attention
cache follows by one `reorder`, which repeats rows when beams branch and drops them when answers finish. The
cross-attention keys and values belong to images, not to rows, and are only touched when images are finished.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from florence_lite.engine.constraints import constrain
from florence_lite.engine.fast import FastModel
from florence_lite.engine.limits import check_batch, check_ids, check_length
from florence_lite.engine.options import Generated, GenerationOptions
from florence_lite.engine.prefill import Prefix, prefill
from florence_lite.engine.sampling import Sampler
from florence_lite.engine.search import BeamSearch, Search, SingleSearch
from florence_lite.engine.steps import PlainSteps
from florence_lite.model import CrossCache, FlorenceModel
from florence_lite.model.device import on_device

KEPT_SHARE_OF_IMAGES = 0.75  # Finished images are dropped once at most this share is left: dropping copies the others.


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


@torch.inference_mode()
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

    searches = [start_search(prefix[-1], option) for prefix, option in zip(prefixes, options, strict=True)]
    cross = cross or model.cross_cache(encoder_hidden_states)
    for _ in DecodingBatch(model, cross, encoder_mask, searches, vocab_size).steps(prefixes, read):
        yield searches


def start_search(start: int, options: GenerationOptions) -> Search:
    return BeamSearch(start, options) if options.num_beams > 1 else SingleSearch(start, options)


class DecodingBatch:
    """A running batch.

    Rows stand image by image, search by search, history by history. The shared cross-attention needs the same number of
    rows for every image, so filler rows, whose content nobody reads, stand behind those of images that have fewer.
    """

    def __init__(
        self,
        model: FlorenceModel,
        cross: CrossCache,
        encoder_mask: Tensor | None,
        searches: list[Search],
        vocab_size: int | None,
    ):
        """cross: of B images; searches: n·B, the n of an image together."""
        self.model, self.vocab_size = model, vocab_size
        self.network = (
            model.steps(cross, encoder_mask) if isinstance(model, FastModel) else PlainSteps(model, cross, encoder_mask)
        )
        images, self.device = cross.keys[0].shape[0], cross.keys[0].device
        each = len(searches) // images
        self.groups = [searches[first : first + each] for first in range(0, len(searches), each)]  # one per image
        self.samplers = {search: Sampler(search.options) for search in searches if search.options.do_sample}
        self.pad = searches[0].options.pad
        self.row_count = len(searches)
        for number, search in enumerate(searches):
            search.rows = range(number, number + 1)

    @property
    def searches(self) -> Iterator[Search]:
        """The unfinished ones, in row order."""
        return (search for group in self.groups for search in group)

    def steps(self, prefixes: Sequence[list[int]], read: Sequence[Prefix] | None = None) -> Iterator[None]:
        """Work until every search has its result; yields before the first step and after every one. read: the prefixes,
        if they are read already."""
        order = self.arrange({search: [0] * len(search.histories) for search in self.searches})
        yield
        if not self.groups:
            return
        if read is None:
            read = self.read_prefixes([prefixes[number] for number in order])
        else:
            read = [read[number] for number in order]
        states = [self.begin(read)]
        first = {search: read[search.rows[0]].hidden for search in self.searches}
        while True:
            running = list(self.searches)
            parents = self.advance(states[-1])
            for search in running:
                if search.result is not None:
                    search.result = with_states(search, first[search], states)
            order = self.arrange(parents)
            yield
            if not self.groups:
                return
            states.append(self.read_last_ids(order))

    def arrange(self, parents: dict[Search, list[int]]) -> list[int]:
        """Drop finished searches, give the others their rows, and return the former row of every row.

        parents: for each history of a search, which of the search's former rows it continues.
        """
        self.groups = [[search for search in group if search.result is None] for group in self.groups]
        unfinished = [image for image, group in enumerate(self.groups) if group]
        if not unfinished:
            self.groups = []
            return []
        if len(unfinished) <= KEPT_SHARE_OF_IMAGES * len(self.groups):
            images = torch.tensor(unfinished, device=self.device)
            self.groups = [self.groups[image] for image in unfinished]
            self.network.keep_images(images)

        height = max(sum(len(search.histories) for search in group) for group in self.groups)
        order: list[int] = []
        for image, group in enumerate(self.groups):
            for search in group:
                former = search.rows
                search.rows = range(len(order), len(order) + len(search.histories))
                order += [former[parent] for parent in parents[search]]
            # A filler row stays where it is if it can, which often leaves the cache untouched.
            order += [min(row, self.row_count - 1) for row in range(len(order), (image + 1) * height)]
        return order

    def read_prefixes(self, prefixes: list[list[int]]) -> list[Prefix]:
        """Run the network over the prefix of every row and the forced id behind it."""
        inputs = [list(prefix) for prefix in prefixes]
        for search in self.searches:
            inputs[search.rows[0]] += search.histories[0][1:]
        height = len(inputs) // len(self.groups)
        images = [row // height for row in range(len(inputs))]
        return prefill(self.model, self.network.cross, self.network.encoder_mask, inputs, images)

    def begin(self, read: list[Prefix]) -> Tensor:
        """Start the cache with the prefix of every row. Returns hidden states [R, D]."""
        self.row_count, longest = len(read), max(prefix.length for prefix in read)
        return self.network.start(read, longest + max(search.options.max_new_tokens for search in self.searches))

    def read_last_ids(self, order: list[int]) -> Tensor:
        """Let the network follow the new order of rows and read their last ids. Returns [R, D]."""
        if order != list(range(self.row_count)):
            self.network.reorder(order)
            self.row_count = len(order)
        ids = [self.pad] * self.row_count
        for search in self.searches:
            for row, history in zip(search.rows, search.histories, strict=True):
                ids[row] = history[-1]
        return self.network.step(ids)

    def advance(self, hidden: Tensor) -> dict[Search, list[int]]:
        """Offer every search the best next ids of its rows, hidden [R, D]. Returns what `arrange` needs."""
        beams = max(search.options.num_beams for search in self.searches)
        scores = self.scores(hidden)
        if beams > 1:
            scores = scores.log_softmax(-1)
        constrain(
            scores,
            (
                (row, history, search.options)
                for search in self.searches
                for row, history in zip(search.rows, search.histories, strict=True)
            ),
        )
        if beams > 1:
            best, ids = scores.topk(min(2 * beams, scores.shape[1]))  # [R, K]
        else:
            best, ids = scores.max(-1, keepdim=True)  # [R, 1]
        best, ids = best.tolist(), ids.tolist()
        if not all(best[row][0] > -math.inf for search in self.searches for row in search.rows):
            raise ValueError(
                "the model gives no finite score to any id: are the weights NaN, or float16 too small for them?"
            )
        for search, sampler in self.samplers.items():
            if search.result is None:
                ids[search.rows[0]] = [sampler(scores[search.rows[0]])]
        return {
            search: search.advance(
                best[search.rows.start : search.rows.stop], ids[search.rows.start : search.rows.stop]
            )
            for search in self.searches
        }

    def scores(self, hidden: Tensor) -> Tensor:
        """Logits [R, V] behind hidden [R, D]; -inf where a guide allows no id.

        Rows that may be followed by the same ids go through the output layer together, through its rows for these ids
        alone: inside a box these are the locations, a fiftieth of a published network's vocabulary.
        """
        alike: dict[tuple[range, ...] | None, list[int]] = {}
        for search in self.searches:
            for row, state in zip(search.rows, search.states, strict=True):
                guide = search.options.guide
                alike.setdefault(None if guide is None else guide.allowed(state), []).append(row)
        if set(alike) == {None}:
            return self.network.logits(hidden).float()[:, : self.vocab_size]
        size = self.model.config.text.vocab_size if self.vocab_size is None else self.vocab_size
        scores = torch.full((len(hidden), size), -math.inf, device=self.device)
        for allowed, rows in alike.items():
            index: slice | Tensor = slice(None)
            if len(rows) < len(hidden):
                index = on_device(self.device, rows)
            states = hidden[index]
            for ids in allowed or (range(size),):
                scores[index, ids.start : ids.stop] = self.network.logits(states, ids).float()
        return scores


def with_states(search: Search, first: Tensor, states: list[Tensor]) -> Generated:
    """The result of a search with the states that predicted it.

    first: [2, D], behind the prefix and behind the forced first id; states: [R, D] of every step.
    """
    rows, trail = [], search.trail
    while trail:
        trail, row = trail
        rows.append(row)
    ids = search.result.ids
    forced = len(ids) - search.result.truncated - len(rows)  # ids that no step predicted
    if search.result.truncated or forced >= len(first):
        return search.result
    stepped = zip(states[: len(rows)], reversed(rows), strict=True)
    predicting = [*first[len(first) - 1 - forced : -1], *(step[row] for step, row in stepped)]
    return replace(search.result, states=torch.stack(predicting))
