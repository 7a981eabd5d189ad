"""The compiled kernels, where an installation has them and the processor can run them."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_float, c_int, c_int32, c_int64, c_void_p
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

import torch

WORK_OF_A_THREAD = 2**17  # multiplications between two meetings of all threads that are worth another thread
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
# Of pyproject.toml, the best first, with what torch calls the processors that can run them.
BUILDS = {"_kernel_v4": ("AVX512",), "_kernel_v3": ("AVX512", "AVX2")}


class Matrix(Structure):
    _fields_ = [
        ("weight", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("out", c_int64),
        ("in_", c_int64),
        ("kind", c_int32),
    ]


class Norm(Structure):
    _fields_ = [("weight", c_void_p), ("bias", c_void_p), ("eps", c_float)]


class Attended(Structure):
    _fields_ = [("keys", c_void_p), ("values", c_void_p)]


class Layer(Structure):
    _fields_ = [
        *[(name, Matrix) for name in ("query", "key", "value", "out")],
        ("attention_norm", Norm),
        *[(name, Matrix) for name in ("cross_query", "cross_out")],
        ("cross_norm", Norm),
        *[(name, Matrix) for name in ("fc1", "fc2")],
        ("ffn_norm", Norm),
    ]


class Decoder(Structure):
    _fields_ = [
        ("layers", POINTER(Layer)),
        ("tokens", c_void_p),
        ("positions", c_void_p),
        ("norm", Norm),
        *[(name, c_int32) for name in ("layer_count", "heads", "dim", "ffn_dim")],
    ]


class Step(Structure):
    _fields_ = [
        *[(name, c_void_p) for name in ("ids", "lengths", "slots")],
        ("past", POINTER(Attended)),
        ("cross", POINTER(Attended)),
        *[(name, c_void_p) for name in ("cross_lengths", "cross_heads", "image_rows", "image_bounds", "hidden")],
        *[(name, c_int32) for name in ("rows", "images", "width", "threads")],
    ]


class Linear(Structure):
    _fields_ = [
        *[(name, c_void_p) for name in ("weight", "bias", "norm_weight", "norm_bias")],
        ("out", c_int64),
        ("in_", c_int64),
        ("eps", c_float),
        ("gelu", c_int32),
        ("kind", c_int32),
    ]


class Rows(Structure):
    _fields_ = [
        *[(name, c_void_p) for name in ("x", "residual", "y", "panels", "from_", "to")],
        ("count", c_int64),
    ]


SIGNATURES = {
    "step": [POINTER(Decoder), POINTER(Step)],
    "dense": [POINTER(Matrix), c_int64, c_int64, c_void_p, c_int64, c_void_p, c_int],
    "linear": [POINTER(Linear), POINTER(Rows), c_int],
    "depthwise": [c_void_p] * 4 + [c_int64] * 4 + [c_int],
    "window_attention": [c_void_p] * 2 + [c_int64] * 3 + [c_int],
    "channel_attention": [c_void_p] * 2 + [c_int64] * 3 + [c_int],
}


def threads_for(multiplications: int) -> int:
    """How many threads share work between two meetings of theirs. On a machine that does other things, too, one of them
    may have to be waited for longer than small work takes."""
    return max(1, min(torch.get_num_threads(), multiplications // WORK_OF_A_THREAD))


@cache
def library() -> ctypes.CDLL | None:
    """The best build for this processor; None where there is none, as after an installation without a compiler."""
    able = torch.backends.cpu.get_cpu_capability()
    found = (load(name) for name, runs_on in BUILDS.items() if able in runs_on)
    return next((each for each in found if each is not None), None)


def told() -> str:
    """What is used here, for a person."""
    if library() is None:
        return "none, torch alone"
    return BUILDS[Path(library()._name).name.split(".")[0]][-1] + (" with bf16" if has_bf16() else "")


def load(name: str) -> ctypes.CDLL | None:
    """One of `BUILDS`, if it is there. Its OpenMP is torch's, which is in memory already."""
    spec = PathFinder.find_spec(f"{__package__}.{name}", [str(Path(__file__).parent)])
    try:
        found = None if spec is None else ctypes.CDLL(spec.origin)
    except OSError:
        return None
    for name, types in SIGNATURES.items() if found else ():
        function = getattr(found, f"florence_{name}")
        function.argtypes, function.restype = types, None
    if found:
        found.florence_panel_rows.restype = c_int64
    return found


def has_bf16() -> bool:
    """Whether there are kernels for linear layers of many rows in bfloat16, and the processor can run them."""
    return library() is not None and bool(library().florence_has_bf16())
