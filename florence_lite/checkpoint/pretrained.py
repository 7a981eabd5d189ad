"""A checkpoint with everything that belongs to it, from whatever its name leads to."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from florence_lite.cards import Calibration, CheckpointCard
from florence_lite.cards.calibration import FILE as CALIBRATION
from florence_lite.checkpoint.adapter_config import adapter_base
from florence_lite.checkpoint.adapters import load_adapter
from florence_lite.checkpoint.companions import read_decoding, read_preprocessor
from florence_lite.checkpoint.loading import load_checkpoint
from florence_lite.checkpoint.locate import find_base, find_checkpoint, is_adapter
from florence_lite.garbage import uncollected
from florence_lite.inference.domain import Domain
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.model import FlorenceModel
from florence_lite.tokens import Tokenizer


class Pretrained(NamedTuple):
    """model: adapters merged. card: of the checkpoint, or None. decoding: its own defaults, of its folder and its card,
    fields of `GenerationOptions`. adapters: the folders of those that were merged. domain: of a checkpoint that knows
    one kind of pictures, if it has one. calibration: of these weights, from their folder or their card; None with an
    adapter."""

    model: FlorenceModel
    tokenizer: Tokenizer
    preprocessor: Preprocessor
    decoding: dict[str, Any]
    card: CheckpointCard | None
    adapters: tuple[Path, ...]
    domain: Domain | None
    calibration: Calibration | None


@uncollected()
def load_pretrained(
    name: str | os.PathLike,
    dtype: torch.dtype | str = "auto",
    device: str | torch.device = "cpu",
    revision: str | None = None,
    subfolder: str | None = None,
    adapter: str | os.PathLike | None = None,
) -> Pretrained:
    """The parts of a checkpoint; arguments and errors are those of `Florence.from_pretrained`."""
    folder, card = find_checkpoint(name, revision, subfolder)
    adapters = [find_checkpoint(adapter).folder] if adapter is not None else []
    if is_adapter(folder):
        adapters.insert(0, folder)
        folder, card = find_base(name, adapter_base(folder))
    model = load_checkpoint(folder, dtype, device)
    for each in adapters:
        model = load_adapter(model, each)
    if adapters and card is not None:
        # An adapter was trained on pictures and prompts of its own, and makes other weights.
        card = replace(card, for_photographs="", calibration=None, words={})
    # A fine-tune may bring a tokenizer of its own.
    with_tokenizer = next((each for each in reversed(adapters) if (each / "tokenizer.json").is_file()), folder)
    size_wh = model.config.image_size_wh
    if card is not None and card.source == "embedded":  # then the card says how images are prepared
        preprocessor = Preprocessor(size_wh, mean=card.mean, std=card.std)
    else:
        preprocessor = read_preprocessor(folder, size_wh)
    tokenizer = Tokenizer.from_file(with_tokenizer)
    domain = Domain.read(folder) if card is not None and card.for_photographs else None
    calibration = card.calibration if card is not None else None
    if not adapters and (folder / CALIBRATION).is_file():
        calibration = Calibration.read(folder / CALIBRATION)
    decoding = read_decoding(folder) | (dict(card.decoding) if card is not None else {})
    return Pretrained(model, tokenizer, preprocessor, decoding, card, tuple(adapters), domain, calibration)
