"""Label Studio's run lengths of painted masks, read and written.

A stream of bits, the highest of each byte first: how many values follow (32 bits), the bits of a value less one (5),
and four counts of bits less one (4 each). Then, until there are as many values: whether one value is repeated (1 bit),
which of the four counts is meant (2), how many values less one, in so many bits, and that value once or all of them.
The values are those of an RGBA picture, row by row; a pixel is painted where its alpha is above half.
Source: the format that `brushlabels` of https://labelstud.io/ have in JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CHANNELS, _WORD = 4, 8
_COUNT_BITS = (3, 4, 8, 16)  # in what is written


def brush_to_mask(rle: Sequence[Any], size_wh: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask bool[H, W] of run lengths, a list of bytes. Raises ValueError where they are none of that size."""
    width, height = size_wh
    try:
        bits = "".join(f"{byte:08b}" for byte in bytes(rle))
    except (TypeError, ValueError) as error:
        raise ValueError(f"its run lengths are no list of bytes ({error})") from None
    place = 0

    def number(length: int) -> int:
        nonlocal place
        if place + length > len(bits):
            raise ValueError("its run lengths are cut short")
        place += length
        return int(bits[place - length : place], 2)

    total, word = number(32), number(5) + 1
    if total != width * height * _CHANNELS or word != _WORD:
        raise ValueError(f"its run lengths are {total} values of {word} bits, not those of {width}×{height} pixels")
    count_bits = [number(4) + 1 for _ in range(4)]
    runs, known = [], 0
    while known < total:
        repeated, length = number(1), number(count_bits[number(2)]) + 1
        if known + length > total:
            raise ValueError(f"its run lengths are more than {total} values")
        values = [number(word)] if repeated else [number(word) for _ in range(length)]
        runs.append(np.full(length, values[0], np.uint8) if repeated else np.array(values, np.uint8))
        known += length
    return np.concatenate(runs).reshape(height, width, _CHANNELS)[..., 3] > 127


def mask_to_brush(mask: ArrayLike) -> list[int]:
    """The run lengths, a list of bytes, of a mask bool[H, W]."""
    pixels = np.asarray(mask, dtype=bool).ravel()
    ends = np.flatnonzero(np.append(pixels[1:] != pixels[:-1], True)) + 1
    bits = [f"{len(pixels) * _CHANNELS:032b}{_WORD - 1:05b}", *(f"{count - 1:04b}" for count in _COUNT_BITS)]
    longest = 2 ** _COUNT_BITS[-1]
    for start, end in zip(np.append(0, ends[:-1]).tolist(), ends.tolist(), strict=True):
        value, left = f"{255 if pixels[start] else 0:08b}", (end - start) * _CHANNELS
        while left:
            length = min(left, longest)
            kind = next(kind for kind, count in enumerate(_COUNT_BITS) if length <= 2**count)
            bits.append(f"1{kind:02b}{length - 1:0{_COUNT_BITS[kind]}b}{value}")
            left -= length
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return list(int(stream, 2).to_bytes(len(stream) // 8, "big"))
