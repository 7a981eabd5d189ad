"""A network from a checkpoint folder: every tensor in its place, or an error that lists what is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from florence_lite.checkpoint.configs import read_config
from florence_lite.checkpoint.layouts import DECODER_EMBEDDING, EMBEDDING, LAYOUTS, OUTPUT, TABLES, Layout
from florence_lite.checkpoint.weights import read_tensors, weight_files
from florence_lite.model import FlorenceModel, usable_device

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FLOATS = (*DTYPES.values(), torch.float64)  # what weights may be stored as
ENCODER_TABLE = "encoder.embed_tokens.weight"  # a copy of the token embeddings in files, which no network here has
SHOWN = 20  # problems that an error message lists
LONGEST = 500  # characters of a problem, which may hold names of a foreign file
_WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")  # data-parallel training and torch.compile put these before names


def load_checkpoint(
    folder: str | os.PathLike, dtype: torch.dtype | str = torch.float32, device: str | torch.device = "cpu"
) -> FlorenceModel:
    """The network of a checkpoint folder in either layout, in evaluation mode.

    dtype: torch.float32, torch.bfloat16 or torch.float16, or its name; "auto" takes that of the files, but float32 for
        float16 files on the CPU and for all on Apple's GPUs ("mps").

    Tensors are read one by one. Those that have the type and the device already are not copied: the file is mapped,
    changes stay in memory, and the file must not be overwritten in place while the network is in use. `save_checkpoint`
    and the Hub's cache replace files whole. On Windows, where nobody may replace a mapped file, all are copied.

    Raises FileNotFoundError for a missing folder or file, ValueError for a damaged one, for float16 on the CPU, and
    for tensors that are missing, unknown, of the wrong shape or not finite; the message lists them.
    """
    folder, device = Path(folder), usable_device(device)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no checkpoint folder {str(folder)!r}")
    config = read_config(folder)
    files = weight_files(folder)
    tensors = chain.from_iterable(map(read_tensors, files))
    first = next(tensors, None)
    dtype = resolve_dtype(dtype, torch.float32 if first is None else first[1].dtype, device)
    # On the meta device, so that no memory is asked for but that of tensors that a file holds.
    with torch.device("meta"), _WithoutInit():
        model = FlorenceModel(config)
    tensors = chain(() if first is None else (first,), tensors)
    del first  # nothing here may keep its memory
    with _one_thread():
        load_tensors(model, tensors, str(folder), dtype, device, copy=os.name == "nt")
        model.projector.to(device, dtype)  # the constant table, which no file has to hold
    return model.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Work within on one thread: copying is bound by memory, and hundreds of small tensors on several threads, each of
    which waits for the others, take ten times as long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _WithoutInit(TorchFunctionMode):
    """Modules that are built within get no first values: those of a file take their place.

    It saves the time, and on the meta device the import of torch's compiler, which some of the functions set off.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def resolve_dtype(dtype: torch.dtype | str, stored: torch.dtype, device: torch.device) -> torch.dtype:
    """The type of the network's numbers that a caller's `dtype` means; ValueError for one that does not work.

    stored: the type in the files.
    """
    if dtype == "auto":
        return torch.float32 if stored not in DTYPES.values() or _is_risky(stored, device) else stored
    found = DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if found not in DTYPES.values():
        raise ValueError(f"dtype is {dtype!r}; it must be 'auto' or one of {', '.join(DTYPES)}")
    if _half_on_cpu(found, device):
        raise ValueError("float16 on the CPU is slow and overflows: take dtype='bfloat16' or 'float32', or a GPU")
    return found


def _half_on_cpu(dtype: torch.dtype, device: torch.device) -> bool:
    return dtype == torch.float16 and device.type == "cpu"


