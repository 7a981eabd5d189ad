"""Requests in, ids with their probabilities out: batches whose work fits into a bound on memory.

Of phrases it is asked first whether they are present at all, many at a time; only those that are get an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from florence_lite.engine import Generated, GenerationOptions, Scores, score
from florence_lite.engine.generate import decoding_steps
from florence_lite.engine.prefill import Prefix, prefill
from florence_lite.engine.running_score import RunningScore
from florence_lite.engine.search import Search
from florence_lite.inference.batching import MEMORY, row_bytes, rows_at_once, tokens_at_once
from florence_lite.inference.chunks import chunks
from florence_lite.inference.encoded import EncodedImage
from florence_lite.inference.presence import Opening, openings, openings_with_labels
from florence_lite.inference.scores import TOLERANCE
from florence_lite.model import CrossCache, FlorenceModel
from florence_lite.tokens import Vocabulary


class Row(NamedTuple):
    """A prompt about an image. label_ids: of a phrase whose presence is asked first, as an answer would repeat it
    ([]: it would not); None where the presence of nothing is asked. options: of an answer, if it gets one."""

    image: EncodedImage
    prompt_ids: list[int]
    options: GenerationOptions
    label_ids: list[int] | None = None

    @property
    def first(self) -> list[int]:
        """The id that the answer is forced to begin with, if there is one."""
        return [] if self.options.forced_bos is None else [self.options.forced_bos]


class Decoded(NamedTuple):
    """log_odds: of the phrase being present, where it was asked; the answer of one that is not is empty."""

    generated: Generated
    scores: Scores
    log_odds: float | None = None


class Writing(NamedTuple):
    """An answer that is being written.

    place: of its row. cross, mask: of its image. prefix: the ids it stands behind. log_odds: as in `Decoded`.
    """

    place: int
    search: Search
    cross: CrossCache
    mask: Tensor | None
    prefix: list[int]
    log_odds: float | None


Steps = Generator[list[Writing], None, list[Decoded]]


class Decoding:
    """The work of one network. memory: bytes that a batch may take beside the weights and the encoded images.

    One row is worked on however little that is.
    """

    def __init__(self, model: FlorenceModel, vocabulary: Vocabulary, memory: int = MEMORY):
        self.model, self.vocabulary, self.memory = model, vocabulary, memory

    @property
    def locations(self) -> range:
        """Ids of the coordinates."""
        return range(self.vocabulary.loc_first, self.vocabulary.loc_first + self.vocabulary.bins)

    @torch.inference_mode()
    def decode(self, rows: Sequence[Row], is_present: Callable[[float], bool], size: int) -> list[Decoded]:
        """One answer for each row, in order. is_present: from the log-odds of a phrase. size: how many ids take part.

        Raises ValueError for a prompt that is too long for the network.
        """
        order = range(len(rows))
        if self.model.config.prompt_side == "decoder":  # rows of an image stand together
            seen: dict[int, int] = {}
            places = [seen.setdefault(id(row.image), len(seen)) for row in rows]
            order = sorted(order, key=places.__getitem__)
        found: dict[int, Decoded] = {}
        for numbers in chunks(order, self.at_once(rows)):
            few = [rows[number] for number in numbers]
            found |= dict(zip(numbers, _last(self.steps(few, is_present, size)), strict=True))
        return [found[number] for number in range(len(rows))]

    def at_once(self, rows: Sequence[Row]) -> int:
        """How many of the rows may go through the network together."""
        config, each = self.model.config, self.model.embed_tokens.weight.element_size()
        prompt = max((len(row.prompt_ids) for row in rows), default=0)
        answer = max((row.options.max_new_tokens for row in rows), default=1)
        beams = max((row.options.num_beams for row in rows), default=1)
        if config.prompt_side == "encoder":
            positions, source = 2 + answer, config.image_tokens + prompt
        else:
            positions = prompt + 1 + answer
            source = config.image_tokens if len({id(row.image) for row in rows}) > 1 else 0
        positions = min(positions, config.text.positions)
        return rows_at_once(self.memory, config, each, row_bytes(config, each, positions, beams, source))

    @torch.inference_mode()
    def steps(self, rows: list[Row], is_present: Callable[[float], bool], size: int) -> Steps:
        """`decode` of rows that go through the network together, id by id: yields what is being written at the
        beginning and after every step. Returns the answers.

        The rows of an image stand together.
        """
        model = self.model
        if model.config.prompt_side == "encoder":
            states, mask = self._encode(rows)
            cross = model.cross_cache(states)
            # Florence's decoder starts from </s>, which also ends a prompt.
            places, prefixes = list(range(len(rows))), [[self.vocabulary.eos]] * len(rows)
        else:
            images = list({id(row.image): row.image for row in rows}.values())
            number = {id(image): place for place, image in enumerate(images)}
            states, mask = torch.stack([image.hidden_states for image in images]), None
            cross = _joined([image.cross_cache(model) for image in images])
            places, prefixes = [number[id(row.image)] for row in rows], [row.prompt_ids for row in rows]
        inputs = [[*prefix, *row.first] for prefix, row in zip(prefixes, rows, strict=True)]
        read = prefill(model, cross, mask, inputs, places)
        found: dict[int, Decoded] = {}
        opened = self._opened(rows, states, mask, cross, prefixes, read, size)
        for place, opening in opened.items():
            if not is_present(opening.log_odds):
                empty = Generated([*rows[place].first, rows[place].options.eos], False)
                found[place] = Decoded(empty, opening.empty, opening.log_odds)
        left = [place for place in range(len(rows)) if place not in found]
        for about, chosen in _of_equal_count(left, places):
            index = torch.tensor(about, device=states.device)
            whole = about == list(range(len(states)))
            part = (
                states if whole else states[index],
                mask if whole or mask is None else mask[index],
                cross if whole else cross.select(index),
            )
            few = [rows[place] for place in chosen]
            log_odds = [opened[place].log_odds if place in opened else None for place in chosen]
            behind = [prefixes[place] for place in chosen], [read[place] for place in chosen]
            answers = yield from self._answers(few, *part, *behind, chosen, log_odds, size)
            found |= dict(zip(chosen, answers, strict=True))
        return [found[place] for place in range(len(rows))]

    def running_score(self, writing: Writing, size: int) -> RunningScore:
        """What scores an answer while it is written."""
        most = writing.search.options.max_new_tokens
        about = writing.cross, writing.mask, writing.prefix
        return RunningScore(self.model, *about, most, self.locations, self.tolerance, size)

    @property
    def tolerance(self) -> int:
        """How many bins apart coordinates may be to count as one place."""
        return round(TOLERANCE * len(self.locations))

    def _encode(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor | None]:
        """Encoder states [R, S, D] and mask of image tokens with the prompt behind them, padded on the right."""
        lengths = [len(row.prompt_ids) for row in rows]
        padded = [row.prompt_ids + [self.vocabulary.pad] * (max(lengths) - len(row.prompt_ids)) for row in rows]
        device = self.model.embed_tokens.weight.device
        prompt_ids = torch.tensor(padded, device=device)
        mask = torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]
        features = torch.stack([row.image.features for row in rows])
        return self.model.encode(features, prompt_ids, None if mask.all() else mask)

    def _opened(
        self,
        rows: Sequence[Row],
        states: Tensor,
        mask: Tensor | None,
        cross: CrossCache,
        prefixes: Sequence[list[int]],
        read: Sequence[Prefix],
        size: int,
    ) -> dict[int, Opening]:
        """How the answers would begin of the rows whose presence is asked."""
        asked = [place for place, row in enumerate(rows) if row.label_ids is not None]
        if not asked:
            return {}
        first = rows[asked[0]].first
        if self.model.config.prompt_side == "decoder":
            found = openings(self.model, self.vocabulary, [read[place] for place in asked], first, size)
        else:
            index = torch.tensor(asked, device=states.device)
            if len(asked) < len(rows):
                states, mask, cross = states[index], None if mask is None else mask[index], cross.select(index)
            labels = [rows[place].label_ids for place in asked]
            found = openings_with_labels(
                self.model, self.vocabulary, states, mask, cross, labels, prefixes[0], first, size
            )
        return dict(zip(asked, found, strict=True))

    def _answers(
        self,
        rows: Sequence[Row],
        states: Tensor,
        mask: Tensor | None,
        cross: CrossCache,
        prefixes: Sequence[list[int]],
        read: Sequence[Prefix],
        places: Sequence[int],
        log_odds: Sequence[float | None],
        size: int,
    ) -> Steps:
        """Decode and score the answers to rows, equally many of each image. places: of the rows among all."""
        options = [row.options if row.label_ids is None else replace(row.options, not_empty=True) for row in rows]
        each = len(rows) // len(states)
        images = [slice(number // each, number // each + 1) for number in range(len(rows))]
        searches: list[Search] = []
        for searches in decoding_steps(self.model, states, mask, prefixes, options, cross, size, read):
            yield [
                Writing(place, search, cross.part(image), mask if mask is None else mask[image], prefix, odds)
                for place, search, image, prefix, odds in zip(places, searches, images, prefixes, log_odds, strict=True)
            ]
        answers = [search.result for search in searches]
        scores = self._scores(rows, states, mask, cross, prefixes, read, answers, size)
        return [Decoded(*answer) for answer in zip(answers, scores, log_odds, strict=True)]

    def _scores(
        self,
        rows: Sequence[Row],
        states: Tensor,
        mask: Tensor | None,
        cross: CrossCache,
        prefixes: Sequence[list[int]],
        read: Sequence[Prefix],
        answers: Sequence[Generated],
        size: int,
    ) -> Iterator[Scores]:
        """A few images at a time, or where there is one, a few of its rows, so that the bound on memory holds."""
        ids = [answer.ids for answer in answers]
        with_first = all(row.first for row in rows)
        longest = max(len(prefix) + len(each) for prefix, each in zip(prefixes, ids, strict=True))
        most = tokens_at_once(self.memory, self.model.config, self.model.embed_tokens.weight.element_size())
        at_once, each = max(1, most // longest), len(rows) // len(states)
        for images in chunks(range(len(states)), max(1, at_once // each)):
            part = slice(images[0], images[-1] + 1)
            numbers = range(part.start * each, part.stop * each)
            for few in chunks(numbers, at_once if len(images) == 1 else len(numbers)):
                chosen = slice(few[0], few[-1] + 1)
                yield from score(
                    self.model,
                    states[part],
                    None if mask is None else mask[part],
                    prefixes[chosen],
                    ids[chosen],
                    self.locations,
                    self.tolerance,
                    cross.part(part),
                    size,
                    read[chosen] if with_first else None,
                )


def _last(steps: Steps) -> list[Decoded]:
    """What the steps come to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def _of_equal_count(rows: Sequence[int], images: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The rows in groups of equally many of every image: (the images, their rows, which stand together).

    images: of every row, also of those that are not among `rows`.
    """
    by_image: dict[int, list[int]] = {}
    for row in rows:
        by_image.setdefault(images[row], []).append(row)
    by_count: dict[int, list[int]] = {}
    for image, of_image in by_image.items():
        by_count.setdefault(len(of_image), []).append(image)
    for alike in by_count.values():
        yield alike, [row for image in alike for row in by_image[image]]


def _joined(caches: Sequence[CrossCache]) -> CrossCache:
    """The keys and values of several images as those of a batch; of a single one, without a copy."""
    if len(caches) == 1:
        return caches[0]
    layers = range(len(caches[0].keys))
    return CrossCache(
        tuple(torch.cat([cache.keys[layer] for cache in caches]) for layer in layers),
        tuple(torch.cat([cache.values[layer] for cache in caches]) for layer in layers),
    )
