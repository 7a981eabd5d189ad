"""Writing a network as a checkpoint folder, in the layout of transformers' own class or of Microsoft's code."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file

from florence_lite.checkpoint.configs import config_to_json
from florence_lite.checkpoint.layouts import LAYOUTS, Layout
from florence_lite.model import FlorenceModel


def save_checkpoint(
    model: FlorenceModel, folder: str | os.PathLike, dtype: torch.dtype | None = None, layout: str = "native"
) -> None:
    """Write `config.json` and `model.safetensors` into `folder` (made if absent), tensors as `dtype` if given.

    layout: "native", what transformers' Florence-2 class loads, or "original", what Microsoft's code loads.
    Each file replaces its predecessor at once, so that an interrupted call leaves no half-written file.
    Raises ValueError for another layout.
    """
    form, folder = find_layout(layout), Path(folder)
    config = json.dumps(config_to_json(model.config, layout), indent=2) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        form.name_of(name): tensor.T if name in form.transposed else tensor
        for name, tensor in model.state_dict().items()
    }
    tensors[form.frame_positions] = model.projector.frame_positions
    for name in form.zeros:
        tensors[name] = model.embed_tokens.weight.new_zeros(1, model.config.text.vocab_size)
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    partial = folder / "model.safetensors.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.replace(folder / "model.safetensors")
    partial = folder / "config.json.partial"
    partial.write_text(config, encoding="utf-8")
    partial.replace(folder / "config.json")


def find_layout(name: str) -> Layout:
    """The layout called `name`; ValueError lists the layouts."""
    if name not in LAYOUTS:
        raise ValueError(f"layout is {name!r}; it must be one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
