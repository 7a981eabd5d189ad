"""Networks from and to transformers in memory, through the small files that both sides read and write."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from florence_lite.checkpoint.companions import read_decoding, read_preprocessor
from florence_lite.checkpoint.configs import read_config
from florence_lite.checkpoint.loading import load_tensors, resolve_dtype
from florence_lite.checkpoint.pretrained import Pretrained
from florence_lite.model import FlorenceModel
from florence_lite.tokens import Tokenizer

NATIVE_CLASS = "Florence2ForConditionalGeneration"


def from_transformers(model: Any, processor: Any) -> Pretrained:
    """The parts of a checkpoint out of transformers' objects; arguments and errors are those of
    `Florence.from_transformers`."""
    if hasattr(model, "merge_and_unload"):
        raise ValueError("model has an adapter that is not merged; give model.merge_and_unload()")
    if type(model).__name__ != NATIVE_CLASS:
        raise ValueError(f"model is a {type(model).__name__}; from_transformers takes a {NATIVE_CLASS}")
    for part in ("tokenizer", "image_processor"):
        if not hasattr(getattr(processor, part, None), "save_pretrained"):
            raise ValueError(
                f"processor is a {type(processor).__name__} without {part}; give that of the model: "
                "AutoProcessor.from_pretrained(…)"
            )
    tensors = model.state_dict()
    if elsewhere := next((name for name, tensor in tensors.items() if tensor.is_meta), None):
        raise ValueError(f"{elsewhere} is not in memory; load the model without device_map")
    device = next(iter(tensors.values())).device
    dtype = resolve_dtype("auto", model.dtype, device)
    with tempfile.TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        model.config.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)
        network = FlorenceModel(read_config(folder))
        tokenizer, preprocessor = Tokenizer.from_file(folder), read_preprocessor(folder)
        decoding = read_decoding(folder)
    load_tensors(network, tensors.items(), f"transformers' {NATIVE_CLASS}", dtype, device)
    network.projector.to(device, dtype)  # the constant table, which is no tensor of the model
    return Pretrained(network.eval(), tokenizer, preprocessor, decoding, None, (), None, None)


def to_transformers(folder: Path, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    """transformers' model, in evaluation mode, and processor of a folder in the native layout."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError("to_transformers needs the package transformers: pip install 'transformers>=5'") from error

    # Read and not mapped, for the folder goes; prepared by Pillow, as here, so that pixels are the same.
    model = transformers.Florence2ForConditionalGeneration.from_pretrained(folder, dtype=dtype)
    return model.eval().to(device), transformers.AutoProcessor.from_pretrained(folder, backend="pil")
