"""What happens to a prompt about an image before and after its answer is decoded: it is read, and the ids are scored.

Of phrases it is asked first whether they are present at all, many at a time; only those that are get an answer.
`continuous` decodes between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from florence_lite.engine import Generated, GenerationOptions, Scores, score
from florence_lite.engine.options import Guide
from florence_lite.engine.prefill import Prefix, prefill
from florence_lite.engine.score import by_states
from florence_lite.engine.steps import Source, stacked
from florence_lite.inference.batching import MEMORY, prefix_tokens, room_for_rows, row_bytes, source_bytes
from florence_lite.inference.chunks import chunks
from florence_lite.inference.encoded import EncodedImage
from florence_lite.inference.presence import Opening, openings, openings_with_labels
from florence_lite.inference.scores import TOLERANCE
from florence_lite.model import FlorenceModel
from florence_lite.model.device import inference_mode
from florence_lite.tokens import Vocabulary

ENCODED_AT_ONCE = 8  # prompts that go through the encoder together, each behind all tokens of its image


class Row(NamedTuple):
    """A prompt about an image. size: how many ids take part. label_ids: of a phrase whose presence is asked first, as
    an answer would repeat it ([]: it would not); None where the presence of nothing is asked; is_present: from its
    log-odds, whether it is answered. options, make_guide: of an answer, if it gets one."""

    image: EncodedImage
    prompt_ids: list[int]
    options: GenerationOptions
    size: int
    label_ids: list[int] | None = None
    is_present: Callable[[float], bool] = lambda log_odds: True
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

    def row_bytes(self, row: Row) -> int:
        """Memory that decoding an answer takes, beside what it attends to."""
        text = self.model.config.text
        prompt = 1 if self.model.config.prompt_side == "encoder" else len(row.prompt_ids)
        positions = min(prompt + 1 + row.options.max_new_tokens, text.positions)
        return row_bytes(self.model.config, self._bytes_each, positions, row.options.num_beams)

    def source_bytes(self, row: Row) -> int:
        """Memory of what it attends to: where prompts go to the decoder, once for all rows of an image."""
        config = self.model.config
        prompt = len(row.prompt_ids) if config.prompt_side == "encoder" else 0
        return source_bytes(config, self._bytes_each, config.image_tokens + prompt)

    @property
    def room(self) -> int:
        """Bytes that all rows together may take."""
        return room_for_rows(self.memory, self.model.config, self._bytes_each, self._device)

    @property
    def _device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    @property
    def _bytes_each(self) -> int:
        return self.model.embed_tokens.weight.element_size()

    @inference_mode()
    def begin(self, rows: Sequence[Row]) -> list[Begun]:
        """Read the prompts of rows, and ask for presences. Prompts of similar length go through the encoder together,
        a few at a time."""
        if self.model.config.prompt_side == "decoder":
            images = list({id(row.image): row.image for row in rows}.values())
            sources = [Source(image.cross_cache(self.model)) for image in images]
            numbers = {id(image): number for number, image in enumerate(images)}
            return self._begin(rows, sources, [numbers[id(row.image)] for row in rows])
        begun: dict[int, Begun] = {}
        for few in chunks(sorted(range(len(rows)), key=lambda place: len(rows[place].prompt_ids)), ENCODED_AT_ONCE):
            part = [rows[place] for place in few]
            states, mask = self.encode([row.image for row in part], [row.prompt_ids for row in part])
            sources = Source.all_of(self.model.cross_cache(states), mask)
            begun |= zip(few, self._begin(part, sources, range(len(part))), strict=True)
        return [begun[place] for place in range(len(rows))]

    def _begin(self, rows: Sequence[Row], sources: Sequence[Source], images: Sequence[int]) -> list[Begun]:
        """The same of rows whose images are encoded. images: which of the sources each row is about."""
        model, batch = self.model, stacked(sources)
        cross, mask = batch[0].cross, batch[0].mask
        on_decoder = model.config.prompt_side == "decoder"
        # Where prompts go to the encoder, Florence's decoder starts from </s>, which also ends a prompt.
        prefixes = [row.prompt_ids if on_decoder else [self.vocabulary.eos] for row in rows]
        inputs = [[*prefix, *row.first] for prefix, row in zip(prefixes, rows, strict=True)]
        most = prefix_tokens(self.memory, model.config, self._bytes_each, self._device)
        read = prefill(model, cross, mask, inputs, images, most)
        alike: dict[tuple, list[int]] = {}  # rows whose presence is asked, those that may be asked together
        for place, row in enumerate(rows):
            if row.label_ids is not None:
                alike.setdefault((*row.first, row.size), []).append(place)
        opened: dict[int, Opening] = {}
        for places in alike.values():
            first, size = rows[places[0]].first, rows[places[0]].size
            if on_decoder:
                found = openings(model, self.vocabulary, [read[place] for place in places], first, size)
            else:
                few = stacked([batch[place] for place in places])[0]
                labels, prefix = [rows[place].label_ids for place in places], prefixes[0]
                found = openings_with_labels(model, self.vocabulary, few.mask, few.cross, labels, prefix, first, size)
            opened |= zip(places, found, strict=True)
        if not on_decoder and len(sources) > 1:  # each leaves memory with its own row
            sources = [source.copied() for source in sources]
        return [
            Begun(row, sources[images[place]], prefixes[place], read[place], opened.get(place))
            for place, row in enumerate(rows)
        ]

    def encode(self, images: Sequence[EncodedImage], prompts: Sequence[list[int]]) -> tuple[Tensor, Tensor | None]:
        """Encoder states [R, S, D] and mask of image tokens with the prompt behind them, padded on the right."""
        longest, device = max(map(len, prompts)), self._device
        padded = [prompt + [self.vocabulary.pad] * (longest - len(prompt)) for prompt in prompts]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        mask = torch.arange(longest, device=device) < lengths[:, None]
        features = torch.stack([image.features for image in images])
        return self.model.encode(features, torch.tensor(padded, device=device), None if mask.all() else mask)

    def scores(self, answers: Sequence[tuple[Begun, Generated]]) -> list[Scores]:
        """Of answers: all at once by the states that decoding left, one by one where it left none."""
        found: dict[int, Scores] = {}
        by_size: dict[int, list[int]] = {}
        for place, (begun, generated) in enumerate(answers):
            if generated.states is None:
                [found[place]] = self._read_again(begun, generated)
            else:
                by_size.setdefault(begun.row.size, []).append(place)
        for size, places in by_size.items():
            some = [answers[place][1] for place in places]
            states, ids = torch.cat([each.states for each in some]), [each.ids for each in some]
            scores = by_states(self.model, states, ids, self.locations, self.tolerance, size)
            found |= zip(places, scores, strict=True)
        return [found[place] for place in range(len(answers))]

    def _read_again(self, begun: Begun, generated: Generated) -> list[Scores]:
        row, source = begun.row, begun.source
        return score(
            self.model, None, None, [begun.prefix], [generated.ids], self.locations, self.tolerance, source.unpadded,
            row.size, [begun.read] if row.first else None,
        )  # fmt: skip


class Begun(NamedTuple):
    """A row whose prompt is read.

    source: what its answer attends to. prefix: what the answer stands behind; read: the same with the forced first id,
    as the decoder read it. opening: how the answer would begin, where presence is asked.
    """

    row: Row
    source: Source
    prefix: list[int]
    read: Prefix
    opening: Opening | None

    def empty(self) -> Decoded:
        """The answer to a phrase that is absent."""
        generated = Generated([*self.row.first, self.row.options.eos], False)
        return Decoded(generated, self.opening.empty, self.opening.log_odds)
