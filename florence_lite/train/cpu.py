"""What makes training steps on the CPU faster. On other devices nothing of it applies."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that were freed, for this process; elsewhere nothing happens.

    It would hand each back to the system, and every training step on the CPU would wait for the same pages again.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28)):
            mallopt(option, value)


@contextmanager
def attention_by_products(device: torch.device) -> Iterator[None]:
    """Attention within as plain matrix products if `device` is a CPU.

    torch's fused attention saves memory, but its backward pass on the CPU takes longer than all products of the step.
    In bfloat16 the softmax then is bfloat16 as well.
    """
    if device.type != "cpu":
        yield
        return
    cuda = torch.backends.cuda  # where the switch is for every device
    before = cuda.fp16_bf16_reduction_math_sdp_allowed()
    cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        cuda.allow_fp16_bf16_reduction_math_sdp(before)
