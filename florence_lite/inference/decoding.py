"""Requests in, ids with their probabilities out: batches whose work fits into a bound on memory.

Of phrases it is asked first whether they are present at all, many at a time; only those that are get an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from florence_lite.engine import Generated, GenerationOptions, Scores, generate, score
from florence_lite.engine.options import Guide
from florence_lite.engine.prefill import Prefix, prefill
from florence_lite.inference.batching import MEMORY, row_bytes, rows_at_once, tokens_at_once
from florence_lite.inference.chunks import chunks
from florence_lite.inference.encoded import EncodedImage
from florence_lite.inference.presence import Opening, openings, openings_with_labels
from florence_lite.inference.scores import TOLERANCE
from florence_lite.model import CrossCache, FlorenceModel
from florence_lite.tokens import Vocabulary


class Row(NamedTuple):
    """A prompt about an image. label_ids: of a phrase whose presence is asked first, as an answer would repeat it
    ([]: it would not); None where the presence of nothing is asked. options, make_guide: of an answer, if it gets
    one."""

    image: EncodedImage
    prompt_ids: list[int]
    options: GenerationOptions
    label_ids: list[int] | None = None
    make_guide: Callable[[], Guide | None] = lambda: None

    @property
    def first(self) -> list[int]:
        """The id that the answer is forced to begin with, if there is one."""
        return [] if self.options.forced_bos is None else [self.options.forced_bos]

    @property
    def answer_options(self) -> GenerationOptions:
        """How the answer is decoded: guided, and not empty where a phrase is present."""
        guide = self.make_guide() if self.options.guide is None else self.options.guide
        return replace(self.options, guide=guide, not_empty=self.options.not_empty or self.label_ids is not None)


class Decoded(NamedTuple):
    """log_odds: of the phrase being present, where it was asked; the answer of one that is not is empty."""

    generated: Generated
    scores: Scores
    log_odds: float | None = None


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

    @property
    def tolerance(self) -> int:
        """How many bins apart coordinates may be to count as one place."""
        return round(TOLERANCE * len(self.locations))

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
            found |= dict(zip(numbers, self._together(few, is_present, size), strict=True))
        return [found[number] for number in range(len(rows))]

    def at_once(self, rows: Sequence[Row]) -> int:
        """How many of the rows go through the network together, at least one."""
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

    def _together(self, rows: list[Row], is_present: Callable[[float], bool], size: int) -> list[Decoded]:
        begun = self.begin(rows, size)
        found = {place: begun.empty(place) for place, each in begun.opened.items() if not is_present(each.log_odds)}
        left = [place for place in range(len(rows)) if place not in found]
        for places, part in begun.of_equal_count(left):
            options = [row.answer_options for row in part.rows]
            answers = generate(self.model, part.states, part.mask, part.prefixes, options, part.cross, size, part.read)
            scores = self.scores(part, answers, size)
            for place, generated, each in zip(places, answers, scores, strict=True):
                opening = begun.opened.get(place)
                found[place] = Decoded(generated, each, opening and opening.log_odds)
        return [found[place] for place in range(len(rows))]

    @torch.inference_mode()
    def begin(self, rows: list[Row], size: int) -> Begun:
        """Read the prompts of rows that go through the network together, and ask for presences."""
        model = self.model
        if model.config.prompt_side == "encoder":
            states, mask = self.encode([row.image for row in rows], [row.prompt_ids for row in rows])
            cross = model.cross_cache(states)
            # Florence's decoder starts from </s>, which also ends a prompt.
            images, prefixes = list(range(len(rows))), [[self.vocabulary.eos]] * len(rows)
        else:
            of_rows = {id(row.image): row.image for row in rows}
            number = {each: place for place, each in enumerate(of_rows)}
            states, mask = torch.stack([image.hidden_states for image in of_rows.values()]), None
            cross = CrossCache.joined([image.cross_cache(model) for image in of_rows.values()])
            images, prefixes = [number[id(row.image)] for row in rows], [row.prompt_ids for row in rows]
        inputs = [[*prefix, *row.first] for prefix, row in zip(prefixes, rows, strict=True)]
        begun = Begun(rows, states, mask, cross, images, prefixes, prefill(model, cross, mask, inputs, images), {})
        asked = [place for place, row in enumerate(rows) if row.label_ids is not None]
        return begun._replace(opened=dict(zip(asked, self._opened(begun, asked, size), strict=True)))

    def encode(self, images: Sequence[EncodedImage], prompts: Sequence[list[int]]) -> tuple[Tensor, Tensor | None]:
        """Encoder states [R, S, D] and mask of image tokens with the prompt behind them, padded on the right."""
        longest, device = max(map(len, prompts)), self.model.embed_tokens.weight.device
        padded = [prompt + [self.vocabulary.pad] * (longest - len(prompt)) for prompt in prompts]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        mask = torch.arange(longest, device=device) < lengths[:, None]
        features = torch.stack([image.features for image in images])
        return self.model.encode(features, torch.tensor(padded, device=device), None if mask.all() else mask)

    def _opened(self, begun: Begun, asked: list[int], size: int) -> list[Opening]:
        """How the answers to the rows `asked` would begin."""
        if not asked:
            return []
        first = begun.rows[asked[0]].first
        if self.model.config.prompt_side == "decoder":
            return openings(self.model, self.vocabulary, [begun.read[place] for place in asked], first, size)
        part = begun.part(asked, asked)  # every row is an image of its own
        labels = [row.label_ids for row in part.rows]
        return openings_with_labels(
            self.model, self.vocabulary, part.states, part.mask, part.cross, labels, part.prefixes[0], first, size
        )

    def scores(self, part: Begun, answers: Sequence[Generated], size: int) -> Iterator[Scores]:
        """Of the answers to rows, equally many of each image: a few images at a time, or where there is one, a few of
        its rows, so that the bound on memory holds."""
        ids = [answer.ids for answer in answers]
        with_first = all(row.first for row in part.rows)
        longest = max(len(prefix) + len(each) for prefix, each in zip(part.prefixes, ids, strict=True))
        most = tokens_at_once(self.memory, self.model.config, self.model.embed_tokens.weight.element_size())
        at_once, each = max(1, most // longest), len(part.rows) // len(part.states)
        for images in chunks(range(len(part.states)), max(1, at_once // each)):
            few_images = slice(images[0], images[-1] + 1)
            rows = range(images[0] * each, (images[-1] + 1) * each)
            for few in chunks(rows, at_once if len(images) == 1 else len(rows)):
                chosen = slice(few[0], few[-1] + 1)
                yield from score(
                    self.model,
                    part.states[few_images],
                    None if part.mask is None else part.mask[few_images],
                    part.prefixes[chosen],
                    ids[chosen],
                    self.locations,
                    self.tolerance,
                    part.cross.part(few_images),
                    size,
                    part.read[chosen] if with_first else None,
                    [answer.states for answer in answers[chosen]],
                )


class Begun(NamedTuple):
    """Rows whose prompts are read.

    states: float [B, S, D] of B images; mask: bool [B, S] or None; cross: their keys and values.
    images: which of the B images each row is about. prefixes: what its answer stands behind; read: the same with the
        forced first id, as the decoder read it. opened: by place, of the rows whose presence is asked.
    """

    rows: list[Row]
    states: Tensor
    mask: Tensor | None
    cross: CrossCache
    images: list[int]
    prefixes: list[list[int]]
    read: list[Prefix]
    opened: dict[int, Opening]

    def empty(self, place: int) -> Decoded:
        """The answer to a phrase that is absent."""
        row, opening = self.rows[place], self.opened[place]
        return Decoded(Generated([*row.first, row.options.eos], False), opening.empty, opening.log_odds)

    def part(self, images: list[int], places: list[int]) -> Begun:
        """Some of the images and rows about them, equally many of each, which stand together."""
        rows, prefixes, read = ([each[place] for place in places] for each in (self.rows, self.prefixes, self.read))
        each = len(places) // len(images)
        own = [place // each for place in range(len(places))]
        states, mask, cross = self.states, self.mask, self.cross
        if images != list(range(len(states))):
            index = torch.tensor(images, device=states.device)
            states, mask, cross = states[index], None if mask is None else mask[index], cross.select(index)
        return Begun(rows, states, mask, cross, own, prefixes, read, {})

    def of_equal_count(self, places: Sequence[int]) -> Iterator[tuple[list[int], Begun]]:
        """The rows in parts of equally many of every image: (their places, the part)."""
        by_image: dict[int, list[int]] = {}
        for place in places:
            by_image.setdefault(self.images[place], []).append(place)
        by_count: dict[int, list[int]] = {}
        for image, of_image in by_image.items():
            by_count.setdefault(len(of_image), []).append(image)
        for images in by_count.values():
            chosen = [place for image in images for place in by_image[image]]
            yield chosen, self.part(images, chosen)
