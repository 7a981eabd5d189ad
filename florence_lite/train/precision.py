"""In which precision a run computes: what is asked for, or what the processors can do."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import gather_object

from florence_lite.model.device import BF16_INSTRUCTIONS, cpu_instructions
from florence_lite.train.kernels import faster_kernels

LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # variables that keep oneDNN from using them
FIRST_BF16_GPU = (8, 0)  # CUDA's compute capability


def choose_precision(
    asked: str, accelerator: Accelerator, begun: str | None = None, tell: Callable[[str], None] = print
) -> str:
    """The precision to compute in, "bf16" or "fp32", the same in all processes.

    asked: a run's `precision`. begun: in which the run in its folder was begun, None for a new one.
    tell: gets what the user should know: that a run goes on in another precision than "auto" would choose here, and
        that bfloat16 is slow here.
    """
    pays = all(gather_object([bf16_pays(accelerator.device)]))
    here = "bf16" if pays else "fp32"
    chosen = asked if asked != "auto" else begun or here
    if asked == "auto" and chosen != here:
        tell(f"the run was begun in {chosen} and goes on in it; a new one would compute in {here} here")
    if chosen == "bf16" and not pays:
        cost = max(gather_object([bf16_cost(accelerator.device)]))
        if cost > 1:
            tell(
                f"precision bf16 is slow here, for this processor has no instructions for it: matrix products take "
                f'{cost:.1f} times as long as in float32 (measured); precision = "auto" or "fp32" avoids it'
            )
    return chosen


def bf16_pays(device: torch.device) -> bool:
    """Whether training in bfloat16 is faster than in float32: by what the processor says of itself, or else by a short
    measurement."""
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= FIRST_BF16_GPU
    if device.type != "cpu":
        return False
    instructions = cpu_instructions()
    if instructions is None or any(limit in os.environ for limit in LIMITS):
        return bf16_cost(device) < 1
    return not instructions.isdisjoint(BF16_INSTRUCTIONS)


def bf16_cost(device: torch.device) -> float:
    """How many times as long as in float32 a linear layer takes in bfloat16, forward and backward, as training
    computes it."""
    x = torch.ones(256, 512, device=device, requires_grad=True)
    weight = torch.ones(1024, 512, device=device, requires_grad=True)

    def seconds(mixed_precision: str) -> float:
        began = time.perf_counter()
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision == "bf16")
        with autocast, faster_kernels(device, mixed_precision):
            y = F.linear(x, weight)
        torch.autograd.grad(y.float().sum(), (x, weight))[0].sum().item()  # the number waits for a GPU
        return time.perf_counter() - began

    fastest = {each: min(seconds(each) for _ in range(4)) for each in ("bf16", "no")}
    return fastest["bf16"] / fastest["no"]
