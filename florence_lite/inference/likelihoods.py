"""How likely answers are that somebody else wrote: the choices of a question, the sentences of a search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from florence_lite.engine.likelihood import likelihoods, log_odds
from florence_lite.inference.batching import tokens_at_once
from florence_lite.inference.chunks import chunks
from florence_lite.inference.decoding import Decoding
from florence_lite.inference.encoded import EncodedImage
from florence_lite.inference.prompts import check_room
from florence_lite.model import CrossCache
from florence_lite.model.device import inference_mode
from florence_lite.tokens import Tokenizer

TOKENS_AT_ONCE = 4096  # ids that go through the network together, fewer where they would take too much memory
PROMPTS_AT_ONCE = 8  # prompts that go through the encoder together, each behind all tokens of its image


class Likelihoods:
    """The likelihoods of one network, natural logarithms, float64, found within the memory of `decoding`."""

    def __init__(self, decoding: Decoding, tokenizer: Tokenizer):
        self.decoding, self.model = decoding, decoding.model
        self.tokenizer, self.vocabulary = tokenizer, tokenizer.vocabulary

    @property
    def at_once(self) -> int:
        """Ids that go through the decoder together."""
        config, each = self.model.config, self.model.embed_tokens.weight.element_size()
        return min(TOKENS_AT_ONCE, tokens_at_once(self.decoding.memory, config, each))

    def ids(self, text: str) -> list[int]:
        """The ids of an answer with the end behind it."""
        return [*self.tokenizer.encode_plain(text), self.vocabulary.eos]

    @inference_mode()
    def of_texts(
        self, images: Sequence[EncodedImage], prompt_ids: list[int], texts: Sequence[str], first: int | None
    ) -> NDArray[np.float64]:
        """log P(text and end | image, prompt), [I, T], of every text as the answer to one prompt about every image.

        first: the id that answers are forced to begin with, which does not count; None where there is none.

        A prompt is read once for each image, whichever side it goes to. Raises ValueError for a prompt and a text that
        are too long for the network.
        """
        prefix = self._prefix(prompt_ids, first)
        ids = [self.ids(text) for text in texts]
        self._check_prompt(prompt_ids, prefix)
        for text, each in zip(texts, ids, strict=True):
            check_room("the text", text, len(each), self.model.config.text.positions + 1 - len(prefix))
        size = self.vocabulary.size
        rows = []
        for few in chunks(images, PROMPTS_AT_ONCE):
            cross = self._cross(few, [prompt_ids] * len(few))[0]
            rows.append(likelihoods(self.model, cross, None, prefix, ids, self.at_once, size).numpy())
        return np.concatenate(rows) if rows else np.zeros((0, len(texts)))

    @inference_mode()
    def odds(
        self, images: Sequence[EncodedImage], prompts: Sequence[list[int]], one: str, other: str, first: int | None
    ) -> NDArray[np.float64]:
        """log P(one | image, prompt) − log P(other | image, prompt), [I, T], of every prompt about every image: of the
        first ids in which the two answers differ. first: as in `of_texts`.
        """
        shared, ids = _differ(self.ids(one), self.ids(other))
        prefixes = [[*self._prefix(prompt_ids, first), *shared] for prompt_ids in prompts]
        for prompt_ids, prefix in zip(prompts, prefixes, strict=True):
            self._check_prompt(prompt_ids, prefix)
        if self.model.config.prompt_side == "decoder":
            rows = []
            for few in chunks(images, PROMPTS_AT_ONCE):
                cross = self._cross(few, [])[0]
                rows.append(log_odds(self.model, cross, None, prefixes, *ids, self.at_once).numpy())
            return np.concatenate(rows) if rows else np.zeros((0, len(prompts)))
        found = np.empty((len(images), len(prompts)))
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        for row, image in enumerate(images):
            for places in chunks(order, PROMPTS_AT_ONCE):
                cross, mask = self._cross([image] * len(places), [prompts[place] for place in places])
                values = log_odds(self.model, cross, mask, prefixes[:1], *ids, self.at_once)
                found[row, list(places)] = values[:, 0].numpy()
        return found

    def _prefix(self, prompt_ids: list[int], first: int | None) -> list[int]:
        """What answers stand behind. Florence's decoder starts from </s>, which also ends a prompt."""
        start = prompt_ids if self.model.config.prompt_side == "decoder" else [self.vocabulary.eos]
        return [*start, *([] if first is None else [first])]

    def _check_prompt(self, prompt_ids: list[int], prefix: list[int]) -> None:
        """Raise ValueError for a prompt that is too long, behind an image in the encoder or in `prefix`."""
        config, length = self.model.config, len(prompt_ids)
        others = config.image_tokens if config.prompt_side == "encoder" else len(prefix) - length
        check_room("the prompt", self.tokenizer.decode(prompt_ids), length, config.text.positions - others)

    def _cross(self, images: Sequence[EncodedImage], prompts: Sequence[list[int]]) -> tuple[CrossCache, Tensor | None]:
        """Keys and values of the images, with their prompts where these go to the encoder, and the mask of these."""
        if self.model.config.prompt_side == "decoder":
            return CrossCache.joined([image.cross_cache(self.model) for image in images]), None
        states, mask = self.decoding.encode(images, prompts)
        return self.model.cross_cache(states), mask


def _differ(one: list[int], other: list[int]) -> tuple[list[int], tuple[int, int]]:
    """What both begin with, and the two ids that follow it."""
    place = next(n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return one[:place], (one[place], other[place])
