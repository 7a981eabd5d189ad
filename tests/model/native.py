"""Tiny random models of transformers' native Florence-2 class, the parity oracle of the tests."""

import pytest
import torch

from florence_lite.checkpoint import config_to_json, load_tensors
from florence_lite.model import FlorenceConfig, FlorenceModel, TextConfig, VisionConfig

TINY = FlorenceConfig(
    vision=VisionConfig(dims=(16, 32, 32, 64), depths=(1, 1, 2, 1), heads=(2, 4, 4, 8), groups=(2, 4, 4, 8), window=3),
    text=TextConfig(
        vocab_size=120, d_model=32, encoder_layers=2, decoder_layers=2, heads=4, ffn_dim=48, positions=128, dropout=0.1
    ),
    image_size_wh=(160, 128),
)


def native_pair(config: FlorenceConfig = TINY, seed: int = 0):
    """(our model, transformers' model) with the same random weights, both in evaluation mode."""
    transformers = pytest.importorskip("transformers")
    values = config_to_json(config)
    values["image_token_id"] = config.text.vocab_size - 1
    values["text_config"] |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    native_config = transformers.Florence2Config(**values)
    torch.manual_seed(seed)
    native = transformers.Florence2ForConditionalGeneration(native_config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        # The default initialisation is nearly constant; livelier weights make disagreement visible.
        scale = 0.3 * config.text.d_model**-0.5
        for parameter in native.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    ours = FlorenceModel(config).eval()
    load_tensors(ours, native.state_dict().items(), source="native")
    return ours, native


def native_inputs(config: FlorenceConfig, prompts: torch.Tensor):
    """input_ids of the native class for right-padded prompts: the image placeholder repeated, then the prompt."""
    image = prompts.new_full((len(prompts), config.image_tokens), config.text.vocab_size - 1)
    return torch.cat([image, prompts], dim=1)
