"""A network from a checkpoint folder: every tensor in its place, or an error that lists what is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from florence_lite.checkpoint.configs import read_config
from florence_lite.checkpoint.layouts import EMBEDDING, LAYOUTS, Layout
from florence_lite.checkpoint.weights import read_tensors, weight_files
from florence_lite.model import FlorenceModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHOWN = 20  # problems that an error message lists
_WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")  # data-parallel training and torch.compile put these before names


def load_checkpoint(
    folder: str | os.PathLike, dtype: torch.dtype | str = torch.float32, device: str | torch.device = "cpu"
) -> FlorenceModel:
    """The network of a checkpoint folder in either layout, in evaluation mode.

    dtype: torch.float32, torch.bfloat16 or torch.float16, or its name; "auto" takes that of the files, but float32 for
        float16 files on the CPU. Tensors are read one by one straight into it.

    Raises FileNotFoundError for a missing folder or file, ValueError for a damaged one, for float16 on the CPU, and
    for tensors that are missing, unknown, of the wrong shape or not finite; the message lists them.
    """
    folder, device = Path(folder), torch.device(device)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no checkpoint folder {str(folder)!r}")
    config = read_config(folder)
    files = weight_files(folder)
    dtype = resolve_dtype(dtype, files[0], device)
    with torch.device("meta"):
        model = FlorenceModel(config)
    load_tensors(model, (pair for file in files for pair in read_tensors(file)), str(folder), dtype, device)
    # The meta device leaves the constant table empty, so the projector computes it again.
    model.projector.reset_frame_positions(dtype, device)
    return model.eval()


def resolve_dtype(dtype: torch.dtype | str, file: Path, device: torch.device) -> torch.dtype:
    """The type of the network's numbers that a caller's `dtype` means; ValueError for one that does not work."""
    if dtype == "auto":
        stored = next((tensor.dtype for _, tensor in read_tensors(file)), torch.float32)
        return torch.float32 if stored not in DTYPES.values() or _half_on_cpu(stored, device) else stored
    found = DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if found not in DTYPES.values():
        raise ValueError(f"dtype is {dtype!r}; it must be 'auto' or one of {', '.join(DTYPES)}")
    if _half_on_cpu(found, device):
        raise ValueError("float16 on the CPU is slow and overflows: take dtype='bfloat16' or 'float32', or a GPU")
    return found


def _half_on_cpu(dtype: torch.dtype, device: torch.device) -> bool:
    return dtype == torch.float16 and device.type == "cpu"


def load_tensors(
    model: FlorenceModel,
    tensors: Iterable[tuple[str, Tensor]],
    source: str,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> None:
    """Give `model` copies of the (name, tensor) pairs of either layout, cast to `dtype` on `device`.

    source: what error messages call the tensors' origin. Raises ValueError listing everything that does not fit; the
    model is then as it was.
    """
    loading = _Loading(model, dtype, device)
    for name, tensor in tensors:
        loading.take(_WRAPPERS.sub("", name), tensor)
    raise_any(loading.all_problems(), f"checkpoint {source!r} does not fit its config")
    model.load_state_dict(loading.loaded, strict=True, assign=True)


def raise_any(problems: list[str], fault: str) -> None:
    """ValueError that lists the first of the problems under `fault`, if there are any."""
    if problems:
        shown = "\n  ".join(problems[:SHOWN]) + (f"\n  … and {len(problems) - SHOWN} more" if problems[SHOWN:] else "")
        raise ValueError(f"{fault} ({len(problems)} problems):\n  {shown}")


class _Loading:
    """Takes tensors in any order and keeps account of what is missing, unknown, misshapen or contradictory."""

    def __init__(self, model: FlorenceModel, dtype: torch.dtype | None, device: torch.device | None):
        self.dtype, self.device = dtype, device
        self.shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        # file name → (layout, our name)
        self.places = {layout.name_of(ours): (layout, ours) for layout in LAYOUTS.values() for ours in self.shapes}
        for layout in LAYOUTS.values():
            self.places |= {name: (layout, EMBEDDING) for name in layout.tied}
        self.constants = {layout.frame_positions for layout in LAYOUTS.values()}
        self.zeros = {name for layout in LAYOUTS.values() for name in layout.zeros}
        self.loaded: dict[str, Tensor] = {}
        self.seen: dict[str, str] = {}  # our name → the file's
        self.layouts: dict[str, str] = {}  # name of a layout → a tensor in it
        self.problems: list[str] = []

    def take(self, name: str, tensor: Tensor) -> None:
        """Put one tensor in its place."""
        if name in self.constants:
            return
        if name in self.zeros:
            if tensor.any():
                self.problems.append(f"not zero: {name}, which is added to all scores and which the network lacks")
            return
        if name not in self.places:
            hint = " (an adapter's: load the adapter's own folder)" if ".lora_" in name else ""
            self.problems.append(f"unknown: {name}{hint}")
            return
        layout, ours = self.places[name]
        self.layouts.setdefault(layout.name, name)
        if ours in layout.transposed and tensor.ndim == 2:
            tensor = tensor.T
        if tensor.shape != self.shapes[ours]:
            self.problems.append(
                f"shape of {name}: {list(tensor.shape)}, config says {list(self.shapes[ours])}"
                f"{_remedy(ours, tensor.shape)}"
            )
            self.seen[ours] = name
            return
        copy = tensor.detach().to(device=self.device, dtype=self.dtype, copy=True).contiguous()
        if ours in self.loaded:
            if not torch.equal(self.loaded[ours], copy):
                self.problems.append(
                    f"not tied: {name} differs from {self.seen[ours]}; token embeddings and output layer must be one"
                )
            return
        if not _is_finite(copy):
            overflow = f"too large for {str(copy.dtype).removeprefix('torch.')}"
            self.problems.append(f"{overflow if _is_finite(tensor) else 'not finite'}: values of {name}")
        self.loaded[ours] = copy
        self.seen[ours] = name

    def all_problems(self) -> list[str]:
        """What is wrong, once every tensor has been taken."""
        layout = self._layout()
        missing = [f"missing: {layout.name_of(ours)}" for ours in self.shapes if ours not in self.seen]
        mixed = []
        if len(self.layouts) > 1:
            examples = ", ".join(f"{example} is {name}" for name, example in self.layouts.items())
            mixed = [f"two layouts in one: {examples}"]
        return mixed + missing + self.problems

    def _layout(self) -> Layout:
        return LAYOUTS[next(iter(self.layouts), "native")]


def _is_finite(tensor: Tensor) -> bool:
    """Whether all values are; without the temporary copies that `isfinite` makes."""
    return not tensor.numel() or all(bool(extreme.isfinite()) for extreme in tensor.aminmax())


def _remedy(ours: str, shape: torch.Size) -> str:
    """How to mend a config whose table sizes do not match, as happens when a table was resized."""
    if ours == EMBEDDING and len(shape) == 2:
        return f"; set text_config.vocab_size to {shape[0]} in config.json if the tokenizer has that many ids"
    if ours.endswith(".positions.weight") and len(shape) == 2:
        return f"; set text_config.max_position_embeddings to {shape[0] - 2} in config.json"
    return ""
