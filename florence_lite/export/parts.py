"""A network in parts that run without Python, and the ONNX graphs of these.

What is computed is what `FlorenceModel` computes; here alone is said what goes into a part and what comes out, which
names these have, and which of their sizes are free.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from florence_lite.model import CrossCache, FlorenceModel, TextConfig

MOST_ROWS = 64  # rows of a decoder step


class Part(nn.Module):
    """A part of `model`."""

    def __init__(self, model: FlorenceModel):
        super().__init__()
        self.model = model
        self.eval()


class Vision(Part):
    def forward(self, pixel_values: Tensor) -> Tensor:
        """pixel_values [B, 3, H, W], normalised, to image_features [B, N, D]."""
        return self.model.encode_image(pixel_values)


class Encoder(Part):
    def forward(self, embedded: Tensor) -> Tensor:
        """Image features, and the embedded ids of an encoder-side prompt behind them, [1, S, D], to hidden states."""
        return self.model.encoder(embedded, None)


class CrossKeysValues(Part):
    def forward(self, encoder_hidden_states: Tensor) -> list[Tensor]:
        """[1, S, D] to what every decoder layer attends to: all keys, then all values, [1, heads, S, d] each."""
        cross = self.model.cross_cache(encoder_hidden_states)
        return [*cross.keys, *cross.values]


class PromptEncoder(Part):
    def forward(self, image_features: Tensor, prompt_ids: Tensor | None = None) -> list[Tensor]:
        """image_features [1, N, D] and prompt_ids int64 [1, T] of an encoder-side prompt to keys and values, as
        `CrossKeysValues`."""
        states, _ = self.model.encode(image_features, prompt_ids)
        return CrossKeysValues.forward(self, states)


class DecoderStep(Part):
    def forward(self, input_ids: Tensor, cross: list[Tensor], past: list[Tensor]) -> list[Tensor]:
        """One more id for each of R rows that answer a prompt about an image.

        input_ids: int64 [R, 1]. cross: keys, then values, [1, heads, S, d] each. past: keys, then values, of the
        self-attention so far, [R, heads, P, d] each.

        Returns logits [R, V], then `past` with the new id, [R, heads, P + 1, d] each.
        """
        layers = len(cross) // 2
        grown: list[Tensor | None] = [None] * len(past)

        def append(layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            for at, new in ((layer, keys), (layer + layers, values)):
                grown[at] = torch.cat([past[at], new], dim=2)
            return grown[layer], grown[layer + layers]

        cache: Any = SimpleNamespace(length=1, append=append)  # any length but 0, that of a plain causal call
        length = past[0].shape[2]
        positions = torch.arange(length, length + 1)[None]
        kept = CrossCache(tuple(cross[:layers]), tuple(cross[layers:]))
        hidden = self.model.decode(input_ids, kept, self_cache=cache, positions=positions)
        return [self.model.logits(hidden[:, -1]), *grown]


def graph(part: Part, inputs: tuple, free: dict[str, Any] | None, names: tuple[list[str], list[str]]) -> Any:
    """The ONNX program of a part: `torch.onnx.ONNXProgram`, which has `save`.

    inputs: examples of what `forward` takes. free: the sizes that are not fixed to those of the examples, as
    `torch.export` wants them. names: of the inputs and the outputs, in order.
    """
    with torch.no_grad(), quiet():
        return torch.onnx.export(
            part, inputs, dynamo=True, dynamic_shapes=free, input_names=names[0], output_names=names[1], verbose=False
        )


def vision_graph(model: FlorenceModel, images: int = 1) -> Any:
    """For so many images at once."""
    width, height = model.config.image_size_wh
    return graph(Vision(model), (torch.zeros(images, 3, height, width),), None, (["pixel_values"], ["image_features"]))


def encoder_graph(model: FlorenceModel) -> Any:
    """For one image, and one prompt of any length where it goes to the encoder."""
    config = model.config
    features = torch.zeros(1, config.image_tokens, config.text.d_model)
    outputs = key_value_names("cross", config.text)
    if config.prompt_side == "decoder":
        return graph(PromptEncoder(model), (features,), None, (["image_features"], outputs))
    tokens = torch.export.Dim("tokens", min=1, max=config.text.positions - config.image_tokens)
    free = {"image_features": {}, "prompt_ids": {1: tokens}}
    inputs = (features, torch.zeros(1, 3, dtype=torch.int64))
    return graph(PromptEncoder(model), inputs, free, (["image_features", "prompt_ids"], outputs))


def step_graph(model: FlorenceModel, source_length: int | None = None) -> Any:
    """For any number of rows and of ids so far. source_length: S, where it is always the same."""
    text = model.config.text
    heads, width = text.heads, text.d_model // text.heads
    rows, so_far = (
        torch.export.Dim("rows", min=1, max=MOST_ROWS),
        torch.export.Dim("past", min=1, max=text.positions - 1),
    )
    source = {2: torch.export.Dim("source", min=1, max=text.positions)} if source_length is None else {}
    cross = [torch.zeros(1, heads, source_length or 7, width) for _ in range(2 * text.decoder_layers)]
    past = [torch.zeros(3, heads, 5, width) for _ in cross]
    free = {"input_ids": {0: rows}, "cross": [source] * len(cross), "past": [{0: rows, 2: so_far}] * len(past)}
    inputs = ["input_ids", *key_value_names("cross", text), *key_value_names("past", text)]
    outputs = ["logits", *key_value_names("present", text)]
    return graph(DecoderStep(model), (torch.zeros(3, 1, dtype=torch.int64), cross, past), free, (inputs, outputs))


def key_value_names(kind: str, text: TextConfig) -> list[str]:
    """Names of keys, then values, of every decoder layer. kind: "cross", "past" or "present"."""
    return [f"{kind}_{what}_{layer}" for what in ("keys", "values") for layer in range(text.decoder_layers)]


@contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters tell of every node, and without the loggers that they set up for everyone."""
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
        root.setLevel(level)
