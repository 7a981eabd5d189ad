"""Whole calls on a GPU: the same answers as on the CPU, in half precision answers at all."""

import copy

import pytest
import torch

from florence_lite import Florence, Prompt
from tests.tiny import SIDES, noise_image, tiny_florence

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
IMAGES = [noise_image(seed) for seed in range(3)]
TASKS = {
    "<OD>": {},
    "<CAPTION>": {"num_beams": 3},
    "<OCR>": {"compat": True},
    "<REGION_TO_CATEGORY>": {"region": (10, 10, 60, 50)},
    "<REFERRING_EXPRESSION_SEGMENTATION>": {"text": "dog"},
    "<CAPTION_TO_PHRASE_GROUNDING>": {"text": "a dog and a cat", "num_beams": 2},
}


@pytest.fixture(params=SIDES)
def pair(request, toy_tokenizer, monkeypatch) -> tuple[Florence, Florence]:
    """On the CPU and on the GPU, with the same weights."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    here = tiny_florence(toy_tokenizer, request.param)
    return here, Florence(copy.deepcopy(here.model).cuda(), toy_tokenizer, here.card)


def test_the_same_answers(pair):
    for prompt, given in TASKS.items():
        for image in IMAGES:
            expected, found = (florence.run(image, prompt, **given) for florence in pair)
            assert found.token_ids == expected.token_ids, prompt
            assert found.token_logprobs == pytest.approx(expected.token_logprobs, abs=2e-3)


def test_the_same_answers_to_many_prompts(pair):
    prompts = [[Prompt("<OD>"), Prompt("<CAPTION>"), Prompt("<OPEN_VOCABULARY_DETECTION>", text="dog")] for _ in IMAGES]
    expected, found = (
        [florence.run(image, each) for image, each in zip(IMAGES, prompts, strict=True)] for florence in pair
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert [each.token_ids for each in ours] == [each.token_ids for each in theirs]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(pair, dtype):
    here, there = pair
    half = Florence(there.model.to(dtype), here.tokenizer, here.card)
    for prompt, given in TASKS.items():
        result = half.run(IMAGES[0], prompt, **given)
        assert result.token_ids and torch.tensor(result.token_logprobs).isfinite().all()
