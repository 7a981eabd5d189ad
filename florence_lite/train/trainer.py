"""The network and its loss as one module: batch in, loss and metrics out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from florence_lite.model import CrossCache, FlorenceModel
from florence_lite.model.transformer import rows_mask
from florence_lite.train.collate import Batch
from florence_lite.train.lanes import RowGroup
from florence_lite.train.losses import neighbour_weights, token_losses


class AnswerTrainer(nn.Module):
    """Trains a network on the answers: the mean loss over all of their tokens.

    model: with prompts on either side; a vision tower whose weights are frozen works as in inference, without dropout.
    first_location_id: id of `<loc_0>`. pad: id of padding in encoder-side prompts.
    """

    def __init__(self, model: FlorenceModel, first_location_id: int, pad: int = 1):
        super().__init__()
        self.model = model
        self.first_location_id = first_location_id
        self.pad = pad

    def train(self, mode: bool = True) -> AnswerTrainer:
        super().train(mode)
        for part in (self.model.vision, self.model.projector):
            part.train(mode and any(parameter.requires_grad for parameter in part.parameters()))
        return self

    def forward(
        self, batch: Batch, sigma: float, counts: Mapping[str, int] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise, and task → losses of its tokens [M].

        The scalar is the mean over all tokens of the batch; 0 where it has none.

        sigma: width of the coordinate targets in bins. counts: of the larger batch that this one is a part of; the
        scalar is then the part's share of that batch's mean.
        """
        total = (counts or batch.counts)["tokens"]
        features = batch.image_features
        if features is None:
            features = self.model.encode_image(batch.pixel_values)
        features = features.to(self.model.embed_tokens.weight.dtype)
        weights = neighbour_weights(self.model.config.bins, sigma, features.device)
        if self.model.config.prompt_side == "decoder":
            cross = self.model.cross_cache(self.model.encode(features)[0])
            return self.answer_loss([self.decoder_side(group, cross, weights) for group in batch.groups], total)
        return self.answer_loss([self.encoder_side(group, features, weights) for group in batch.groups], total)

    def answer_loss(self, parts: list[dict[str, Tensor]], total: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum over all tokens by `total`, and task → losses of its tokens."""
        sums: dict[str, list[Tensor]] = {}
        for part in parts:
            for task, losses in part.items():
                sums.setdefault(task, []).append(losses)
        totals = {task: torch.cat(losses) for task, losses in sums.items()}
        metrics = {task: losses.detach() for task, losses in totals.items()}
        if metrics:
            return torch.cat(list(totals.values())).sum() / total, metrics
        # By chance a batch asks for no row at all: rates below 1, or nothing that the annotations tell.
        return 0.0 * next(p for p in self.parameters() if p.requires_grad).sum(), metrics

    def decoder_side(self, group: RowGroup, cross: CrossCache, weights: Tensor) -> dict[str, Tensor]:
        """Losses of a group's tokens by task; all rows of an image share its keys and values."""
        positions = mask = None
        if group.positions is not None:
            positions = group.positions.flatten(0, 1)
            mask = rows_mask(positions)
        hidden = self.model.decode(group.input_ids.flatten(0, 1), cross, positions=positions, self_mask=mask)
        return self.token_losses(group, hidden, weights)

    def encoder_side(self, group: RowGroup, features: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Losses of a group's tokens by task; the encoder runs once per row."""
        prompts = group.prompt_ids.flatten(0, 1)
        features = features.repeat_interleave(group.input_ids.shape[1], dim=0)
        known = prompts != self.pad
        states, mask = self.model.encode(features, prompts, None if known.all() else known)  # no mask is faster
        hidden = self.model.decode(group.input_ids.flatten(0, 1), self.model.cross_cache(states), mask)
        return self.token_losses(group, hidden, weights)

    def token_losses(self, group: RowGroup, hidden: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """hidden: states [B·L, T, D] that predict the labels [B, L, T]. Returns task → losses [M]."""
        logits = self.model.logits(hidden.flatten(0, 1).index_select(0, group.places))
        losses = token_losses(logits, group.labels.flatten()[group.places], self.first_location_id, weights)
        return dict(zip(group.tasks, losses.split(group.sizes), strict=True))
