"""COCO's run lengths → masks, so that no compiled library is needed to read them.

A mask is given column by column as the lengths of its runs of equal pixels, False first. Source: the format of
pycocotools' `maskApi.c`; `florence_lite.geometry.mask_to_rle` writes the uncompressed kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_BITS = 60  # of a run length; longer ones only cost time


def rle_to_mask(rle: Mapping[str, Any], size_wh: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """The mask bool[H, W] of {"size": [H, W], "counts": run lengths, or their compressed string}.

    size_wh: the size that the mask must have, if it is known. Nothing is unpacked before all lengths are checked.

    Raises ValueError for another size and for run lengths that are negative or do not fill it.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"run lengths need a size [height, width] and counts ({error})") from None
    if size_wh is not None and (width, height) != tuple(size_wh):
        raise ValueError(f"its run lengths are for {width}×{height} pixels, not {size_wh[0]}×{size_wh[1]}")
    try:
        runs = _uncompressed(counts) if isinstance(counts, str | bytes) else [int(count) for count in counts]
    except (TypeError, ValueError, OverflowError, IndexError) as error:
        raise ValueError(f"run lengths need a size [height, width] and counts ({error})") from None
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"run lengths add up to {sum(runs)} for {height}×{width} pixels")
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return pixels.reshape((height, width), order="F")


def _uncompressed(text: str | bytes) -> list[int]:
    """Run lengths of a compressed string: five bits a character, the lowest first, the sixth says that more follow;
    from the third on, each is the difference from the one two before."""
    runs: list[int] = []
    characters = iter(text.encode("ascii") if isinstance(text, str) else text)
    for character in characters:
        value, shift, bits = 0, 0, character - 48
        value |= bits & 31
        while bits & 32:
            shift += 5
            if shift > _MOST_BITS:
                raise ValueError("a run length of too many characters")
            bits = next(characters, 48) - 48
            value |= (bits & 31) << shift
        if bits & 16:
            value -= 1 << (shift + 5)
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs
