"""Fewer bits for the decoder's weights."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from florence_lite import Florence
from florence_lite.engine.fast import FastModel, kernel, vision
from florence_lite.engine.fast.linear import dense, linear
from florence_lite.engine.fast.precision import Weights, check_precision
from florence_lite.engine.prefill import prefill
from florence_lite.engine.steps import Source
from florence_lite.model import FlorenceModel, device
from tests.engine.fast.test_vision import model_of
from tests.tiny import tiny_config


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("size_in", [32, 45])
def test_products_are_those_of_the_rounded_weights(build, rows, size_in):
    torch.manual_seed(0)
    layer, x = nn.Linear(size_in, 40), torch.randn(rows, size_in)
    weights = Weights("bf16")
    found = dense(weights.of(layer), x, torch.empty(rows, 40))
    rounded = layer.weight.to(torch.bfloat16).float()
    torch.testing.assert_close(found, x @ rounded.T + layer.bias, atol=1e-5, rtol=1e-5)
    scale = layer.weight.abs().amax(1, keepdim=True) / 127
    weights = Weights("int8")
    found = dense(weights.of(layer), x, torch.empty(rows, 40))
    rounded, of_x = (layer.weight / scale).round() * scale, x.abs().amax(1, keepdim=True) / 16383  # x has 15 bits
    torch.testing.assert_close(found, (x / of_x).round() * of_x @ rounded.T + layer.bias, atol=2e-5, rtol=1e-5)
    assert weights.nbytes == 40 * size_in + 4 * 40


@torch.inference_mode()
@pytest.mark.parametrize(("precision", "close"), [("bf16", 0.02), ("int8", 0.03)])
def test_steps_stay_near(build, precision, close):
    torch.manual_seed(1)
    model = FlorenceModel(tiny_config()).eval()
    states = torch.randn(1, 9, model.config.text.d_model)
    cross = model.cross_cache(states)
    read = [2, 5]
    plain = model.logits(model.decode(torch.tensor([read]), cross))[0, -1]
    network = FastModel(model, precision).steps()
    assert network._head.kind == kernel.KINDS[{"bf16": torch.bfloat16, "int8": torch.int8}[precision]]
    network.enter(prefill(model, cross, None, [read[:1]], [0]), [Source(cross)])
    found = network.logits(network.step(read[1:]))[0]
    assert 0 < (found - plain).abs().max() < close * plain.abs().max()


@torch.no_grad()
def test_copies_are_made_anew_when_a_weight_has_changed(build):
    layer, weights, x = nn.Linear(16, 8), Weights("int8"), torch.randn(1, 16)
    before = dense(weights.of(layer), x, torch.empty(1, 8))
    assert weights.of(layer).weight == weights.of(layer).weight  # one copy
    layer.weight.mul_(2)
    after = dense(weights.of(layer), x, torch.empty(1, 8))
    torch.testing.assert_close(after - layer.bias, 2 * (before - layer.bias))


@torch.inference_mode()
def test_copies_live_as_long_as_somebody_reads_them(build):
    """An answer goes on with the weights that it began with, whatever becomes of the model."""
    torch.manual_seed(3)
    model = FlorenceModel(tiny_config()).eval()
    fast, states = FastModel(model, "int8"), torch.randn(1, 9, model.config.text.d_model)
    cross = fast.cross_cache(states)
    source = Source.all_of(cross, None)
    expected, found = [], []
    for steps, changes in ((expected, False), (found, True)):
        network = fast.steps()
        network.enter(prefill(model, cross, None, [[2]], [0]), source)
        for token in (5, 7):
            steps.append(network.logits(network.step([token])))
            if changes:
                for layer in model.decoder.layers:
                    layer.ffn.fc1.weight.add_(0)
                fast.steps()
                rubbish = [torch.full((64, 64), 99, dtype=torch.int8) for _ in range(64)]
                assert len(rubbish) == 64
    assert all(map(torch.equal, found, expected))


@torch.inference_mode()
def test_threads_share_copies(build):
    layers, weights = [nn.Linear(64, 64) for _ in range(40)], Weights("int8")

    def ask(_):
        return [weights.of(layer).weight for layer in layers]

    with ThreadPoolExecutor(8) as threads:
        first, *others = threads.map(ask, range(8))
    assert all(other == first for other in others)


@torch.inference_mode()
@pytest.mark.parametrize("spoilt", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_stays_none(build, spoilt):
    weights, layer, x = Weights("int8"), nn.Linear(40, 12), torch.randn(3, 40)
    x[1, 7] = spoilt
    found = dense(weights.of(layer), x, torch.empty(3, 12))
    assert found[1].isnan().all() and found[[0, 2]].isfinite().all()


def test_precisions_that_cannot_be_had(monkeypatch):
    cpu = torch.device("cpu")
    with pytest.raises(ValueError, match="precision='int4' must be one of fp32, bf16, int8"):
        check_precision("int4", cpu)
    with pytest.raises(ValueError, match="is for processors; on cuda give dtype"):
        check_precision("int8", torch.device("cuda"))
    with pytest.raises(ValueError, match="made of a network in float32, and this one is in torch.bfloat16"):
        check_precision("int8", cpu, torch.bfloat16)
    monkeypatch.setattr(kernel, "library", lambda: None)
    assert check_precision("fp32", cpu) == "fp32"
    with pytest.raises(ValueError, match="needs the compiled kernels"):
        check_precision("int8", cpu)


@torch.inference_mode()
@pytest.mark.parametrize("rows", [17, 50, 97])
@pytest.mark.parametrize(("size_in", "size_out"), [(32, 8), (42, 13), (256, 1100)])
@pytest.mark.parametrize("normed", [False, True])
def test_many_rows_are_products_of_rounded_numbers(build, rows, size_in, size_out, normed):
    if not kernel.has_bf16():
        pytest.skip("the processor or this build has no instructions for products in bfloat16")
    torch.manual_seed(0)
    layer, norm = nn.Linear(size_in, size_out), nn.LayerNorm(size_in)
    x, added = torch.randn(rows, size_in), torch.randn(rows, size_out)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    weights = Weights("bf16")
    found = linear(layer, x, norm=norm if normed else None, gelu=True, residual=added, of=weights.of(layer))
    rounded = (norm(x) if normed else x).bfloat16().double()
    expected = F.gelu(rounded @ layer.weight.bfloat16().double().T + layer.bias) + added
    # A normed number on the border between two may be rounded to either.
    torch.testing.assert_close(found.double(), expected, atol=1e-2 if normed else 2e-5, rtol=1e-5)


@torch.inference_mode()
def test_the_tower_is_in_bfloat16_where_the_kernels_have_it(build, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("flags : sse avx2\n")
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "cpuinfo")
    model, pixel_values = model_of(4), torch.randn(1, 3, 48, 64)
    exact, found = (FastModel(model, each).encode_image(pixel_values) for each in ("fp32", "bf16"))
    assert found.dtype == torch.float32
    assert 0 < (found - exact).abs().max() < 0.1 if kernel.has_bf16() else torch.equal(found, exact)
    assert model.vision.stages[0].blocks[0].spatial.attention.qkv.weight.dtype == torch.float32


@torch.inference_mode()
def test_where_the_processor_multiplies_tiles_torch_does_it(build, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("flags : sse avx512_bf16 amx_bf16\n")
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(vision, "features", None)
    torch.manual_seed(2)
    model, pixel_values = FlorenceModel(tiny_config()).eval(), torch.randn(1, 3, 48, 64)
    found = FastModel(model, "bf16").encode_image(pixel_values)
    assert found.dtype == torch.float32
    assert 0 < (found - model.encode_image(pixel_values)).abs().max() < 0.1


def test_florence_answers_in_fewer_bits(build, toy_tokenizer):
    model = FlorenceModel(tiny_config(vocab_size=toy_tokenizer.vocabulary.size)).eval()
    with pytest.raises(ValueError, match="precision='fp8' must be one of"):
        Florence(model, toy_tokenizer, precision="fp8")
    result = Florence(model, toy_tokenizer, precision="int8").run(Image.new("RGB", (64, 48)), "<CAPTION>")
    assert len(result.token_ids) > 1 and result.token_logprobs is not None
