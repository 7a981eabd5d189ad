"""What makes training steps faster: kernels that torch would not choose by itself."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager, nullcontext, suppress

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from florence_lite.model.device import no_cudnn_attention

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that were freed, for this process; elsewhere nothing happens.

    It would hand each back to the system, and every training step on the CPU would wait for the same pages again.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 2**28)):
            mallopt(option, value)


def faster_kernels(device: torch.device, mixed_precision: str) -> AbstractContextManager:
    """Forward passes within are made of the kernels that are faster in training; devices but CPU and CUDA keep theirs.

    On CUDA attention is not cuDNN's (`no_cudnn_attention`).

    mixed_precision: accelerate's. On a CPU with "bf16" attention is computed by plain products, with "no" (float32)
    linear layers by oneDNN; the other way round both would be slower.
    """
    if device.type == "cuda":
        return no_cudnn_attention()
    if device.type != "cpu":
        return nullcontext()
    return AttentionByProducts() if mixed_precision == "bf16" else LinearByOneDnn()


class AttentionByProducts(TorchFunctionMode):
    """Attention within as plain matrix products, with a softmax in the precision of the queries.

    torch's fused attention saves memory, but in bfloat16 its backward pass on the CPU takes longer than all products of
    the step.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return (_attention if func is F.scaled_dot_product_attention else func)(*args, **(kwargs or {}))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
) -> Tensor:
    """What torch's function of the same arguments computes. attn_mask: bool, True = may attend, in every row once."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    return F.dropout(scores.softmax(-1), dropout_p) @ value


class LinearByOneDnn(TorchFunctionMode):
    """float32 linear layers within by oneDNN where torch has it, forward and backward.

    torch takes MKL's products for them, which on AMD's processors need about twice the time.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and not kwargs and _by_one_dnn(*args):
            return _Linear.apply(*args)
        return func(*args, **(kwargs or {}))


def _by_one_dnn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    available = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    plain = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
    return available and plain and not torch.is_autocast_enabled("cpu")


class _Linear(torch.autograd.Function):
    """x [..., I], weight [O, I], bias [O] or None to [..., O]; all three products are oneDNN's."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])
        for_x = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            for_x = _product(gradient, weight.t(), None).view(x.shape)
        if ctx.needs_input_grad[1] or (ctx.has_bias and ctx.needs_input_grad[2]):
            rows = x.reshape(-1, x.shape[-1])
            for_weight, for_bias = torch.ops.aten.mkldnn_linear_backward_weights(
                gradient.to_mkldnn(), rows.to_mkldnn(), weight, ctx.has_bias
            )
        return for_x, for_weight, for_bias if ctx.has_bias else None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
