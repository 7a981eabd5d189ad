"""Linear layers, and what stands around them, against torch in double precision."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from florence_lite.engine.fast import kernel
from florence_lite.engine.fast.linear import FEW_ROWS, dense, is_plain, linear, matrix
from florence_lite.engine.fast.steps import MEETINGS
from florence_lite.model import FlorenceConfig

SHAPES = [(1, 16, 8), (3, 40, 13), (4, 96, 64), (FEW_ROWS, 33, 7), (50, 64, 24), (97, 40, 13), (200, 256, 3000)]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def layer_of(size_in, size_out, bias=True):
    torch.manual_seed(0)
    return nn.Linear(size_in, size_out, bias)


@pytest.mark.parametrize(("rows", "size_in", "size_out"), SHAPES)
@pytest.mark.parametrize(("normed", "gelu", "residual"), [(0, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1)])
def test_equals_torch(build, rows, size_in, size_out, normed, gelu, residual):
    layer, norm = layer_of(size_in, size_out), nn.LayerNorm(size_in)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    x, added = 3 * torch.randn(rows, size_in), torch.randn(rows, size_out)
    expected = x.double()
    if normed:
        expected = F.layer_norm(expected, (size_in,), norm.weight.double(), norm.bias.double(), norm.eps)
    expected = F.linear(expected, layer.weight.double(), layer.bias.double())
    expected = F.gelu(expected) if gelu else expected
    expected = expected + added if residual else expected
    found = linear(layer, x, norm=norm if normed else None, gelu=gelu, residual=added if residual else None)
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=2e-5)


def test_without_a_bias_and_into_the_residual(build):
    layer = layer_of(32, 32, bias=False)
    x, y = torch.randn(60, 32), torch.randn(60, 32)
    expected = y + layer(x)
    assert linear(layer, x, y, residual=y) is y
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [FEW_ROWS - 1, FEW_ROWS, FEW_ROWS + 1])
@pytest.mark.parametrize("residual", [False, True])
def test_what_is_given_is_filled_however_many_rows(build, rows, residual):
    layer, x, y, added = (
        layer_of(24, 16),
        torch.randn(rows, 24),
        torch.full((rows, 16), torch.nan),
        torch.ones(rows, 16),
    )
    assert linear(layer, x, y, gelu=True, residual=added if residual else None) is y
    torch.testing.assert_close(y, F.gelu(layer(x)) + (1 if residual else 0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("x", [torch.randn(40, 31), torch.randn(40, 32).half(), torch.randn(32, 40).T])
def test_what_the_kernels_cannot_read_is_refused(build, x):
    layer = layer_of(32, 16)
    with pytest.raises(ValueError, match="contiguous float32 numbers with 32 channels, not"):
        linear(layer, x)
    with pytest.raises(ValueError, match="contiguous float32 numbers with 32 channels, not"):
        dense(matrix(layer.weight, None), x, torch.empty(40, 16))


def test_rows_are_taken_from_their_places_and_put_there(build):
    layer, norm = layer_of(24, 16), nn.LayerNorm(24)
    x = torch.randn(70, 24)
    order = torch.randperm(70, dtype=torch.int32)
    order[5] = order[33] = -1
    found = linear(layer, x, x.new_empty(70, 16), norm=norm, rows=(order, None))
    expected = layer(norm(x))[order.long()]
    expected[[5, 33]] = layer.bias  # zeros behind the norm
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    y = torch.zeros(70, 16)
    linear(layer, x, y, rows=(None, order))
    expected = torch.zeros(70, 16)
    kept = order >= 0
    expected[order[kept].long()] = layer(x)[kept]
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9])
def test_some_outputs_alone(build, rows):
    weight, x = torch.randn(100, 48), torch.randn(rows, 48)
    for outs in (range(100), range(7, 8), range(11, 64)):
        found = dense(matrix(weight, None), x, x.new_empty(rows, len(outs)), outs)
        torch.testing.assert_close(found, F.linear(x, weight[outs.start : outs.stop]), atol=1e-5, rtol=1e-5)


def test_what_may_be_read_where_it_is(build):
    layer = nn.Sequential(nn.Linear(4, 4)).eval()
    assert not is_plain(layer)  # of a class that might do anything
    layer = nn.ModuleList([nn.Linear(4, 4)]).eval()
    assert is_plain(layer)
    assert not is_plain(nn.ModuleList([nn.Linear(4, 4)]))  # in training
    assert not is_plain(nn.ModuleList([nn.Linear(4, 4)]).eval().half())
    layer[0].register_forward_hook(lambda *_: None)
    assert not is_plain(layer)


def test_hooks_of_all_modules_and_a_forward_of_its_own_are_not_passed_over(build):
    layer = nn.ModuleList([nn.Linear(4, 4)]).eval()
    hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert not is_plain(layer)
    hook.remove()
    assert is_plain(layer)
    layer[0].forward = lambda x: x
    assert not is_plain(layer)


def test_gradients_need_the_plain_network(build):
    layer = nn.ModuleList([nn.Linear(4, 4)]).eval()
    with torch.inference_mode(False), torch.enable_grad():
        assert not is_plain(layer)


def test_small_work_is_done_by_one_thread(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert [kernel.threads_for(2**17 * count) for count in (0, 1, 2, 5, 50)] == [1, 1, 2, 5, 6]
    network = FlorenceConfig.preset("nano").text
    layer = 8 * network.d_model**2 + 2 * network.d_model * network.ffn_dim
    assert kernel.threads_for(layer // MEETINGS) == 1 < kernel.threads_for(2 * layer // MEETINGS)
