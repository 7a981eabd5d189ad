"""The network against transformers' native Florence-2 with the same random weights."""

import pytest
import torch

from florence_lite.model import FlorenceConfig
from tests.model.native import TINY, native_inputs, native_pair


def compare(config: FlorenceConfig, batch: int, tolerance: float):
    ours, native = native_pair(config)
    generator = torch.Generator().manual_seed(1)
    width, height = config.image_size_wh
    pixel_values = torch.randn(batch, 3, height, width, generator=generator)
    high = config.text.vocab_size - 1
    prompts = torch.randint(4, high, (batch, 7), generator=generator)
    answers = torch.randint(4, high, (batch, 9), generator=generator)
    prompt_mask = torch.ones(batch, 7, dtype=torch.bool)
    prompt_mask[0, 5:] = False
    with torch.inference_mode():
        input_ids = native_inputs(config, prompts)
        attention_mask = torch.cat([torch.ones(batch, config.image_tokens, dtype=torch.bool), prompt_mask], 1)
        expected_features = native.get_image_features(pixel_values).pooler_output
        expected = native(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask.long(),
            decoder_input_ids=answers,
        )
        features = ours.encode_image(pixel_values)
        states, mask = ours.encode(features, prompts, prompt_mask)
        logits = ours.logits(ours.decode(answers, ours.cross_cache(states), mask))
    assert torch.equal(mask, attention_mask)
    assert (features - expected_features).abs().max() <= tolerance
    assert (states - expected.encoder_last_hidden_state)[mask].abs().max() <= tolerance
    assert (logits - expected.logits).abs().max() <= tolerance
    assert expected.logits.std() > 100 * tolerance


def test_tiny_equals_native():
    compare(TINY, batch=3, tolerance=1e-4)


@pytest.mark.slow
def test_base_equals_native():
    compare(FlorenceConfig.preset("base"), batch=1, tolerance=1e-4)
