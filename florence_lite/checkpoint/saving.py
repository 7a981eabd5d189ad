"""Writing a network as a checkpoint folder, in the layout of transformers' own class or of Microsoft's code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from florence_lite.checkpoint.configs import config_to_json
from florence_lite.checkpoint.layouts import DECODER_EMBEDDING, EMBEDDING, LAYOUTS, OUTPUT, ROWS, TABLES, Layout
from florence_lite.files import replace_text, replacing
from florence_lite.model import FlorenceModel


def save_checkpoint(
    model: FlorenceModel,
    folder: str | os.PathLike,
    dtype: torch.dtype | None = None,
    layout: str = "native",
    image_token_id: int | None = None,
    decoding: Mapping[str, Any] | None = None,
) -> None:
    """Write `config.json` and `model.safetensors` into `folder` (made if absent), tensors as `dtype` if given.

    layout: "native", what transformers' Florence-2 class loads, or "original", what Microsoft's code loads.
    image_token_id: `Tokenizer.image_id`, for which transformers' class needs a row in the table of ids; native files
        get more rows if there is none. decoding: fields of `GenerationOptions` for Microsoft's code.
    The output layer is always written for Microsoft's code, which never ties it to the token embeddings; for
    transformers only where the network has one of its own. Where the decoder has a table of its own, a third one is
    written for transformers' class, which never reads it.
    Each file replaces its predecessor at once, so that an interrupted call leaves no half-written file.
    Raises ValueError for another layout and for what it cannot express.
    """
    form, folder = find_layout(layout), Path(folder)
    parameters, network = model.state_dict(), model.config
    if layout == "native" and image_token_id is not None:
        for name in parameters.keys() & set(TABLES):
            parameters[name] = lengthened(parameters[name], image_token_id + 1)
        network = replace(network, text=replace(network.text, vocab_size=len(parameters[EMBEDDING])))
    if layout == "original":
        parameters.setdefault(OUTPUT, parameters[EMBEDDING].clone())
    config = json.dumps(config_to_json(network, layout, image_token_id, decoding), indent=2) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        form.name_of(name): tensor.T if name in form.transposed else tensor for name, tensor in parameters.items()
    }
    if DECODER_EMBEDDING in parameters:  # transformers' class then has a third table, which it never reads
        tensors[form.encoder_table] = parameters[EMBEDDING].clone()
    tensors[form.frame_positions] = model.projector.frame_positions
    for name in form.zeros:
        tensors[name] = model.embed_tokens.weight.new_zeros(1, network.text.vocab_size)
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    with replacing(folder / "model.safetensors") as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
    replace_text(folder / "config.json", config)


def lengthened(table: Tensor, least: int) -> Tensor:
    """`table` [V, D] with at least so many rows; rows that are added hold the mean of the others.

    A mean row's score is the mean of the scores, so that no search ever takes it.
    """
    if len(table) >= least:
        return table
    rows = -(-least // ROWS) * ROWS - len(table)
    return torch.cat([table, table.float().mean(0, keepdim=True).to(table.dtype).expand(rows, -1)])


def find_layout(name: str) -> Layout:
    """The layout called `name`; ValueError lists the layouts."""
    if name not in LAYOUTS:
        raise ValueError(f"layout is {name!r}; it must be one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
