"""Cross-entropy over answer tokens, with soft targets for coordinates, and the auxiliary loss on image tokens."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    if is_location.any():
        target = weights[labels[is_location] - first_location_id]
        block = log_probs[is_location, first_location_id : first_location_id + bins]
        losses = losses.masked_scatter(is_location, -(block * target).sum(dim=1))
    return losses


class DenseHead(nn.Module):
    """Auxiliary task of a model that learns to see from scratch: every image token tells the class of the object under
    it, and sampled object tokens tell the four sides of its box in the model's own coordinate tokens. It brings object
    and extent into the image tokens, from which the decoder copies them. Thrown away after training."""

    def __init__(self, d_model: int, classes: int):
        super().__init__()
        self.classify = nn.Linear(d_model, classes + 1)  # 0 is background
        self.sides = nn.Linear(d_model, 4 * d_model)

    def forward(
        self,
        hidden: Tensor,
        cell_classes: Tensor,
        cell_boxes: Tensor,
        location_embeddings: Tensor,
        weights: Tensor,
        samples: int = 512,
    ) -> tuple[Tensor, Tensor]:
        """(classification loss, box loss), both scalars.

        hidden: encoder states of the grid tokens, [B, N, D].
        cell_classes: int64 [B, N], 0 for background; cell_boxes: int64 [B, N, 4], bins of the box under a cell.
        location_embeddings: [bins, D] token embeddings of the coordinates; weights: `neighbour_weights`.
        samples: object cells drawn for the box loss.
        """
        losses = F.cross_entropy(self.classify(hidden).float().flatten(0, 1), cell_classes.flatten(), reduction="none")
        is_object = cell_classes.flatten() > 0
        objects = is_object.nonzero().squeeze(1)
        if len(objects) == 0:
            return losses.mean(), losses.new_zeros(())
        # Objects cover an eighth of the cells: in one mean over all of them their classes would hardly count.
        class_loss = losses[is_object].mean() + (losses[~is_object].mean() if len(objects) < len(losses) else 0.0)
        chosen = objects[torch.randperm(len(objects), device=objects.device)[:samples]]
        sides = self.sides(hidden.flatten(0, 1)[chosen]).unflatten(-1, (4, -1))  # [S, 4, D]
        log_probs = (sides @ location_embeddings.T).float().log_softmax(-1)  # [S, 4, bins]
        targets = weights[cell_boxes.flatten(0, 1)[chosen]]
        return class_loss, -(targets * log_probs).sum(-1).mean()
