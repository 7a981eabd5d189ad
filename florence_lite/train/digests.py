"""Digests by which a run knows weights again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def update_with_tensors(digest: Any, tensors: Mapping[str, Tensor]) -> None:
    """Have a digest of `hashlib` take in tensors by name, type, shape and values, whatever order they come in."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
