"""LoRA adapters that `peft` trained on this network or on either Florence-2 class, applied to this network.

What an adapter computes is left to `peft`. What is done here: names. An adapter's tensors tell which modules it adapts;
these are found under our names, and peft is given exactly those, whatever `target_modules` of `adapter_config.json`
says (it may hold suffixes or patterns of foreign names).
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from florence_lite.checkpoint.adapter_config import CONFIG, fits, read_adapter_config
from florence_lite.checkpoint.layouts import DECODER_EMBEDDING, EMBEDDING, LAYOUTS, OUTPUT, ROWS, TABLES, Layout
from florence_lite.checkpoint.loading import DTYPES, FLOATS, about_type, dtype_name, raise_any
from florence_lite.checkpoint.weights import read_tensors
from florence_lite.model import FlorenceModel

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

# Adapters that were trained on our network have our names.
_OURS = Layout("florence-lite", (), "encoder.embed_tokens.weight", frame_positions="projector.frame_positions")
_LAYOUTS = (*LAYOUTS.values(), _OURS)
_UNREAD = {layout.encoder_table for layout in _LAYOUTS}  # of a table that no network reads, whatever is trained on it
_NAME = "default"  # what the adapter is called inside peft
_PREFIX = re.compile(r"^((module|_orig_mod)\.)*(base_model\.model\.)?((module|_orig_mod)\.)*")
_INSIDE = re.compile(r"\.base_layer(?=\.)|\.modules_to_save\.[^.]+(?=\.)")  # what peft's layers put into names
_RANKED = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")
_LORA = re.compile(  # some files have the adapter's name behind the part; DoRA's magnitudes come without `.weight`
    r"^(?P<module>.+)\.(?P<part>lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))"
    r"(?:\.(?!weight$|bias$)[^.]+)?(?P<bias>\.bias)?(?:\.weight)?$"
)

# What becomes of the fields of adapter_config.json. Whatever else is set there changes the mathematics.
_PASSED_ON = ("lora_dropout", "bias", "use_rslora", "use_dora", "lora_bias")
_KNOWN = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "init_lora_weights", *_PASSED_ON}
_NO_MATTER = {  # the tensors tell which modules are adapted; the rest concerns how the training started or ran
    *("peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"),
    *("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern"),
    *("ensure_weight_tying", "fan_in_fan_out", "peft_version", "runtime_config", "megatron_config", "megatron_core"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size"),
}
# Trainings that begin by taking a part out of the base weights. peft can repeat the former on loading, for they depend
# on the weights alone; the latter depend on data or chance.
_REPEATABLE_STARTS = ("pissa", "olora")
_LOST_STARTS = ("pissa_niter_", "corda", "loftq", "lora_ga")


def load_adapter(model: FlorenceModel, folder: str | os.PathLike) -> FlorenceModel:
    """A network like `model` with the LoRA adapter in `folder` added to its weights; `model` itself stays as it is.

    The sum is made in float32 and then cast back; the result is a plain network. It shares with `model` the memory of
    the weights that the adapter leaves alone. Where the adapter changes the token embeddings for some of their uses
    (prompts, answers, output layer) and not for others, the result has the tables that this takes.

    Takes adapters of this network, of transformers' native class and of Microsoft's code, with rsLoRA, DoRA, patterns
    of ranks and alphas, biases, convolutions, and modules saved whole.

    Raises ModuleNotFoundError, with the remedy, without peft, FileNotFoundError for a missing file, ValueError for a
    damaged one, and for tensors that are missing, unknown, of the wrong shape, not finite, or nothing this network can
    hold; the message lists them.
    """
    try:
        import peft
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "adapters need the package peft: pip install 'florence-lite[train]'", name=error.name
        ) from error
    if hasattr(model, "peft_config"):
        raise ValueError("the model already carries an adapter; load the base again, or merge the first adapter")
    folder = Path(folder)
    config = read_adapter_config(folder)
    adapter = _Adapter(_twin(model, ()), config)
    for name, tensor in read_tensors(_weights_file(folder)):
        adapter.take(name, tensor)
    adapter.check_config(vars(peft.LoraConfig()))
    adapter.untie()
    adapter.check_places()

    # peft works on a twin, so that nothing can be left half done.
    plain = adapter.model
    twin, values = _twin(plain, adapter.modules), {}
    for module in map(twin.get_submodule, adapter.adapted):
        module.to(torch.promote_types(module.weight.dtype, torch.float32))
    if adapter.adapted:
        try:
            tuner = peft.LoraModel(twin, peft.LoraConfig(**adapter.peft_fields()), _NAME)
        except (ValueError, TypeError, NotImplementedError) as error:
            adapter.problems.append(f"refused by peft: {error}")
        else:
            values = adapter.values_for(twin)
    _raise_any(adapter.problems, folder, config)
    twin.load_state_dict(values, strict=False)
    with torch.no_grad():
        merged = tuner.merge_and_unload().state_dict()
    merged = {name: merged[name].to(tensor.dtype) for name, tensor in plain.state_dict().items()}
    touched = [name for name in merged if name.rpartition(".")[0] in adapter.modules]
    overflown = [f"too large once merged: {name}" for name in touched if not merged[name].isfinite().all()]
    _raise_any(overflown, folder, config)
    plain.load_state_dict(merged, strict=True, assign=True)
    plain.tie_equal_tables(like=model.config)
    return plain


class _Piece(NamedTuple):
    """Place of a tensor: our name of the module; "lora_A", "lora_B.bias", … or the name of the parameter replaced."""

    module: str
    leaf: str

    @property
    def is_lora(self) -> bool:
        return self.leaf.startswith("lora_")


def _piece(name: str) -> _Piece:
    """The place that a tensor's name means, whatever the adapter is called; the module as the name has it."""
    name = _INSIDE.sub("", _PREFIX.sub("", name))
    if found := _LORA.match(name):
        return _Piece(found["module"], found["part"] + (found["bias"] or ""))
    module, _, leaf = name.rpartition(".")
    return _Piece(module, leaf)


