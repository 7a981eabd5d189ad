"""Reading the tensors of a checkpoint folder one at a time, whatever files they are in. No code of a file is run."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from florence_lite.files import read_json, refuse_lfs_pointer

SINGLE = ("model.safetensors", "pytorch_model.bin")
MAPPED = 2**26  # bytes of a file that are read before it is unmapped
SHARDED = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: one, or the shards that an index names; safetensors before `.bin`.

    Raises FileNotFoundError where there are none or a shard is missing, ValueError for a damaged index.
    """
    for single, index in zip(SINGLE, SHARDED, strict=True):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return _shards(folder / index)
    raise FileNotFoundError(f"checkpoint {str(folder)!r} has no weights: none of {', '.join((*SINGLE, *SHARDED))}")


def read_tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of everything in a file. Tensors are views of the file: changes stay in memory, but what the file
    becomes later may show.

    Nothing is kept of a tensor that the caller has let go: reading a safetensors file takes little more memory than its
    largest; of a `.bin` file all pages that were read count until its last tensor is gone, also those of tensors that
    nobody keeps.

    Raises ValueError, naming the file, where it is damaged, cut short, a git-lfs pointer or holds anything but tensors.
    """
    refuse_lfs_pointer(file)
    try:
        yield from _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged or cut short ({error}); copy it again") from None


def _read_safetensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    with safe_open(file, framework="pt") as opened:
        names = list(opened.keys())
    while names:
        # Opened anew now and then: pages that were read count as memory until the file is unmapped.
        read = 0
        with safe_open(file, framework="pt") as opened:
            while names and read < MAPPED:
                tensor = opened.get_tensor(names[0])
                if read and tensor.nbytes >= MAPPED:
                    break  # so that the pages of a large one that nobody keeps do not stay with those of others
                name = names.pop(0)
                read += tensor.nbytes
                yield name, tensor
                del tensor


def _read_pickle(file: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        # What torch wrote before version 1.6 is no archive, which alone can be mapped.
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} holds more than tensors and is not read, for that would run its code; ask for a safetensors file "
            f"({str(error).splitlines()[0]})"
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise ValueError(f"{file} is damaged or cut short ({str(error).splitlines()[0]}); copy it again") from None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"{file} is no table of tensors; it may be a training state rather than a model")
    for name in list(tensors):
        yield name, tensors.pop(name)


def _shards(index: Path) -> list[Path]:
    content = read_json(index)
    try:
        names = sorted(set(content["weight_map"].values()))
        files = [index.parent / Path(name).name for name in names]
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ValueError(f"{index} is no index of shards: it needs a 'weight_map' from tensors to files") from None
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"checkpoint {str(index.parent)!r} lacks the shards {', '.join(missing)}")
    return files
