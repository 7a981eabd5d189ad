"""Answers against transformers' `generate` with the same weights."""

from functools import cache

import pytest
import torch

from florence_lite.checkpoint import LAYOUTS
from florence_lite.engine import GenerationOptions, generate
from tests.engine.models import EOS, enliven
from tests.model.native import TINY, native_inputs, native_pair

BATCH = 3


@cache
def setting(seed: int, eos_gain: float):
    """(our model, states, mask, transformers' model, its inputs) for random images and prompts, one prompt padded."""
    ours, native = native_pair(TINY, seed)
    enliven(ours, seed, eos_gain)
    name_of = LAYOUTS["native"].name_of
    native.load_state_dict({name_of(name): tensor for name, tensor in ours.state_dict().items()}, strict=False)
    generator = torch.Generator().manual_seed(seed)
    width, height = TINY.image_size_wh
    pixel_values = torch.randn(BATCH, 3, height, width, generator=generator)
    prompts = torch.randint(4, TINY.text.vocab_size - 1, (BATCH, 7), generator=generator)
    prompt_mask = torch.ones(BATCH, 7, dtype=torch.bool)
    prompt_mask[0, 5:] = False
    with torch.inference_mode():
        states, mask = ours.encode(ours.encode_image(pixel_values), prompts, prompt_mask)
    inputs = {
        "input_ids": native_inputs(TINY, prompts),
        "pixel_values": pixel_values,
        "attention_mask": mask.long(),
    }
    return ours, states, mask, native, inputs


def compare(seed: int, eos_gain: float, max_new_tokens: int, forced_bos: int | None = 0, **values) -> list[int]:
    """Assert equal ids and return the lengths of the answers."""
    ours, states, mask, native, inputs = setting(seed, eos_gain)
    options = GenerationOptions(max_new_tokens, ban_bos_after_forced=False, forced_bos=forced_bos, **values)
    got = [answer.ids for answer in generate(ours, states, mask, [[2]] * BATCH, options)]
    beams = {"length_penalty": options.length_penalty, "early_stopping": options.early_stopping}
    expected = native.generate(
        **inputs,
        **(beams if options.num_beams > 1 else {}),
        num_beams=options.num_beams,
        no_repeat_ngram_size=options.no_repeat_ngram_size,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        forced_bos_token_id=forced_bos,
        forced_eos_token_id=EOS,
        decoder_start_token_id=2,
        bos_token_id=0,
        eos_token_id=EOS,
        pad_token_id=1,
    )
    rows = [row[1:] for row in expected.tolist()]
    assert got == [row[: row.index(EOS) + 1] for row in rows]
    return [len(ids) for ids in got]


SETTINGS = [(0, 3.0), (0, 6.0), (1, 3.0), (2, 4.0)]


@pytest.mark.parametrize("no_repeat_ngram_size", [0, 2, 3])
@pytest.mark.parametrize("num_beams", [1, 2, 3, 5])
def test_beams_and_ngrams(num_beams, no_repeat_ngram_size):
    lengths = set()
    for seed, eos_gain in SETTINGS:
        lengths.update(compare(seed, eos_gain, 20, num_beams=num_beams, no_repeat_ngram_size=no_repeat_ngram_size))
    assert len(lengths) > 1  # some answers end by themselves, at different places


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [-0.5, 0.0, 0.5, 1.0, 2.0])
def test_length_penalty_and_early_stopping(length_penalty, early_stopping):
    for seed, eos_gain in SETTINGS:
        for num_beams in (2, 3):
            compare(
                seed,
                eos_gain,
                14,
                num_beams=num_beams,
                length_penalty=length_penalty,
                early_stopping=early_stopping,
                no_repeat_ngram_size=2,
            )


@pytest.mark.parametrize("forced_bos", [0, None])
@pytest.mark.parametrize("max_new_tokens", [1, 2, 3, 5])
def test_short_limits(max_new_tokens, forced_bos):
    for num_beams in (1, 3):
        compare(0, 3.0, max_new_tokens, forced_bos, num_beams=num_beams)
