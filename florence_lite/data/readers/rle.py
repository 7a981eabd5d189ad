"""COCO's run lengths → masks, so that no compiled library is needed to read them.

A mask is given column by column as the lengths of its runs of equal pixels, False first. Source: the format of
pycocotools' `maskApi.c`; `florence_lite.geometry.mask_to_rle` writes the uncompressed kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def rle_to_mask(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The mask bool[H, W] of {"size": [H, W], "counts": run lengths, or their compressed string}.

    Raises ValueError for run lengths that are negative or do not fill the size.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
        runs = _uncompressed(counts) if isinstance(counts, str | bytes) else [int(count) for count in counts]
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
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
            bits = next(characters, 48) - 48
            value |= (bits & 31) << shift
        if bits & 16:
            value -= 1 << (shift + 5)
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs
