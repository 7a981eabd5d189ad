"""A GPU against the CPU: plain network and graphs give the same features and ids, and near ones in half precision."""

import copy
import threading
import warnings

import pytest
import torch

from florence_lite.engine import GenerationOptions, generate, score
from florence_lite.engine.fast import FastModel, flash
from florence_lite.engine.fast.static_steps import StaticSteps
from florence_lite.engine.steps import PlainSteps
from florence_lite.model import FlorenceConfig, FlorenceModel
from tests.engine.models import lively_model, random_states
from tests.engine.test_generate import MIXED, PREFIXES
from tests.tiny import tiny_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
CLOSE = {"atol": 2e-4, "rtol": 2e-4}
HALF = {torch.bfloat16: 0.1, torch.float16: 0.02}  # greatest difference of features, whose numbers are about 1


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Convolutions in float32, as on the CPU; and no capture that failed in silence."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="no CUDA graph")
        yield


@pytest.fixture(scope="module")
def models():
    """On the CPU and on the GPU, with vision towers, and with the same weights."""
    torch.manual_seed(1)
    model = FlorenceModel(tiny_config()).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1) if weight.ndim > 1 else torch.nn.init.normal_(weight)
    return model, copy.deepcopy(model).cuda()


@torch.inference_mode()
def test_vision_and_encoder(models):
    """First by the plain network, then captured, then replayed with other numbers."""
    plain, there = models
    fast = FastModel(there)
    ids, known = torch.tensor([[5, 6, 7], [8, 1, 1]]), torch.tensor([[True] * 3, [True, False, False]])
    for images in (1, 2, 6):
        for number in range(4):
            torch.manual_seed(number)
            pixels = torch.randn(images, 3, *reversed(plain.config.image_size_wh))
            features = plain.encode_image(pixels)
            torch.testing.assert_close(fast.encode_image(pixels.cuda()).cpu(), features, **CLOSE)
            if images == 2:
                for mask in (None, known):
                    states, states_mask = fast.encode(
                        features.cuda(), ids.cuda(), None if mask is None else mask.cuda()
                    )
                    expected, expected_mask = plain.encode(features, ids, mask)
                    torch.testing.assert_close(states.cpu(), expected, **CLOSE)
                    assert states_mask is None if mask is None else torch.equal(states_mask.cpu(), expected_mask)
                torch.testing.assert_close(fast.encode(features.cuda())[0].cpu(), plain.encode(features)[0], **CLOSE)
    assert len(fast.graphs._free) == 5


