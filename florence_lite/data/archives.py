"""The members of tars, listed and read one at a time; no tar is in memory as a whole."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache

BROKEN = (tarfile.TarError, EOFError, zlib.error, OSError)  # what reading a damaged tar raises


def members(path: str) -> Iterator[tuple[tarfile.TarInfo, Callable[[], bytes] | None]]:
    """The files in a tar; with what reads each now, where it cannot be read from its place in the tar later."""
    packed = not path.lower().endswith(".tar")
    with tarfile.open(path, "r|*" if packed else "r:") as tar:
        while (member := tar.next()) is not None:
            forget_members(tar)
            if member.isfile():
                yield member, tar.extractfile(member).read if packed or member.issparse() else None
        if not packed:
            tar.fileobj.seek(tar.offset)
            if any(block := tar.fileobj.read(tarfile.BLOCKSIZE)) or not block:  # tarfile stops at damage in silence
                raise tarfile.ReadError("what follows is damaged, or there is no mark at its end")


def forget_members(tar: tarfile.TarFile) -> None:
    """Drop what tarfile keeps of each member that went by, so that memory does not grow with the tar."""
    tar.members.clear()  # type: ignore[attr-defined]  # unknown to typeshed


def read_piece(path: str, offset: int, size: int, name: str) -> bytes:
    """A member of a tar by its place. Raises FileNotFoundError without a file, ValueError where it is cut short."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            content = file.read(size)
    except FileNotFoundError:
        raise FileNotFoundError(f"image {name} cannot be read: there is no file {path}") from None
    except OSError as error:
        raise ValueError(f"image {name} cannot be read: {error.strerror or error}") from error
    if len(content) < size:
        raise ValueError(f"image {name} cannot be read: its tar is cut short; copy it again")
    return content


def read_member(path: str, member: str, name: str) -> bytes:
    """A member of a tar by its name; `name` is what errors call it. Raises as `read_piece`."""
    try:
        if path.lower().endswith(".tar"):
            status = os.stat(path)
            if place := _index(path, status.st_size, status.st_mtime_ns).get(member):
                return read_piece(path, *place, name)
        for each, read in members(path):
            if each.name == member and read is not None:
                return read()
    except FileNotFoundError:
        raise
    except BROKEN as error:
        raise ValueError(f"image {name} cannot be read: {error}") from None
    raise FileNotFoundError(f"image {name} does not exist: the tar has no such member")


@lru_cache(maxsize=4)
def _index(path: str, size: int, changed: int) -> dict[str, tuple[int, int]]:
    """Offset and size of each member of a tar of that size and age, as far as it is whole."""
    places = {}
    try:
        for member, read in members(path):
            if read is None:
                places[member.name] = member.offset_data, member.size
    except tarfile.TarError:
        pass
    return places
