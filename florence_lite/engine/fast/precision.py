"""Weights in fewer bits, as a decoding step takes as long as reading them: for answers that may differ, and for guesses
that are checked."""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn

from florence_lite.engine.fast import kernel
from florence_lite.engine.fast.linear import matrix
from florence_lite.model.device import weight_state

PRECISIONS = ("fp32", "bf16", "int8")
ROWS_AT_ONCE = 1024  # of a matrix that is copied, so that hardly more is in memory meanwhile


def check_precision(precision: str, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """The name of a precision that can be had here.

    device, dtype: of the network. Raises ValueError, with the remedy, for other names, and for less than "fp32" where
    there are no kernels for it.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} must be one of {', '.join(PRECISIONS)}")
    if precision != "fp32" and device.type != "cpu":
        raise ValueError(f'precision={precision!r} is for processors; on {device} give dtype="bfloat16" or "float16"')
    if precision != "fp32" and dtype != torch.float32:
        raise ValueError(
            f"precision={precision!r} is made of a network in float32, and this one is in {dtype}: load it with "
            'dtype="float32", or leave precision out'
        )
    if precision != "fp32" and kernel.library() is None:
        raise ValueError(
            f"precision={precision!r} needs the compiled kernels, which this installation lacks or this processor "
            "cannot run: install florence-lite anew with a C++ compiler at hand, or leave precision out"
        )
    return precision


class Weights:
    """The matrices of a network as the kernels read them: where they are in "fp32", else from copies in half or a
    quarter of the bytes, made when they are needed first and anew when a weight has changed.

    "bf16": bfloat16. "int8": whole numbers from -127 to 127, times one scale for each output. Threads may share one.
    """

    def __init__(self, precision: str = "fp32"):
        self.precision = precision
        self._lock = threading.Lock()
        self._copies: dict[nn.Module, tuple[tuple[int, int], Tensor, Tensor | None]] = {}

    def __reduce__(self):  # a copy makes its own
        return Weights, (self.precision,)

    def of(self, layer: nn.Linear | nn.Embedding) -> kernel.Matrix:
        """A linear layer, or a table of tokens as the output layer that it is tied to: as it is now, for as long as its
        `kept` are."""
        weight, bias = layer.weight, getattr(layer, "bias", None)
        if self.precision == "fp32":
            return matrix(weight, bias)
        with self._lock:
            state = weight_state(weight)
            if layer not in self._copies or self._copies[layer][0] != state:
                self._copies[layer] = (state, *_copy(weight.detach(), self.precision))
            _, copied, scale = self._copies[layer]
        return matrix(copied, bias, scale)

    @property
    def nbytes(self) -> int:
        """Of the copies."""
        return sum(weight.nbytes + (0 if scale is None else scale.nbytes) for _, weight, scale in self._copies.values())


def _copy(weight: Tensor, precision: str) -> tuple[Tensor, Tensor | None]:
    if precision == "bf16":
        return weight.to(torch.bfloat16), None
    scale, copied = weight.new_empty(len(weight)), torch.empty_like(weight, dtype=torch.int8)
    for part, to, scales in zip(*(each.split(ROWS_AT_ONCE) for each in (weight, copied, scale)), strict=True):
        scales.copy_(torch.linalg.vector_norm(part, torch.inf, 1).clamp_(min=torch.finfo(torch.float32).tiny) / 127)
        to.copy_((part / scales[:, None]).round_())
    return copied, scale