@torch.inference_mode()
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_the_same_ids(beams, masked):
    model = lively_model(eos_gain=None)
    there = copy.deepcopy(model).cuda()
    states, mask = random_states(model, 1)
    mask = mask if masked else None
    options = GenerationOptions(100, beams, no_repeat_ngram_size=3)
    given = states.cuda(), None if mask is None else mask.cuda()
    expected = generate(model, states, mask, [[2]], options)
    fast = FastModel(there)
    assert isinstance(fast.steps(), StaticSteps)
    for _ in range(2):
        found = generate(fast, *given, [[2]], options)
        assert found == expected
    assert generate(there, *given, [[2]], options) == expected
    ours, theirs = (
        score(each, *of, [[2]], [expected[0].ids], locations=range(20, 60), tolerance=3)[0]
        for each, of in ((fast, given), (model, (states, mask)))
    )
    torch.testing.assert_close(ours.token_logprobs, theirs.token_logprobs, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("images", [1, 4, 8])
def test_mixed_batches(images):
    model = lively_model(seed=0, eos_gain=4.0)
    states, mask = random_states(model, images)
    expected = generate(model, states, mask, PREFIXES, MIXED)
    found = generate(FastModel(copy.deepcopy(model).cuda()), states.cuda(), mask.cuda(), PREFIXES, MIXED)
    assert found == expected
    for ours, theirs in zip(found, expected, strict=True):
        if theirs.states is not None:
            torch.testing.assert_close(ours.states.cpu(), theirs.states, **CLOSE)


@torch.inference_mode()
def test_what_cannot_be_captured_is_left_to_the_plain_network():
    model = lively_model().cuda()
    states, mask = (each.cuda() for each in random_states(model, 1))
    options = GenerationOptions(12)
    expected = generate(model, states, mask, [[2]], options)
    model.decoder.layers[0].ffn.register_forward_hook(lambda layer, given, made: made)
    assert isinstance(FastModel(model).steps(), PlainSteps)
    assert generate(FastModel(model), states, mask, [[2]], options) == expected


@torch.inference_mode()
def test_a_failed_capture_is_told_and_done_without(monkeypatch):
    def fail(*arguments, **named):
        raise RuntimeError("operation not permitted")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", fail)
    model = lively_model().cuda()
    states, mask = (each.cuda() for each in random_states(model, 1))
    options = GenerationOptions(12, num_beams=3)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = generate(FastModel(model), states, mask, [[2]], options)
    assert "no CUDA graph could be made" in str(told[0].message)
    assert found == generate(model, states, mask, [[2]], options)


def test_answers_of_two_threads():
    model = lively_model(eos_gain=None).cuda()
    fast, options = FastModel(model), GenerationOptions(60, num_beams=3, no_repeat_ngram_size=3)
    given = [tuple(each.cuda() for each in random_states(model, 1, seed)) for seed in (0, 5)]
    expected = [generate(model, *each, [[2]], options) for each in given]
    found = {}

    def answer(number):
        found[number] = [generate(fast, *given[number], [[2]], options) for _ in range(5)]

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert expected[0] != expected[1]
    assert [found[number] for number in range(2)] == [[each] * 5 for each in expected]


@torch.inference_mode()
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision(models, dtype):
    """Features are near those of float32, and answers come from finite numbers."""
    plain, there = models
    fast = FastModel(copy.deepcopy(there).to(dtype))
    pixels = torch.randn(1, 3, *reversed(plain.config.image_size_wh))
    expected = plain.encode_image(pixels)
    for _ in range(3):
        features = fast.encode_image(pixels.cuda().to(dtype))
        assert (features.float().cpu() - expected).abs().max() < HALF[dtype] * expected.abs().max()
    states, mask = fast.encode(features, torch.tensor([[5, 6]]).cuda())
    for beams in (1, 3):
        (answer,) = generate(fast, states, mask, [[2]], GenerationOptions(20, beams))
        assert answer.states is None or answer.states.isfinite().all()
        assert len(answer.ids) > 1


@torch.inference_mode()
@pytest.mark.parametrize("dtype", HALF)
def test_base_size_in_half_precision(dtype):
    """The stem has 192 × 192 positions: channel attention's unscaled product would leave the range of float16."""
    torch.manual_seed(0)
    model = FlorenceModel(FlorenceConfig.preset("base")).eval().cuda()
    pixels = torch.randn(1, 3, 768, 768, device="cuda")
    expected = model.encode_image(pixels)
    half = FastModel(model.to(dtype))
    for _ in range(3):
        features = half.encode_image(pixels.to(dtype)).float()
        assert features.isfinite().all()
        cosine = torch.nn.functional.cosine_similarity(features, expected, -1)
        assert cosine.min() > 0.99


@torch.inference_mode()
def test_prompts_of_different_lengths_without_their_padding(models, monkeypatch):
    """flash-attn where it is installed, else torch's own function for the same, in its place."""
    attention = flash.varlen()
    if attention is None:
        attention = pytest.importorskip("torch.nn.attention.varlen", reason="torch 2.10 has it").varlen_attn
    calls = []
    monkeypatch.setattr(flash, "varlen", lambda: lambda *given: calls.append(1) or attention(*given))
    _, there = models
    half = copy.deepcopy(there).to(torch.bfloat16)
    features = torch.randn(6, half.config.image_tokens, half.config.text.d_model).cuda().to(torch.bfloat16)
    mask = torch.arange(5).cuda() < torch.tensor([5, 2, 1, 4, 3, 5]).cuda()[:, None]
    ids = torch.randint(3, 400, (6, 5)).cuda()
    found, known = FastModel(half).encode(features, ids, mask)
    expected, _ = half.encode(features, ids, mask)
    assert len(calls) == half.config.text.encoder_layers
    torch.testing.assert_close(found[known].float(), expected[known].float(), atol=0.06, rtol=0.06)
