"""The network, its auxiliary head and the loss as one module: batch in, loss and figures out."""

from __future__ import annotations

from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from florence_lite.data.collate import IGNORED, Batch, RowGroup
from florence_lite.model import FlorenceModel
from florence_lite.train.location_basis import add_location_basis
from florence_lite.train.losses import DenseHead, neighbour_weights, token_losses


class ScratchTrainer(nn.Module):
    """Trains a decoder-side-prompt model from random weights.

    Total loss: the mean over all answer tokens, plus `dense_weight` times the auxiliary losses of `DenseHead`.
    """

    def __init__(self, model: FlorenceModel, classes: int, first_location_id: int, dense_weight: float):
        super().__init__()
        self.model = model
        self.first_location_id = first_location_id
        self.dense_weight = dense_weight
        self.dense = DenseHead(model.config.text.d_model, classes)
        add_location_basis(model, first_location_id)

    def forward(self, batch: Batch, sigma: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise, and the mean loss per task ("dense/class", "dense/box" for the auxiliary ones)."""
        model, bins = self.model, self.model.config.bins
        weights = neighbour_weights(bins, sigma, batch.pixel_values.device)
        with parametrize.cached():
            states, _ = model.encode(model.encode_image(batch.pixel_values))
            cross = model.cross_cache(states)
            sums: dict[str, list[Tensor]] = {}
            for group in batch.groups:
                self._add_row_losses(sums, group, cross, weights)
            locations = model.embed_tokens.weight[self.first_location_id : self.first_location_id + bins]
            dense = self.dense(states[:, 1:], batch.cell_classes, batch.cell_boxes, locations, weights)
        totals = {task: torch.cat(parts) for task, parts in sums.items()}
        # By chance a batch may ask for no row at all: rates below 1, or nothing that the annotations tell.
        answers = torch.cat(list(totals.values())).mean() if totals else states.new_zeros(())
        figures = {task: losses.mean().detach() for task, losses in totals.items()}
        figures |= {"dense/class": dense[0].detach(), "dense/box": dense[1].detach()}
        return answers + self.dense_weight * (dense[0] + dense[1]), figures

    def _add_row_losses(self, sums: dict[str, list[Tensor]], group: RowGroup, cross, weights: Tensor) -> None:
        hidden = self.model.decode(group.input_ids.flatten(0, 1), cross)
        hidden = hidden.view(*group.labels.shape, -1)
        kept = group.labels != IGNORED
        losses = token_losses(self.model.logits(hidden[kept]), group.labels[kept], self.first_location_id, weights)
        row = torch.arange(len(group.tasks), device=kept.device)[None, :, None].expand_as(kept)[kept]
        for index, task in enumerate(group.tasks):
            sums.setdefault(task, []).append(losses[row == index])

    def folded_model(self) -> FlorenceModel:
        """An ordinary copy of the network, the location basis folded into its tables; in evaluation mode."""
        model = FlorenceModel(self.model.config)
        model.load_state_dict({name: attrgetter(name)(self.model).detach() for name in model.state_dict()})
        return model.to(self.dense.sides.weight.device).eval()
