"""The network by compiled kernels or CUDA graphs: what `FlorenceModel` computes, under the same names, in less time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from florence_lite.engine.fast import flash, graphs, kernel, transformer, vision
from florence_lite.engine.fast.linear import dense, is_plain, linear, matrix
from florence_lite.engine.fast.precision import Weights, check_precision
from florence_lite.engine.fast.static_steps import StaticSteps
from florence_lite.engine.fast.steps import FastSteps
from florence_lite.engine.steps import PlainSteps
from florence_lite.model import CrossCache, FlorenceModel, SelfCache
from florence_lite.model.device import cpu_instructions

IMAGES_OF_GRAPHS = 2  # more of them keep a GPU busy without a graph, which would keep the memory of what layers make
BYTES_IN_CACHES = 2**27


class FastModel:
    """A network on its way to answers. Weights in float32 are read where the model has them, every time; kept are
    copies in fewer bits, for less precision or for guesses: a half or a quarter of the bytes of the decoder and the
    output layer, in "bf16" of the vision tower, too. On a GPU, vision tower, encoder and decoding steps are CUDA
    graphs, which are kept for the next call (`graphs`).

    What kernels and graphs do not know, the model does itself, in its own precision: parts with adapters or hooks,
    training, autocast, other devices, an installation without kernels. See `FlorenceModel` for the methods.
    """

    def __init__(self, model: FlorenceModel, precision: str = "fp32"):
        """precision: one of `PRECISIONS`; less than "fp32" changes answers. Of the decoding steps; "bf16" also of the
        vision tower, where the processor has instructions for it."""
        self.plain = model
        self.weights = Weights(
            check_precision(precision, model.embed_tokens.weight.device, model.embed_tokens.weight.dtype)
        )
        self.graphs = graphs.Pool()
        in_tiles, in_kernels = (precision == "bf16" and has() for has in (has_bf16_tiles, kernel.has_bf16))
        self._under_autocast = in_tiles
        # By which the next ids are guessed, and then checked.
        self.drafts = Weights("int8") if precision == "fp32" and large_decoder(model) else None
        self._of_vision = self.weights if in_kernels else Weights()

    def __getattr__(self, name: str):
        if name == "plain":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self.plain, name)  # config, tables, …

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        if self._under_autocast:
            with torch.autocast("cpu", torch.bfloat16):
                features = self.plain.vision(pixel_values)
            return self.plain.projector(features.float())
        weights = self._capturable(self.plain.vision, self.plain.projector)
        if weights is not None and len(pixel_values) <= IMAGES_OF_GRAPHS:
            return graphs.call(self.graphs, weights, self.plain.encode_image, pixel_values)
        if not vision.can(self.plain.vision):
            return self.plain.encode_image(pixel_values)
        return self.plain.projector(vision.features(self.plain.vision, pixel_values, self._of_vision))

    def encode(
        self, image_features: Tensor, prompt_ids: Tensor | None = None, prompt_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        weights = self._capturable(self.plain.encoder, self.plain.embed_tokens)
        if weights is not None and len(image_features) <= IMAGES_OF_GRAPHS:
            return graphs.call(self.graphs, weights, self.plain.encode, image_features, prompt_ids, prompt_mask)
        run = {"run": transformer.encoder_layer} if is_plain(self.plain.encoder) else {}
        if weights is not None and prompt_mask is not None and flash.can(image_features):
            run = {"run": flash.EncoderLayers()}
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

    def steps(self) -> FastSteps | StaticSteps | PlainSteps:
        parts = (self.plain.decoder, self.plain.embed_tokens, self.plain.lm_head)
        if all(part is None or is_plain(part) for part in parts):
            return FastSteps(self.plain, self.weights, self.drafts)
        weights = self._capturable(self.plain.decoder, self.plain.embed_tokens)
        if weights is not None:
            return StaticSteps(self.plain, self.graphs, weights)
        return PlainSteps(self.plain)

    def _capturable(self, *parts: nn.Module) -> int | None:
        """`graphs.state_of`, not asked where there can be no graphs."""
        return graphs.state_of(*parts) if self.plain.embed_tokens.weight.device.type == "cuda" else None


def has_bf16_tiles() -> bool:
    """Whether the processor multiplies whole tiles in bfloat16, which torch knows to use and the kernels do not."""
    return "amx_bf16" in (cpu_instructions() or set())


def large_decoder(model: FlorenceModel) -> bool:
    """Whether a step has to read its weights from memory: those of less stay in a processor's caches."""
    head = model.embed_tokens if model.lm_head is None else model.lm_head
    parts = (*model.decoder.layers.parameters(), head.weight)
    return sum(weight.nbytes for weight in parts) > BYTES_IN_CACHES
