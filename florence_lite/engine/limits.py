"""Input checks that decoding and scoring share."""

from __future__ import annotations

from collections.abc import Sequence

from florence_lite.engine.options import GenerationOptions


def check_batch(images: int, prefixes: Sequence[list[int]], others: Sequence, name: str) -> None:
    """Raise ValueError unless `prefixes` can be shared out among the images and one of `others` goes with each.

    `name` is what the caller calls `others`.
    """
    if images < 1 or len(prefixes) % images or len(others) != len(prefixes):
        raise ValueError(
            f"{len(prefixes)} prefixes and {len(others)} {name} for {images} images: every image needs the same number "
            f"of prefixes, and every prefix one of the {name}"
        )


def check_length(prefix: int, answer: int, positions: int, name: str) -> None:
    """Raise ValueError if the position table is too short for a prefix and an answer of these lengths.

    The decoder reads every id but the last: prefix + answer - 1 positions. `name` is what the caller calls `answer`.
    """
    if prefix == 0:
        raise ValueError("a prefix is empty: the decoder needs at least its start token")
    if prefix + answer - 1 > positions:
        raise ValueError(
            f"a prefix of {prefix} ids and {name} = {answer} need {prefix + answer - 1} positions, the model has "
            f"{positions}: lower {name} to {max(positions + 1 - prefix, 0)} or shorten the prefix"
        )


def check_ids(options: GenerationOptions, rows: int) -> None:
    """Raise ValueError for an option that names an id beyond the network's, which has `rows` of them."""
    named = {name: getattr(options, name) for name in ("forced_bos", "eos", "pad")}
    for name, token_id in named.items():
        if token_id is not None and token_id >= rows:
            raise ValueError(f"{name} = {token_id} is no id of this network, which has {rows}, counted from 0")
