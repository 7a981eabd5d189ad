"""Answers and image cells as one loss: what teaches a network to see from random weights."""

from __future__ import annotations

from operator import attrgetter

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from florence_lite.model import FlorenceModel
from florence_lite.scenes.cells import SceneBatch
from florence_lite.scenes.location_basis import add_location_basis
from florence_lite.train.losses import neighbour_weights
from florence_lite.train.trainer import AnswerTrainer


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


class ScratchTrainer(AnswerTrainer):
    """Trains a decoder-side-prompt model from random weights.

    Total loss: the mean over all answer tokens, plus `dense_weight` times the auxiliary losses of `DenseHead`.
    """

    def __init__(self, model: FlorenceModel, classes: int, first_location_id: int, dense_weight: float):
        super().__init__(model, first_location_id)
        self.dense_weight = dense_weight
        self.dense = DenseHead(model.config.text.d_model, classes)
        add_location_basis(model, first_location_id)

    def forward(self, batch: SceneBatch, sigma: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise, and the losses per task ("dense/class", "dense/box" for the auxiliary ones)."""
        model, bins = self.model, self.model.config.bins
        weights = neighbour_weights(bins, sigma, batch.pixel_values.device)
        with parametrize.cached():
            states, _ = model.encode(model.encode_image(batch.pixel_values))
            cross = model.cross_cache(states)
            answers, metrics = self.answer_loss([self.decoder_side(group, cross, weights) for group in batch.groups])
            locations = model.embed_tokens.weight[self.first_location_id : self.first_location_id + bins]
            dense = self.dense(states[:, 1:], batch.cell_classes, batch.cell_boxes, locations, weights)
        metrics |= {"dense/class": dense[0].detach()[None], "dense/box": dense[1].detach()[None]}
        return answers + self.dense_weight * (dense[0] + dense[1]), metrics

    def folded_model(self) -> FlorenceModel:
        """An ordinary copy of the network, the location basis folded into its tables; in evaluation mode."""
        model = FlorenceModel(self.model.config)
        model.load_state_dict({name: attrgetter(name)(self.model).detach() for name in model.state_dict()})
        return model.to(self.dense.sides.weight.device).eval()
