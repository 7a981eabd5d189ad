"""Low-rank adapters on the text side and the output layer, by `peft`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from florence_lite.checkpoint.adapters import WEIGHTS
from florence_lite.model import FlorenceModel

_LAYER = re.compile(r"(encoder|decoder)\.layers\.\d+\.")
OUTPUT_LAYER = "lm_head"


def add_lora(model: FlorenceModel, rank: int, targets: Sequence[str], base: str) -> nn.Module:
    """Put adapters into `model`, all else frozen; returns peft's view of it.

    rank: of the adapters; their scale is 2. targets: names of linear layers, such as "q_proj"; "lm_head" is the output
    layer, which then gets weights apart from the token embeddings. base: where the weights under the adapters came
    from, noted in the adapter's configuration.

    Raises ValueError for a target that is neither the output layer nor a layer of the encoder and decoder.
    """
    from peft import LoraConfig, PeftModel

    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and _LAYER.match(name)]
    linear.append(OUTPUT_LAYER)
    known = sorted({name.rsplit(".", 1)[-1] for name in linear})
    if unknown := sorted(set(targets) - set(known)):
        raise ValueError(f"lora_targets: the encoder and decoder have no layers called {unknown}; choose from {known}")
    if not targets:
        raise ValueError(f"lora_targets is empty; choose from {known}")
    if OUTPUT_LAYER in targets:
        model.untie_output()
    chosen = [name for name in linear if name.rsplit(".", 1)[-1] in targets]
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=chosen)
    lora.base_model_name_or_path = base
    return PeftModel(model, lora)


def save_adapter(adapter: nn.Module, folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`."""
    adapter.save_pretrained(str(folder), save_embedding_layers=False)
    shutil.copymode(folder / "adapter_config.json", folder / WEIGHTS[0])  # safetensors writes private files
