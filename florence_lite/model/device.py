"""Where a network runs."""

from __future__ import annotations

import re
from pathlib import Path
from threading import Lock
from typing import Any

import torch

CPU_INFO = Path("/proc/cpuinfo")
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # of products: Intel's and AMD's, Intel's, ARM's


class no_cudnn_attention:
    """Context within which torch's attention on CUDA is not cuDNN's.

    cuDNN plans every new shape of attention, for some hundredths of a second, with a backward pass for more than a
    tenth; nearly every answer and every batch of training has shapes of its own. The choice is the process's: it holds
    for all threads until the last of them has left.
    """

    _lock, _inside, _was = Lock(), 0, True

    def __enter__(self) -> None:
        cls = no_cudnn_attention
        with cls._lock:
            if not cls._inside:
                cls._was = torch.backends.cuda.cudnn_sdp_enabled()
                torch.backends.cuda.enable_cudnn_sdp(False)
            cls._inside += 1

    def __exit__(self, *error: Any) -> None:
        cls = no_cudnn_attention
        with cls._lock:
            cls._inside -= 1
            if not cls._inside:
                torch.backends.cuda.enable_cudnn_sdp(cls._was)


class inference_mode(torch.inference_mode):
    """torch's context and decorator of that name, with `no_cudnn_attention`."""

    def __enter__(self) -> None:
        super().__enter__()
        no_cudnn_attention().__enter__()

    def __exit__(self, *error: Any) -> None:
        no_cudnn_attention().__exit__(*error)
        super().__exit__(*error)


def usable_device(device: str | torch.device) -> torch.device:
    """The device of a name such as "cpu", "cuda" or "cuda:1".

    Raises ValueError, with the reason and the remedy, for a name that means none and a device that cannot be used here.
    """
    if not isinstance(device, str | torch.device):
        raise ValueError(f'device is {device!r}; it must be a name such as "cpu", "cuda" or "cuda:1"')
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={str(device)!r} cannot be used here ({reason}): {_remedy()}") from None
    return found


def _remedy() -> str:
    if count := torch.cuda.device_count():
        return f'give "cpu" or one of {", ".join(f"cuda:{number}" for number in range(count))}'
    if torch.version.cuda is None:
        return 'give "cpu", or install a build of torch with CUDA, by the command that pytorch.org shows'
    return 'give "cpu"; torch sees no GPU, which nvidia-smi may tell more about'


def on_device(device: torch.device, values: list) -> torch.Tensor:
    """A tensor of whole numbers, int64, on a device. A GPU is not waited for: it reads them when it gets there."""
    return torch.tensor(values, dtype=torch.int64).to(device, non_blocking=device.type == "cuda")


def weight_state(weight: torch.Tensor) -> tuple[int, int]:
    """Where a weight lies and how often it was changed: another value where it may not be what it was. Tensors made in
    inference mode do not count their changes."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


def cpu_instructions() -> set[str] | None:
    """Names of the instruction sets that the processor has; None where the system does not list them."""
    try:
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", CPU_INFO.read_text(), re.MULTILINE)
    except OSError:
        return None
    return set(found[1].split()) if found else None
