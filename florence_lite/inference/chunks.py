"""Lists in pieces, for what goes through a network a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Pieces of `size` items, the last one shorter."""
    return (items[first : first + size] for first in range(0, len(items), size))