class _Adapter:
    """Takes an adapter's tensors in any order, finds their places in the network, keeps account of what is wrong."""

    def __init__(self, model: FlorenceModel, config: dict):
        self.model, self.config = model, config
        # A file's name of a parameter → its layout and our name; the same for modules that have a weight. The name of
        # the output layer, which two layouts share, tells no layout.
        names = [*model.state_dict(), *TABLES]
        self.parameters = {layout.name_of(ours): (layout, ours) for layout in _LAYOUTS for ours in names}
        self.parameters[OUTPUT] = (None, OUTPUT)
        self.weighty = {
            name.removesuffix(".weight"): (layout, ours.removesuffix(".weight"))
            for name, (layout, ours) in self.parameters.items()
            if name.endswith(".weight")
        }
        self.values: dict[_Piece, Tensor] = {}
        self.names: dict[_Piece, str] = {}  # in the file
        self.foreign: dict[str, str] = {}  # our name of a module → the file's
        self.layouts: dict[Layout, str] = {}  # layout → a tensor in it
        self.problems: list[str] = []

    def take(self, name: str, tensor: Tensor) -> None:
        """Put one tensor in its place."""
        module, leaf = found = _piece(name)
        file_name = f"{module}.{leaf}".removeprefix(".")
        if any(file_name == layout.frame_positions for layout in _LAYOUTS) or f"{module}.weight" in _UNREAD:
            return
        if found.is_lora:
            layout, ours = self.weighty.get(module, (None, None))
            piece = _Piece(ours, leaf)
        else:
            layout, ours = self.parameters.get(file_name, (None, None))
            piece = _Piece(*(ours or ".").rsplit(".", 1))
        if ours is None:
            matrices = {layout.name_of(ours) for layout in LAYOUTS.values() for ours in layout.transposed}
            hint = " (a bare matrix in Microsoft's class, which LoRA does not adapt)" if module in matrices else ""
            self.problems.append(f"unknown: {name}{hint}")
            return
        if layout is not None:
            self.layouts.setdefault(layout, name)
        if tensor.dtype not in FLOATS:
            self.problems.append(f"type of {name}: {dtype_name(tensor.dtype)}{about_type(tensor.dtype)}")
            tensor = torch.zeros(tensor.shape)  # its shape is still to be checked
        if ours in TABLES and not found.is_lora and not self._is_to_be_saved(module):
            self._check_base_table(name, ours, tensor)
            return
        tensor = tensor.clone()  # reading the next one may unmap this one
        if (table := f"{piece.module}.weight") in TABLES:
            tensor = self._with_all_rows(piece, tensor, self._base_table(table))
        if piece in self.values:
            self.problems.append(f"twice: {name} and {self.names[piece]} belong in the same place")
            return
        if layout is not None and ours in layout.transposed and not found.is_lora and tensor.ndim == 2:
            tensor = tensor.T
        self.values[piece] = tensor
        self.names[piece] = name
        self.foreign[piece.module] = module

    def _is_to_be_saved(self, module: str) -> bool:
        """Whether the training was to replace a module, by its name in the file."""
        return any(module.endswith(str(name)) for name in self.config.get("modules_to_save") or ())

    def _check_base_table(self, name: str, ours: str, tensor: Tensor) -> None:
        """A table of tokens that was not trained: peft's `save_embedding_layers` writes it as the base had it.

        It must be that of this base, and it changes nothing.
        """
        base = self._base_table(ours)
        tensor = self._with_all_rows(_Piece("", "weight"), tensor, base)
        if tensor.shape != base.shape:
            self.problems.append(f"shape of {name}: {list(tensor.shape)}, base has {list(base.shape)}")
        elif not _is_rounded(tensor, base) and not _is_rounded(base, tensor):
            self.problems.append(
                f"another base: {name} was not trained and differs from the model's; load the base that the adapter "
                f"was trained on, or, if the table was trained, name it in modules_to_save of {CONFIG}"
            )

    def _base_table(self, ours: str) -> Tensor:
        own = dict(self.model.named_parameters())
        return own.get(ours, own[EMBEDDING]).detach()

    def _with_all_rows(self, piece: _Piece, tensor: Tensor, base: Tensor) -> Tensor:
        """A tensor for a table of tokens with as many rows as the base, to which saving may have added some that no
        token has: there it changes nothing."""
        axis = {"lora_B": 0, "lora_embedding_A": 1, "weight": 0}.get(piece.leaf)
        missing = len(base) - tensor.shape[axis] if axis is not None and tensor.ndim == 2 else 0
        if not 0 < missing < ROWS:
            return tensor
        if piece.leaf == "weight":
            return torch.cat([tensor, base[-missing:].to(tensor)]) if tensor.shape[1] == base.shape[1] else tensor
        shape = [missing if each == axis else side for each, side in enumerate(tensor.shape)]
        return torch.cat([tensor, tensor.new_zeros(shape)], axis)

    @property
    def adapted(self) -> list[str]:
        """Our names of the modules that LoRA adapts."""
        return sorted({piece.module for piece in self.values if piece.is_lora})

    @property
    def modules(self) -> list[str]:
        """Our names of all modules that the adapter changes."""
        return sorted({piece.module for piece in self.values})

    def check_config(self, defaults: dict) -> None:
        """Note what adapter_config.json asks for and this network or the installed peft, with `defaults`, lacks."""
        for name, value in self.config.items():
            if value and name not in _KNOWN | _NO_MATTER and value != defaults.get(name):
                self.problems.append(f"{CONFIG}: {name} = {value!r} is not supported")
        start = self.config.get("init_lora_weights")
        if isinstance(start, str) and start.startswith(_LOST_STARTS):
            self.problems.append(
                f"{CONFIG}: init_lora_weights = {start!r} changed the base before training, in a way that cannot be "
                "repeated; save the adapter again with peft's path_initial_model_for_weight_conversion"
            )

    def untie(self) -> None:
        """Give the model a table for each use of the token embeddings that the adapter does not treat like the others.

        In both Florence-2 classes the three tables are modules of their own, of which an adapter may change any. In our
        network `embed_tokens` serves all uses that are tied to it; but LoRA on it leaves the output layer as it was.
        """
        touched = {f"{module}.weight" for module in self.modules} & set(TABLES)
        whole = _OURS in self.layouts and EMBEDDING.removesuffix(".weight") not in self.adapted
        if not touched or (whole and touched == {EMBEDDING}):
            return
        self.model.untie_output()
        if DECODER_EMBEDDING in touched or (EMBEDDING in touched and _OURS not in self.layouts):
            self.model.untie_decoder()

    def check_places(self) -> None:
        """Note what is wrong with the tensors as a whole and what cannot be merged."""
        if len(self.layouts) > 1:
            examples = ", ".join(f"{example} is {layout.name}" for layout, example in self.layouts.items())
            self.problems.insert(0, f"two layouts in one: {examples}")
        if not self.adapted and not self.problems:
            self.problems.append("empty: the file holds no LoRA tensors")
        for name in self.adapted:
            module = self.model.get_submodule(name)
            problem = None
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                problem = "is a depthwise convolution, and the adapter adds a dense one"
            elif _Piece(name, "lora_B.bias") in self.values and module.bias is None:
                problem = "has no bias to add the adapter's to"
            if problem:
                self.problems.append(
                    f"not to be merged: {self.foreign[name]} {problem}; train an adapter without this layer"
                )
        for name in self.modules:
            self._check_replaced(name)

    def _replaced(self, module: str) -> set[str]:
        return {piece.leaf for piece in self.values if piece.module == module and not piece.is_lora}

    def _is_saved_whole(self, module: str) -> bool:
        parameters = {name for name, _ in self.model.get_submodule(module).named_parameters(recurse=False)}
        return module not in self.adapted and self._replaced(module) == parameters

    def _check_replaced(self, module: str) -> None:
        """A module's parameters are replaced all together, or the bias alone if the training was to move biases."""
        replaced = self._replaced(module)
        if not replaced or self._is_saved_whole(module):
            return
        if replaced != {"bias"} or self.config.get("bias", "none") == "none":
            names = ", ".join(self.names[_Piece(module, leaf)] for leaf in sorted(replaced))
            self.problems.append(f"incomplete: {names} without the rest of its module, against {CONFIG}")

    def peft_fields(self) -> dict:
        """The fields of peft's LoraConfig that make the same layers in our network."""
        fields = {name: self.config[name] for name in _PASSED_ON if self.config.get(name)}
        if self.config.get("init_lora_weights") in _REPEATABLE_STARTS:
            fields["init_lora_weights"] = self.config["init_lora_weights"]
        return {
            **fields,
            "r": 1,  # that of no module
            "lora_alpha": self.config["lora_alpha"],
            "rank_pattern": self._ranks(),
            "alpha_pattern": self._translated("alpha_pattern", self.config["lora_alpha"]),
            # One pattern: of a list, peft would take every name for the end of others.
            "target_modules": "|".join(map(re.escape, self.adapted)),
        }

    def _ranks(self) -> dict[str, int]:
        """The rank of every adapted module, as its tensors have it: a file of another mind is not believed."""
        said, ranks = self._translated("rank_pattern", self.config["r"]), {}
        for module in self.adapted:
            sizes = [
                (piece, tensor.shape[1 if "_B" in piece.leaf else 0])
                for piece, tensor in self.values.items()
                if piece.module == module and piece.leaf in _RANKED and tensor.ndim > 1 and tensor.numel()
            ]
            ranks[module] = max(1, sizes[0][1]) if sizes else 1
            for piece, size in sizes:
                if size != said[module]:
                    shape = list(self.values[piece].shape)
                    self.problems.append(f"shape of {self.names[piece]}: {shape}, {CONFIG} says rank {said[module]}")
        return ranks

    def _translated(self, field: str, usual: float) -> dict:
        """A field of numbers for modules, of whose foreign names it gives the ends or patterns, by our full names.

        Every module has a number, longer names first: peft takes the first that is the end of a module's name.
        """
        given = self.config.get(field) or {}
        numbers = {}
        for module in sorted(self.adapted, key=len, reverse=True):
            fitting = (number for pattern, number in given.items() if fits(pattern, self.foreign[module]))
            numbers[module] = next(fitting, usual)
        return numbers

    def values_for(self, twin: FlorenceModel) -> dict[str, Tensor]:
        """The tensors by their names in `twin`, whose layers peft has replaced; notes what does not fit."""
        state = twin.state_dict()
        places = {_piece(name): name for name in state}
        for piece in places.keys() - self.values.keys():
            if piece.is_lora:
                self.problems.append(f"missing: {piece.leaf} of {self.foreign[piece.module]}")
        found = {}
        for piece, tensor in self.values.items():
            if piece not in places:
                self.problems.append(f"unexpected: {self.names[piece]}, which {CONFIG} does not ask for")
                continue
            target = state[places[piece]]
            if tensor.shape != target.shape:
                self.problems.append(
                    f"shape of {self.names[piece]}: {list(tensor.shape)}, base and {CONFIG} say {list(target.shape)}"
                )
            elif not tensor.isfinite().all():
                self.problems.append(f"not finite: values of {self.names[piece]}")
            elif not (cast := tensor.to(target.dtype)).isfinite().all():
                self.problems.append(f"too large for {dtype_name(target.dtype)}: values of {self.names[piece]}")
            else:
                found[places[piece]] = cast
        return found


def _is_rounded(tensor: Tensor, exact: Tensor) -> bool:
    """Whether it holds the values of `exact`, perhaps rounded to one of the types of weights."""
    return any(torch.equal(exact.to(dtype).to(tensor), tensor) for dtype in (tensor.dtype, *DTYPES.values()))


def _twin(model: FlorenceModel, modules: Collection[str]) -> FlorenceModel:
    """A copy of `model` that shares the memory of all tensors but those of `modules`."""
    own = {id(tensor) for name in modules for tensor in model.get_submodule(name).parameters(recurse=False)}
    shared = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters() if id(p) not in own}
    return copy.deepcopy(model, shared | {id(buffer): buffer for buffer in model.buffers()})


def _weights_file(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"adapter {str(folder)!r} has no weights: none of {', '.join(WEIGHTS)}")


def _raise_any(problems: list[str], folder: Path, config: dict) -> None:
    base = config.get("base_model_name_or_path")
    trained = f", trained on {base!r}," if base else ""
    raise_any(problems, f"adapter {str(folder)!r}{trained} does not fit the model")
