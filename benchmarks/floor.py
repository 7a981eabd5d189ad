"""The least time that work can take on this machine: multiplications at the best rate that any of several kernels
reaches, weights at the best rate at which they can be read, both measured beside the work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from florence_lite.engine.fast import kernel
from florence_lite.engine.fast.linear import dense, linear, matrix
from florence_lite.model import FlorenceConfig, FlorenceModel

SHAPES = ((2304, 512, 2048), (2304, 2048, 512), (9216, 256, 1024), (9216, 1024, 256), (587, 768, 3072), (2048,) * 3)
SHAPES_ON_GPU = ((4096,) * 3, (9216, 1024, 4096))  # smaller ones do not fill it
REPEATS = 3  # the best of so many counts
AT_ONCE_ON_GPU = 5  # calls between two looks at its clock


@dataclass(frozen=True)
class Work:
    """flops: of what many tokens go through together, which the processor's arithmetic limits. bytes: of the weights,
    keys and values that decoding reads, once per step, which memory limits: its arithmetic is done meanwhile."""

    flops: float = 0
    bytes: float = 0


@dataclass(frozen=True)
class Rates:
    """flops and bytes a second."""

    flops: float
    bytes: float

    def seconds(self, work: Work) -> float:
        return work.flops / self.flops + work.bytes / self.bytes


class Network:
    """What parts of a network cost: counted on tensors without memory, as torch counts them."""

    def __init__(self, config: FlorenceConfig, dtype: torch.dtype = torch.float32):
        self.config, self.dtype = config, dtype
        with torch.device("meta"):
            self.model = FlorenceModel(config).eval().to("meta", dtype)

    def vision(self, images: int = 1) -> Work:
        width, height = self.config.image_size_wh
        pixels = torch.empty(images, 3, height, width, device="meta", dtype=self.dtype)
        return Work(flops=_flops(lambda: self.model.encode_image(pixels)))

    def encoder(self, prompt_lengths: list[int]) -> Work:
        """Encoder and cross-attention's keys and values of prompts, each behind an image; padding is no work."""
        total = 0.0
        for length in prompt_lengths:
            shape = (1, self.config.image_tokens, self.config.text.d_model)
            features = torch.empty(shape, device="meta", dtype=self.dtype)
            ids = torch.empty(1, length, dtype=torch.int64, device="meta")
            total += _flops(lambda features=features, ids=ids: self.cross(self.model.encode(features, ids)[0]))
        return Work(flops=total)

    def cross(self, states: Tensor) -> None:
        self.model.cross_cache(states)

    def decoding(self, prompt_lengths: list[int], tokens: int, cross: bool = False) -> Work:
        """Of answers that are made together: all but the forced first and last id need a step. Beams of an answer
        share what is read. cross: keys and values of the image and prompt are computed too."""
        text = self.config.text
        positions = sum(self.config.image_tokens + length for length in prompt_lengths)
        read = self.step_bytes + 2 * text.decoder_layers * positions * text.d_model * self.dtype.itemsize
        flops = 4 * text.decoder_layers * positions * text.d_model**2 if cross else 0
        return Work(flops, read * max(1, tokens - 2))

    @property
    def step_bytes(self) -> int:
        """Weights that a step reads: the decoder's layers, without cross-attention's keys and values, and the head."""
        layers = sum(
            parameter.nbytes
            for name, parameter in self.model.decoder.layers.named_parameters()
            if not ("cross_attention." in name and (".k_proj" in name or ".v_proj" in name))
        )
        return layers + self.model.embed_tokens.weight.nbytes


def together(*parts: Work) -> Work:
    return Work(sum(part.flops for part in parts), sum(part.bytes for part in parts))


@dataclass
class Machine:
    """Measures rates. reads: bytes of what is read to find the rate of reading, as many as a step of decoding reads."""

    reads: int
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    seen: dict[str, float] = field(default_factory=dict)  # kernel → its best rate so far

    def __post_init__(self):
        self._kernels = [make for make in (_plain, _prepacked, _own) if make is not _own or kernel.library()]
        shapes = SHAPES
        if self.device != "cpu":
            self._kernels, shapes = [_plain], SHAPES_ON_GPU
        self._gemms: dict[str, tuple[float, Callable[[], Tensor]]] = {}
        like = {"device": self.device, "dtype": self.dtype}
        for make in self._kernels:
            name = make.__name__.strip("_")
            trials = [(2 * rows * out * in_, make(rows, out, in_, like)) for rows, out, in_ in shapes]
            self._gemms[name] = max(trials, key=lambda trial: trial[0] / self._seconds(trial[1]))
        numbers = torch.ones(self.reads // 4096, 4096 // self.dtype.itemsize, **like)
        vector = torch.ones(numbers.shape[1], **like)
        self._reads = {"sum": lambda: numbers.sum(), "product": lambda: numbers @ vector}
        if self.device == "cpu" and kernel.library():
            of, result = matrix(numbers, None), torch.empty(1, len(numbers))
            self._reads["own"] = lambda: dense(of, vector, result)
        self._bytes = numbers.nbytes

    @torch.inference_mode()
    def measure(self) -> Rates:
        """The best rates just now."""
        rates = {f"gemm {name}": flops / self._seconds(run) for name, (flops, run) in self._gemms.items()}
        rates |= {f"read {name}": self._bytes / self._seconds(run) for name, run in self._reads.items()}
        for name, rate in rates.items():
            self.seen[name] = max(rate, self.seen.get(name, 0.0))
        best = [max(rate for name, rate in rates.items() if name.startswith(kind)) for kind in ("gemm", "read")]
        return Rates(*best)

    @torch.inference_mode()
    def _seconds(self, run: Callable[[], object]) -> float:
        run()
        if self.device != "cpu":
            return min(self._seconds_on_gpu(run) for _ in range(REPEATS))
        taken = []
        for _ in range(REPEATS):
            begin = time.perf_counter()
            run()
            taken.append(time.perf_counter() - begin)
        return min(taken)

    def _seconds_on_gpu(self, run: Callable[[], object]) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(AT_ONCE_ON_GPU):
            run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000 / AT_ONCE_ON_GPU


def synchronize(device: str) -> None:
    """Wait until a GPU has done what it was told."""
    if device != "cpu":
        torch.cuda.synchronize()


def _plain(rows: int, out: int, in_: int, like: dict) -> Callable[[], Tensor]:
    layer, x = nn.Linear(in_, out, **like), torch.randn(rows, in_, **like)
    return lambda: layer(x)


def _prepacked(rows: int, out: int, in_: int, like: dict) -> Callable[[], Tensor]:
    """oneDNN with its own order of the weights."""
    weight = torch.ops.mkldnn._reorder_linear_weight(torch.randn(out, in_), rows)
    x, bias = torch.randn(rows, in_), torch.zeros(out)
    return lambda: torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _own(rows: int, out: int, in_: int, like: dict) -> Callable[[], Tensor]:
    layer, x, y = nn.Linear(in_, out), torch.randn(rows, in_), torch.empty(rows, out)
    return lambda: linear(layer, x, y)


def _flops(run: Callable[[], object]) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())
