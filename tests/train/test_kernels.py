"""The faster kernels compute what the others compute, and only where they are meant to."""

import pytest
import torch
import torch.nn.functional as F

from florence_lite.train.kernels import LinearByOneDnn, faster_kernels

CPU = torch.device("cpu")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 4), (2, 3, 4, 8), (1, 9), (0, 5)])
@pytest.mark.parametrize("turned", [False, True])
def test_linear_layers(shape, bias, turned):
    def gradients():
        torch.manual_seed(0)
        x = torch.randn(shape)
        x = (x.transpose(0, 1) if turned and x.ndim > 2 else x).requires_grad_()
        layer = torch.nn.Linear(x.shape[-1], 7, bias)
        y = layer(x)
        (y * torch.arange(y.numel()).view(y.shape)).sum().backward()
        return y, x.grad, *(parameter.grad for parameter in layer.parameters())

    expected = gradients()
    with faster_kernels(CPU, "no"):
        found = gradients()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_does_not_learn_gets_no_gradient():
    layer = torch.nn.Linear(4, 4)
    layer.weight.requires_grad_(False)
    with LinearByOneDnn():
        layer(torch.randn(2, 4)).sum().backward()
        with torch.no_grad():
            assert not layer(torch.randn(2, 4)).requires_grad
    assert layer.weight.grad is None
    assert layer.bias.grad.tolist() == [2.0] * 4


def test_other_types_keep_their_kernels():
    with faster_kernels(CPU, "no"):
        assert torch.nn.Linear(4, 4).double()(torch.randn(2, 4).double()).dtype == torch.float64
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.nn.Linear(4, 4)(torch.randn(2, 4)).dtype == torch.bfloat16


def test_attention_by_products():
    """In bfloat16, with and without a mask."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    for options in ({}, {"is_causal": True}, {"attn_mask": torch.rand(5, 5) > 0.3}):
        results = []
        for kernels in (faster_kernels(torch.device("cuda"), "bf16"), faster_kernels(CPU, "bf16")):
            with kernels:
                out = F.scaled_dot_product_attention(q, k, v, **options)
            results.append((out, *torch.autograd.grad(out.float().pow(2).sum(), (q, k, v))))
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)


def test_attention_on_cuda_is_not_planned_for_each_shape():
    was = torch.backends.cuda.cudnn_sdp_enabled()
    with faster_kernels(torch.device("cuda"), "bf16"):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled() == was
