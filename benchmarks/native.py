"""The pieces of work of `ours.py` by transformers' native Florence-2, as its users run it."""

from __future__ import annotations

import torch
import transformers
from ours import padded
from peer import EOS, generate_native, lively_native
from PIL import Image
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from florence_lite.checkpoint import load_tensors
from florence_lite.model import FlorenceConfig, FlorenceModel


def build(
    config: FlorenceConfig, seed: int, device: str, dtype: torch.dtype
) -> tuple[FlorenceModel, transformers.PreTrainedModel]:
    """Both networks with the same random weights and an end token that never comes."""
    native = lively_native(config, seed)
    with torch.no_grad():
        native.get_input_embeddings().weight[EOS] = 0  # Its logit is 0: never among the best of thousands.
    ours = FlorenceModel(config).eval()
    load_tensors(ours, native.state_dict().items(), source="random weights")
    return ours.to(device, dtype), native.to(device, dtype)


class Transformers:
    """transformers' own class; of several prompts each is one call, with its picture."""

    name = "transformers"

    def __init__(self, native: transformers.PreTrainedModel, config: FlorenceConfig):
        self.native, self.image = native, [native.config.image_token_id] * config.image_tokens

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


class TransformersBf16(Transformers):
    """The same in bfloat16, of which what it takes and gives is float32."""

    name = "transformers, bf16"

    def vision(self, pixels: Tensor) -> Tensor:
        return super().vision(pixels.bfloat16()).float()

    def decode(self, states: Tensor, tokens: int, beams: int) -> list[list[int]]:
        return super().decode(states.bfloat16(), tokens, beams)


class TransformersCompiled(Transformers):
    """The same with a static cache, which its `generate` compiles for on a GPU: the fastest that its documentation
    shows, after a minute of compiling."""

    name = "transformers, compiled"

    def decode(self, states: Tensor, tokens: int, beams: int) -> list[list[int]]:
        encoded = BaseModelOutput(last_hidden_state=states)
        return generate_native(self.native, tokens, beams, encoder_outputs=encoded, cache_implementation="static")


class UserOfTransformers:
    """What its documentation shows, greedy; boxes and labels, no scores."""

    name = "transformers"

    def __init__(self, folder: str, device: str, dtype: torch.dtype):
        native = transformers.Florence2ForConditionalGeneration.from_pretrained(folder, dtype=dtype)
        self.native = native.to(device).eval()
        self.processor = transformers.AutoProcessor.from_pretrained(folder)

    def detect(self, image: Image.Image, tokens: int) -> list[int]:
        inputs = self.processor(text="<OD>", images=image, return_tensors="pt")
        inputs = inputs.to(self.native.device, self.native.dtype)
        ids = self.native.generate(**inputs, max_new_tokens=tokens, num_beams=1, do_sample=False)
        text = self.processor.batch_decode(ids, skip_special_tokens=False)[0]
        self.processor.post_process_generation(text, task="<OD>", image_size=image.size)
        return ids[0, 1:].tolist()
