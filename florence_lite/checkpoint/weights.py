"""Reading the tensors of a checkpoint folder one at a time, whatever files they are in. No code of a file is run."""

from __future__ import annotations

import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from florence_lite.files import read_json, refuse_lfs_pointer

SINGLE = ("model.safetensors", "pytorch_model.bin")
MAPPED = 2**26  # bytes of a file that are read before it is unmapped
SHARDED = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
INDEX_BYTES = 2**24
HEADER_BYTES = 2**22  # a file's table of contents; Florence-2's have a tenth of this
PICKLE_BYTES = 2**20  # of a table of contents that is a pickle, whose every byte may be a step of work
PICKLE_STEPS = 2**17  # of a pickle of the old kind, before its numbers; Florence-2's have a quarter of this
MOST_RECORDS = 2**14  # parts of an archive, of which a tensor is one
MOST_SHARDS = 1000
_OLD_PICKLES = 5  # magic number, version, system, the table and its keys, one behind the other
# The first torch whose `weights_only` has no known hole: before it, a prepared file runs code or writes over memory
# (CVE-2025-32434, CVE-2026-24747).
SOUND_TORCH = (2, 10)


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

    Raises ValueError, naming the file, where it is damaged, cut short, a git-lfs pointer or holds anything but plain
    tensors; for a `.bin` file with a torch older than `SOUND_TORCH`; and for a table of contents that is longer than
    that of any network of this kind.
    """
    refuse_lfs_pointer(file)
    try:
        yield from _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
    except SafetensorError as error:
        raise _damaged(file, error) from None


def _read_safetensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    if HEADER_BYTES < length < file.stat().st_size:
        raise _overlong(file, f"{length:,} bytes")
    with safe_open(file, framework="pt") as opened:
        names = list(opened.keys())[::-1]
    while names:
        # Opened anew now and then: pages that were read count as memory until the file is unmapped.
        read = 0
        with safe_open(file, framework="pt") as opened:
            while names and read < MAPPED:
                tensor = opened.get_tensor(names[-1])
                if read and tensor.nbytes >= MAPPED:
                    break  # so that the pages of a large one that nobody keeps do not stay with those of others
                name = names.pop()
                read += tensor.nbytes
                yield name, tensor
                del tensor


def _read_pickle(file: Path) -> Iterator[tuple[str, Tensor]]:
    if _version(torch.__version__) < SOUND_TORCH:
        raise ValueError(
            f"{file} is a pickled file, and torch {torch.__version__} cannot read such files safely: update torch to "
            f"{'.'.join(map(str, SOUND_TORCH))} or newer, or ask for a safetensors file"
        )
    is_archive = zipfile.is_zipfile(file)  # what torch wrote before version 1.6 is none, and cannot be mapped
    _check_archive(file) if is_archive else _check_steps(file)
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} holds more than tensors and is not read, for that would run its code; ask for a safetensors file "
            f"({_first_line(error)})"
        ) from None
    except Exception as error:  # the reader of a damaged pickle fails in any way
        raise _damaged(file, error) from None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"{file} is no table of tensors; it may be a training state rather than a model")
    for name in list(tensors):
        _check_plain(file, name, tensors[name])
        yield name, tensors.pop(name)


def _check_archive(file: Path) -> None:
    """ValueError where the archive has more parts than weights can be, or packed ones, which may unpack to anything."""
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, struct.error) as error:
        raise _damaged(file, error) from None
    if len(parts) > MOST_RECORDS:
        raise _overlong(file, f"{len(parts):,} parts")
    for part in parts:
        if part.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{file}: its part {part.filename[:80]!r} is packed, as torch writes none; copy it again")
        if part.filename.endswith("data.pkl") and part.file_size > PICKLE_BYTES:
            raise _overlong(file, f"{part.file_size:,} bytes")


def _check_steps(file: Path) -> None:
    """ValueError where a file of the old kind has more to unpickle before its numbers than weights can have."""
    try:
        with file.open("rb") as stream:
            steps = chain.from_iterable(pickletools.genops(stream) for _ in range(_OLD_PICKLES))
            overlong = any(True for _ in islice(steps, PICKLE_STEPS, None))
    except Exception:  # it is no pickle, as reading it tells
        return
    if overlong:
        raise _overlong(file, f"more than {PICKLE_STEPS:,} steps")


def _check_plain(file: Path, name: Any, tensor: Tensor) -> None:
    """ValueError where a tensor is not numbers that lie in the file, one for each place."""
    plain = isinstance(name, str) and tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{file}: {str(name)[:80]!r} is no plain tensor; ask for a safetensors file")


def _overlong(file: Path, size: str) -> ValueError:
    return ValueError(f"{file} has a table of contents of {size}, more than any network of this kind has")


def _damaged(file: Path, error: Exception) -> ValueError:
    return ValueError(f"{file} is damaged or cut short ({_first_line(error)}); copy it again")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _version(text: str) -> tuple[int, ...]:
    """The first two numbers of "2.13.0+cpu"."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _shards(index: Path) -> list[Path]:
    content = read_json(index, INDEX_BYTES)
    try:
        names = sorted(set(content["weight_map"].values()))
        if len(names) > MOST_SHARDS:
            raise _overlong(index, f"{len(names):,} files")
        files = [index.parent / Path(name).name for name in names]
        missing = [file.name for file in files if not file.is_file()]
    except (KeyError, AttributeError, TypeError, OSError):  # a name that the system refuses
        raise ValueError(f"{index} is no index of shards: it needs a 'weight_map' from tensors to files") from None
    if missing:
        shown = ", ".join(name[:80] for name in missing[:5]) + (f" and {len(missing) - 5} more" if missing[5:] else "")
        raise FileNotFoundError(f"checkpoint {str(index.parent)!r} lacks the shards {shown}")
    return files
