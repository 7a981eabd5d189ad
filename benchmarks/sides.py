"""The same pieces of work by two sides: this library, and transformers' native Florence-2 as its users run it.

A side has the methods of `Ours`. All start and end with the same things, so that answers can be compared: pixels
float32 [B, 3, H, W], image features [B, N, D], states of the encoder [B, S, D], ids as lists. Prompts go to the
encoder, and every answer has exactly as many ids as were asked for: the end token never wins.
"""

from __future__ import annotations

import torch
import transformers
from peer import EOS, START, generate_native, lively_native
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from florence_lite.checkpoint import load_tensors
from florence_lite.engine import GenerationOptions, generate
from florence_lite.engine.fast import FastModel
from florence_lite.model import FlorenceConfig, FlorenceModel

PAD = 1


def build(config: FlorenceConfig, seed: int, device: str) -> tuple[FlorenceModel, transformers.PreTrainedModel]:
    """Both networks with the same random weights and an end token that never comes."""
    native = lively_native(config, seed)
    with torch.no_grad():
        native.get_input_embeddings().weight[EOS] = 0  # Its logit is 0: never among the best of thousands.
    ours = FlorenceModel(config).eval()
    load_tensors(ours, native.state_dict().items(), source="random weights")
    return ours.to(device), native.to(device)


class Ours:
    """The engine that answers are made with."""

    name = "florence-lite"

    def __init__(self, model: FlorenceModel):
        self.model = FastModel(model)

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


class Transformers:
    """transformers' own class; of several prompts each is one call, with its picture."""

    name = "transformers"

    def __init__(self, native: transformers.PreTrainedModel, config: FlorenceConfig):
        self.native, self.image = native, [config.text.vocab_size - 1] * config.image_tokens

    def vision(self, pixels: Tensor) -> Tensor:
        features = self.native.get_image_features(pixels).pooler_output
        return features.view(len(pixels), len(self.image), -1)

    def encoder(self, features: Tensor, prompt: list[int]) -> Tensor:
        ids = torch.tensor([prompt], device=features.device)
        embedded = torch.cat([features, self.native.get_input_embeddings()(ids)], dim=1)
        language = self.native.model.language_model
        states = language.encoder(inputs_embeds=embedded).last_hidden_state
        for layer in language.decoder.layers:  # what its first decoding step does, so that both do the same work
            layer.encoder_attn.k_proj(states), layer.encoder_attn.v_proj(states)
        return states

    def decode(self, states: Tensor, tokens: int, beams: int) -> list[list[int]]:
        return generate_native(self.native, tokens, beams, encoder_outputs=BaseModelOutput(last_hidden_state=states))

    def answer(self, pixels: Tensor, prompts: list[list[int]], tokens: int, beams: int = 1) -> list[list[int]]:
        each = len(prompts) // len(pixels)
        return [
            self._generate(pixels[number // each][None], [prompt], tokens, beams)[0]
            for number, prompt in enumerate(prompts)
        ]

    def _generate(self, pixels: Tensor, prompts: list[list[int]], tokens: int, beams: int) -> list[list[int]]:
        ids, mask = padded([self.image + prompt for prompt in prompts], pixels.device)
        return generate_native(self.native, tokens, beams, input_ids=ids, attention_mask=mask, pixel_values=pixels)


class TransformersBatched(Transformers):
    """The same with all prompts in one call, each with a copy of its picture: the best that its documentation shows."""

    name = "transformers, batched"

    def answer(self, pixels: Tensor, prompts: list[list[int]], tokens: int, beams: int = 1) -> list[list[int]]:
        return self._generate(pixels.repeat_interleave(len(prompts) // len(pixels), 0), prompts, tokens, beams)


def padded(rows: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """int64 [R, T], padded on the right, and the mask of what is no padding; None if nothing is."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, PAD).to(device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
    return ids, None if mask.all() else mask
