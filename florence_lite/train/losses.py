"""Cross-entropy over answer tokens, with soft targets for coordinates."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=1)  # the width changes in the first part of a run only
def neighbour_weights(bins: int, sigma: float, device: torch.device | None = None) -> Tensor:
    """float [bins, bins]: row b is the target for true bin b, a Gaussian of `sigma` bins; every row sums to 1."""
    index = torch.arange(bins, device=device, dtype=torch.float32)
    weights = torch.exp(-((index[:, None] - index[None, :]) ** 2) / (2 * sigma**2))
    return weights / weights.sum(dim=1, keepdim=True)


def token_losses(logits: Tensor, labels: Tensor, first_location_id: int, weights: Tensor) -> Tensor:
    """Negative log-likelihood of every label, float [M].

    logits: [M, V]; labels: int64 [M].
    weights: `neighbour_weights`; a coordinate label is replaced by its row, every other label is a hard target.
    """
    log_probs = logits.float().log_softmax(dim=-1)
    losses = -log_probs.gather(1, labels[:, None]).squeeze(1)
    bins = len(weights)
    is_location = (labels >= first_location_id) & (labels < first_location_id + bins)
    # Of all labels, for a GPU would have to be waited for to know which of them are coordinates.
    target = weights[(labels - first_location_id).clamp(0, bins - 1)]
    soft = -(log_probs[:, first_location_id : first_location_id + bins] * target).sum(dim=1)
    return torch.where(is_location, soft, losses)
