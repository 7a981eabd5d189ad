"""A whole `Florence` small enough for a test: random weights, answers of boxes, words and different lengths."""

import numpy as np
import torch
from PIL import Image

from florence_lite.cards import CheckpointCard
from florence_lite.florence import Florence
from florence_lite.model import FlorenceConfig, FlorenceModel, TextConfig, VisionConfig
from florence_lite.tokens import Tokenizer
from tests.engine.models import enliven

SIDES = ("encoder", "decoder")
POSITIONS = 160


def tiny_config(prompt_side: str = "encoder", vocab_size: int = 1400, **changes) -> FlorenceConfig:
    """Two vision stages and a grid of 8 × 6 image tokens; `changes` replace top-level fields."""
    values = {
        "vision": VisionConfig(
            dims=(16, 32),
            depths=(1, 1),
            heads=(2, 4),
            groups=(2, 4),
            patch_sizes=(7, 3),
            strides=(4, 2),
            paddings=(3, 1),
            prenorm=(False, True),
            window=4,
        ),
        "text": TextConfig(
            vocab_size=vocab_size,
            d_model=32,
            encoder_layers=1,
            decoder_layers=2,
            heads=4,
            ffn_dim=48,
            positions=POSITIONS,
        ),
        "image_size_wh": (64, 48),
        "prompt_side": prompt_side,
    }
    return FlorenceConfig(**values | changes)


def tiny_florence(tokenizer: Tokenizer, prompt_side: str, eos_gain: float | None = 2.8) -> Florence:
    """Answers of at most 24 ids unless a call says otherwise; eos_gain: see `enliven`."""
    config = tiny_config(prompt_side, tokenizer.vocabulary.size)
    card = CheckpointCard(
        name="tiny",
        summary="random weights",
        source="nobody/tiny",
        licence="MIT",
        image_size_wh=config.image_size_wh,
        tasks=(),
        decoding={"max_new_tokens": 24},
    )
    torch.manual_seed(2)
    model = FlorenceModel(config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    enliven(model, 2, eos_gain)
    with torch.no_grad():
        for layer in model.decoder.layers:  # sharp attention, or every image and prompt would get the same answer
            layer.cross_attention.q_proj.weight *= 30
            layer.attention.q_proj.weight *= 2
            layer.attention.out_proj.weight *= 2
    return Florence(model, tokenizer, card)


def noise_image(seed: int, size_wh: tuple[int, int] = (90, 70)) -> Image.Image:
    """An RGB picture of coarse random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size_wh, Image.Resampling.NEAREST)
