"""CUDA graphs: work that a GPU repeats on tensors that stay where they are, captured once. Its hundreds of kernels are
launched together then; one by one, launching them takes longer than running them."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from florence_lite.engine.fast.linear import is_unchanged, modules_of
from florence_lite.model.device import inference_mode

KEPT_BYTES = 2**30  # of the tensors of captured work that waits for its next use
REMEMBERED = 256  # kinds of work that were asked for, of which those that come again are captured
WARM_UPS = 2  # before capturing: libraries choose kernels and get their memory


def state_of(*parts: nn.Module | None) -> int | None:
    """A number for the weights of parts of a network that work can be captured with, another one where they lie
    elsewhere. None where it cannot: they must be on one CUDA device, in one dtype, and the parts unchanged."""
    modules = modules_of(*parts)
    weights = [weight for module in modules for weight in module._parameters.values() if weight is not None]
    kinds = {(weight.device, weight.dtype) for weight in weights}
    if len(kinds) != 1 or next(iter(kinds))[0].type != "cuda" or not is_unchanged(modules):
        return None
    return hash(tuple(weight.data_ptr() for weight in weights))


class Captured:
    """Work without arguments and result, which reads and writes tensors that stay where they are. On a CUDA device
    `run` replays it as a graph; elsewhere, or where it cannot be captured, `run` does it anew.

    nbytes: of the tensors.
    """

    def __init__(self, work: Callable[[], None], device: torch.device, nbytes: int):
        self.run, self.nbytes = work, nbytes
        if device.type == "cuda":
            try:
                with torch.cuda.device(device):
                    self.run = _captured(work)
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                warnings.warn(f"no CUDA graph could be made, answers take longer: {reason}", stacklevel=2)


def _captured(work: Callable[[], None]) -> Callable[[], None]:
    aside, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UPS):
            work()
        graph.capture_begin(capture_error_mode="thread_local")  # other threads may use the GPU meanwhile
        try:
            work()
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(aside)
    return graph.replay


class Pool:
    """Captured work that nobody is using. What was used longest ago is dropped first.

    What is taken belongs to whoever took it until it is given back: answers of several threads do not write into each
    other's tensors.
    """

    def __init__(self, most_bytes: int = KEPT_BYTES):
        self.most_bytes = most_bytes
        self._free: list[tuple[Hashable, Captured]] = []
        self._seen: OrderedDict[Hashable, bool] = OrderedDict()  # whether its captured work is small enough to keep
        self._lock = threading.Lock()

    def __reduce__(self):  # a copy begins empty
        return Pool, (self.most_bytes,)

    def take(self, key: Hashable, make: Callable[[], Captured]) -> Captured:
        """Captured work of this key, made if none is free."""
        with self._lock:
            for number, (kept, captured) in enumerate(self._free):
                if kept == key:
                    del self._free[number]
                    return captured
        return make()

    def give_back(self, key: Hashable, captured: Captured) -> None:
        with self._lock:
            self._free.append((key, captured))
            if captured.nbytes > self.most_bytes:
                self._seen[key] = False
            while sum(each.nbytes for _, each in self._free) > self.most_bytes:
                del self._free[0]

    def is_worth_it(self, key: Hashable) -> bool:
        """Whether to capture this: not what comes for the first time, nor what cannot be kept until it comes again."""
        with self._lock:
            again = self._seen.get(key, False)
            self._seen.setdefault(key, True)
            if len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
            return again


class Function(Captured):
    """A function of tensors of fixed shapes. Some of what it takes, and of what it returns, may be None."""

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Tensor | None]):
        self._arguments = [None if each is None else each.clone() for each in arguments]
        device = arguments[0].device
        reserved = torch.cuda.memory_reserved(device) if device.type == "cuda" else 0

        def work() -> None:
            self._result = function(*self._arguments)

        super().__init__(work, device, 0)
        if device.type == "cuda":  # what the function needs meanwhile stays with the graph
            self.nbytes = max(0, torch.cuda.memory_reserved(device) - reserved)

    def __call__(self, *arguments: Tensor | None) -> Any:
        with inference_mode():  # in which the tensors may have been made
            for kept, given in zip(self._arguments, arguments, strict=True):
                if kept is not None:
                    kept.copy_(given)
            self.run()
        if isinstance(self._result, tuple):
            return tuple(None if each is None else each.clone() for each in self._result)
        return self._result.clone()


def call(pool: Pool, weights: int, function: Callable[..., Any], *arguments: Tensor | None) -> Any:
    """function(*arguments), captured when it is asked for a second time with arguments of these shapes.

    function: a method that returns a tensor, or several. weights: `state_of` those that it reads.
    """
    shapes = tuple(None if each is None else (each.shape, each.dtype) for each in arguments)
    key = (function.__name__, shapes, weights)
    if not pool.is_worth_it(key):
        return function(*arguments)
    captured = pool.take(key, lambda: Function(function, arguments))
    result = captured(*arguments)
    pool.give_back(key, captured)
    return result
