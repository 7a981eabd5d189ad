"""The network by the compiled kernels: what `FlorenceModel` computes, under the same names, in less time."""

from __future__ import annotations

import torch
from torch import Tensor

from florence_lite.engine.fast import transformer, vision
from florence_lite.engine.fast.linear import dense, is_plain, linear, matrix
from florence_lite.engine.fast.precision import Weights, check_precision
from florence_lite.engine.fast.steps import FastSteps
from florence_lite.engine.steps import PlainSteps
from florence_lite.model import CrossCache, FlorenceModel, SelfCache
from florence_lite.model.device import BF16_INSTRUCTIONS, cpu_instructions


class FastModel:
    """A network on its way to answers. It holds nothing: the weights are read where the model has them, every time.

    What the kernels do not know, the model does itself: parts with adapters or hooks, other precisions, other devices,
    training, an installation without kernels. See `FlorenceModel` for the methods.
    """

    def __init__(self, model: FlorenceModel, precision: str = "fp32"):
        """precision: one of `PRECISIONS`; less than "fp32" changes answers. Of the decoding steps; "bf16" also of the
        vision tower, where the processor has instructions for it."""
        self.plain = model
        self.weights = Weights(check_precision(precision, model.embed_tokens.weight.device))
        self._vision_in_bf16 = precision == "bf16" and has_bf16()

    def __getattr__(self, name: str):
        if name == "plain":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self.plain, name)  # config, tables, …

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        if self._vision_in_bf16:
            with torch.autocast("cpu", torch.bfloat16):
                features = self.plain.vision(pixel_values)
            return self.plain.projector(features.float())
        if not vision.can(self.plain.vision):
            return self.plain.encode_image(pixel_values)
        return self.plain.projector(vision.features(self.plain.vision, pixel_values))

    def encode(
        self, image_features: Tensor, prompt_ids: Tensor | None = None, prompt_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        run = {"run": transformer.encoder_layer} if is_plain(self.plain.encoder) else {}
        return self.plain.encode(image_features, prompt_ids, prompt_mask, **run)

    def cross_cache(self, encoder_hidden_states: Tensor) -> CrossCache:
        if not is_plain(self.plain.decoder):
            return self.plain.cross_cache(encoder_hidden_states)
        states = encoder_hidden_states.contiguous()
        pairs = [transformer.keys_values(layer.cross_attention, states) for layer in self.plain.decoder.layers]
        # Every step reads them all: head by head, in the order of memory, takes half as long as row by row.
        return CrossCache(tuple(k.contiguous() for k, _ in pairs), tuple(v.contiguous() for _, v in pairs))

    def self_cache(self, rows: int, max_length: int) -> SelfCache:
        return self.plain.self_cache(rows, max_length)

    def decode(self, *arguments, **named) -> Tensor:
        run = {"run": transformer.decoder_layer} if is_plain(self.plain.decoder) else {}
        return self.plain.decode(*arguments, **named, **run)

    def logits(self, hidden: Tensor, ids: range | None = None) -> Tensor:
        head = self.plain.embed_tokens if self.plain.lm_head is None else self.plain.lm_head
        if not is_plain(head):
            return self.plain.logits(hidden, ids)
        if ids is None:
            return linear(head, hidden.contiguous())
        return dense(
            matrix(head.weight, None), hidden.contiguous(), hidden.new_empty(*hidden.shape[:-1], len(ids)), ids
        )

    def steps(self) -> FastSteps | PlainSteps:
        parts = (self.plain.decoder, self.plain.embed_tokens, self.plain.lm_head)
        if all(part is None or is_plain(part) for part in parts):
            return FastSteps(self.plain, self.weights)
        return PlainSteps(self.plain)


def has_bf16() -> bool:
    """Whether the processor multiplies in bfloat16; others take longer than in float32."""
    return not (cpu_instructions() or set()).isdisjoint(BF16_INSTRUCTIONS)