def _is_risky(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether "auto" takes float32 instead: on Apple's GPUs half precision is not tested, and older systems lack
    bfloat16."""
    return _half_on_cpu(dtype, device) or (device.type == "mps" and dtype != torch.float32)


def load_tensors(
    model: FlorenceModel,
    tensors: Iterable[tuple[str, Tensor]],
    source: str,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    copy: bool = True,
) -> None:
    """Give `model` the (name, tensor) pairs of either layout, cast to `dtype` on `device`.

    An output layer, or a table of the decoder's, that differs from the token embeddings becomes the model's own; where
    the tensors are equal or absent, one table serves all, unless the model's configuration says otherwise.

    source: what error messages call the tensors' origin. copy: False takes over the memory of tensors that have the
    right type and device; nobody else may use it then.

    Raises ValueError listing everything that does not fit; the model is then as it was.
    """
    loading = _Loading(model, dtype, device, copy)
    for name, tensor in tensors:
        loading.take(_WRAPPERS.sub("", name), tensor)
    raise_any(loading.all_problems(), f"checkpoint {source!r} does not fit its config")
    if OUTPUT in loading.loaded:
        model.untie_output()
    if DECODER_EMBEDDING in loading.loaded:
        model.untie_decoder()
    model.load_state_dict(loading.loaded, strict=True, assign=True)


def raise_any(problems: list[str], fault: str) -> None:
    """ValueError that lists the first of the problems under `fault`, if there are any."""
    if problems:
        lines = [problem[:LONGEST] for problem in problems[:SHOWN]]
        if more := len(problems) - len(lines):
            lines.append(f"… and {more} more")
        raise ValueError("\n  ".join([f"{fault} ({len(problems)} problems):", *lines]))


class _Loading:
    """Takes tensors in any order and keeps account of what is missing, unknown, misshapen or contradictory."""

    def __init__(self, model: FlorenceModel, dtype: torch.dtype | None, device: torch.device | None, copy: bool):
        self.dtype, self.device, self.copy = dtype, device, copy
        self.required = list(model.state_dict())
        self.shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        self.shapes |= dict.fromkeys((*TABLES, ENCODER_TABLE), self.shapes[EMBEDDING])
        self.places: dict[str, tuple[Layout, str]] = {}  # file name → (layout, our name)
        self.layouts_to_come = list(LAYOUTS.values())  # whose names are made when a name is not among those so far
        self.constants = {layout.frame_positions for layout in LAYOUTS.values()}
        self.zeros = {name for layout in LAYOUTS.values() for name in layout.zeros}
        self.loaded: dict[str, Tensor] = {}
        self.memory: set[int] = set()  # where the loaded tensors begin
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
        if (place := self._place(name)) is None:
            hint = " (an adapter's: load the adapter's own folder)" if ".lora_" in name else ""
            self.problems.append(f"unknown: {name}{hint}")
            return
        layout, ours = place
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
        if tensor.dtype not in FLOATS:
            self.problems.append(
                f"type of {name}: {dtype_name(tensor.dtype)}{about_type(tensor.dtype)}; take a file in "
                f"{', '.join(DTYPES)}"
            )
            self.seen[ours] = name
            return
        if ours in self.loaded:
            if not torch.equal(self.loaded[ours], tensor.to(self.loaded[ours])):
                self.problems.append(f"twice: {name} and {self.seen[ours]} belong in the same place and differ")
            return
        value = self._own(tensor)
        if not _is_finite(value):
            overflow = f"too large for {dtype_name(value.dtype)}"
            self.problems.append(f"{overflow if _is_finite(tensor) else 'not finite'}: values of {name}")
        for table in (*TABLES, ENCODER_TABLE) if ours in (*TABLES, ENCODER_TABLE) else ():
            if table in self.loaded and torch.equal(self.loaded[table], value):
                value = self.loaded[table]  # tied: the memory of the copy is let go
        self.loaded[ours] = value
        self.seen[ours] = name

    def _place(self, name: str) -> tuple[Layout, str] | None:
        """The layout that calls a tensor so, and our name for it."""
        while name not in self.places and self.layouts_to_come:
            layout = self.layouts_to_come.pop(0)
            self.places |= {layout.name_of(ours): (layout, ours) for ours in self.shapes if ours != ENCODER_TABLE}
            self.places[layout.encoder_table] = (layout, ENCODER_TABLE)
        return self.places.get(name)

    def _own(self, tensor: Tensor) -> Tensor:
        """The tensor as a parameter, in memory that no other one uses."""
        value = tensor.detach().to(self.device, self.dtype).contiguous()
        if value.data_ptr() == tensor.data_ptr():
            shared = value.untyped_storage().nbytes() > value.nbytes or value.data_ptr() in self.memory
            value = value.clone() if self.copy or shared else value
        self.memory.add(value.data_ptr())
        return value

    def all_problems(self) -> list[str]:
        """What is wrong, once every tensor has been taken."""
        self._tie()
        layout = self._layout()
        missing = [f"missing: {layout.name_of(ours)}" for ours in self.required if ours not in self.seen]
        mixed = []
        if len(self.layouts) > 1:
            examples = ", ".join(f"{example} is {name}" for name, example in self.layouts.items())
            mixed = [f"two layouts in one: {examples}"]
        return mixed + missing + self.problems

    def _tie(self) -> None:
        """Keep one of equal tables, unless the model has several; those that are kept get memory of their own."""
        spare = self.loaded.pop(ENCODER_TABLE, None)
        if EMBEDDING not in self.seen:
            others = [ENCODER_TABLE, *(table for table in TABLES if table not in self.required)]
            if (found := next((table for table in others if table in self.seen), None)) is not None:
                self.seen[EMBEDDING] = self.seen[found]
                self.loaded[EMBEDDING] = spare if found == ENCODER_TABLE else self.loaded.get(found)
        for number, table in enumerate(TABLES):
            value = self.loaded.get(table)
            if table not in self.required and value is self.loaded.get(EMBEDDING):
                self.loaded.pop(table, None)
            elif value is not None and any(value is self.loaded.get(earlier) for earlier in TABLES[:number]):
                self.loaded[table] = value.clone()

    def _layout(self) -> Layout:
        return LAYOUTS[next(iter(self.layouts), "native")]


def about_type(dtype: torch.dtype) -> str:
    """What a tensor of a type that weights do not have may be: the rest of a sentence."""
    if dtype.is_complex or dtype == torch.bool:
        return ", which is no type of weights"
    return ", perhaps a quantised weight without its scale"


def dtype_name(dtype: torch.dtype) -> str:
    """As users write it: "float16"."""
    return str(dtype).removeprefix("torch.")


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
