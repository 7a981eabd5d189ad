"""Pieces of work by this library; `native.py` and `exported.py` do the same by others.

A side has the methods of `Ours`. All start and end with the same things, so that answers can be compared: pixels
float32 [B, 3, H, W], image features [B, N, D], states of the encoder [B, S, D], ids as lists. Prompts go to the
encoder, and every answer has exactly as many ids as were asked for: the end token never wins.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from florence_lite.engine import GenerationOptions, generate
from florence_lite.engine.fast import FastModel
from florence_lite.florence import Florence
from florence_lite.model import FlorenceModel
from florence_lite.tokens import Tokenizer

START, PAD = 2, 1


class Ours:
    """The engine that answers are made with."""

    name = "florence-lite"

    def __init__(self, model: FlorenceModel, precision: str = "fp32"):
        self.model = FastModel(model, precision)

    def vision(self, pixels: Tensor) -> Tensor:
        """Image features, projector included."""
        return self.model.encode_image(pixels)

    def encoder(self, features: Tensor, prompt: list[int]) -> Tensor:
        """States of one image and prompt; the keys and values of cross-attention are computed too."""
        states, _ = self.model.encode(features, torch.tensor([prompt], device=features.device))
        self.model.cross_cache(states)
        return states

    def decode(self, states: Tensor, tokens: int, beams: int) -> list[list[int]]:
        """Ids of the answer, greedy or by beam search, under Florence-2's defaults."""
        return self._decode(states, None, tokens, beams)

    def answer(self, pixels: Tensor, prompts: list[list[int]], tokens: int, beams: int = 1) -> list[list[int]]:
        """Answers to prompts about images, equally many about each, those about an image together."""
        features = self.vision(pixels).repeat_interleave(len(prompts) // len(pixels), 0)
        ids, mask = padded(prompts, pixels.device)
        return self._decode(*self.model.encode(features, ids, mask), tokens, beams)

    def _decode(self, states: Tensor, mask: Tensor | None, tokens: int, beams: int) -> list[list[int]]:
        options = GenerationOptions(tokens, beams, no_repeat_ngram_size=3, ban_bos_after_forced=False)
        return [answer.ids for answer in generate(self.model, states, mask, [[START]] * len(states), options)]


def padded(rows: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """int64 [R, T], padded on the right, and the mask of what is no padding; None if nothing is."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, PAD).to(device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
    return ids, None if mask.all() else mask


def save_for_users(model: FlorenceModel, tokenizer: Tokenizer, folder: str) -> None:
    """The files that a user of either library loads, with Florence-2's settings: no repeated 3-grams, forced `<s>`."""
    decoding = {"forced_bos": tokenizer.vocabulary.bos, "no_repeat_ngram_size": 3}
    Florence(model, tokenizer, decoding=decoding).save_pretrained(folder)


class UserOfOurs:
    """The whole call. Its scores come with it; answers are decoded as the checkpoint's files say, without guides,
    unless `guided`."""

    name = Ours.name

    def __init__(self, folder: str, device: str, dtype: torch.dtype, guided: bool = False):
        self.florence = Florence.from_pretrained(folder, dtype, device)
        self.options = {} if guided else {"compat": True}

    def detect(self, image: Image.Image, tokens: int) -> list[int]:
        """Ids of the answer to <OD>, which is parsed too."""
        return list(self.florence.run(image, "<OD>", max_new_tokens=tokens, **self.options).token_ids)
