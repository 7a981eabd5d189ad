"""What makes training steps on the CPU faster. On other devices nothing of it applies."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that were freed, for this process; elsewhere nothing happens.

    It would hand each back to the system, and every training step on the CPU would wait for the same pages again.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 2**28)):
            mallopt(option, value)


@contextmanager
def faster_kernels(device: torch.device, mixed_precision: str) -> Iterator[None]:
    """Forward passes within are made of the kernels that are faster in training on a CPU; other devices keep theirs.

    mixed_precision: accelerate's. With "bf16" attention is computed by plain products, with "no" (float32) linear
    layers by oneDNN; the other way round both would be slower.
    """
    if device.type != "cpu":
        yield
    elif mixed_precision == "bf16":
        with attention_by_products():
            yield
    else:
        with LinearByOneDnn():
            yield


@contextmanager
def attention_by_products() -> Iterator[None]:
    """Attention within as plain matrix products, in bfloat16 with a softmax in bfloat16.

    torch's fused attention saves memory, but its backward pass on the CPU takes longer than all products of the step.
    """
    cuda = torch.backends.cuda  # where the switch is for every device
    before = cuda.fp16_bf16_reduction_math_sdp_allowed()
    cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        cuda.allow_fp16_bf16_reduction_math_sdp(before)


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
