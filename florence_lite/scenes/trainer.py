"""Answers and image cells as one loss: what teaches a network to see from random weights."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.model import FlorenceModel
from florence_lite.scenes.cells import SceneBatch
from florence_lite.scenes.location_basis import add_location_basis
from florence_lite.train.losses import neighbour_weights
from florence_lite.train.trainer import AnswerTrainer


class DenseHead(nn.Module):
    """Auxiliary task of a model that learns to see from scratch: every image token tells the class of the object under
    it, and some object tokens tell the four sides of its box in the model's own coordinate tokens. It brings object
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
        kinds: Mapping[str, Tensor],
        location_embeddings: Tensor,
        weights: Tensor,
    ) -> dict[str, Tensor]:
        """Losses of cells [M], by their kind: of the classes of "object" and "background" cells, and of the "box".

        hidden: encoder states of the grid tokens, [B, N, D].
        cell_classes, cell_boxes, kinds: as in `SceneBatch`.
        location_embeddings: [bins, D] token embeddings of the coordinates; weights: `neighbour_weights`.
        """
        hidden = hidden.flatten(0, 1)
        losses = F.cross_entropy(self.classify(hidden).float(), cell_classes.flatten(), reduction="none")
        sides = self.sides(hidden[kinds["box"]]).unflatten(-1, (4, -1))  # [S, 4, D]
        log_probs = (sides @ location_embeddings.T).float().log_softmax(-1)  # [S, 4, bins]
        of_boxes = -(weights[cell_boxes.flatten(0, 1)[kinds["box"]]] * log_probs).sum(-1).mean(-1)
        return {"object": losses[kinds["object"]], "background": losses[kinds["background"]], "box": of_boxes}


class ScratchTrainer(AnswerTrainer):
    """Trains a decoder-side-prompt model from random weights.

    Total loss: the mean over all answer tokens, plus `dense_weight` times the means of the losses of `DenseHead`, each
    over its own cells: objects cover an eighth of them, and in one mean over all their classes would hardly count.
    """

    def __init__(self, model: FlorenceModel, classes: int, first_location_id: int, dense_weight: float):
        super().__init__(model, first_location_id)
        self.dense_weight = dense_weight
        self.dense = DenseHead(model.config.text.d_model, classes)
        add_location_basis(model, first_location_id)
        for name, values in zip(("mean", "std"), Preprocessor(model.config.image_size_wh).statistics(), strict=True):
            self.register_buffer(name, values, persistent=False)

    def forward(  # type: ignore[override]  # takes batches of its own kind
        self, batch: SceneBatch, sigma: float, counts: Mapping[str, int] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `AnswerTrainer`; the losses of cells are called "dense/object", "dense/background" and "dense/box"."""
        model, bins, counts = self.model, self.model.config.bins, counts or batch.counts
        weights = neighbour_weights(bins, sigma, batch.pixel_values.device)
        with parametrize.cached():
            states, _ = model.encode(model.encode_image((batch.pixel_values - self.mean) / self.std))
            cross = model.cross_cache(states)
            answers = [self.decoder_side(group, cross, weights) for group in batch.groups]
            loss, metrics = self.answer_loss(answers, counts["tokens"])
            locations = model.embed_tokens.weight[self.first_location_id : self.first_location_id + bins]
            cells = batch.cell_classes, batch.cell_boxes, batch.kinds
            dense = self.dense(states[:, 1:], *cells, locations, weights)
        loss = loss + self.dense_weight * sum(each.sum() / max(1, counts[name]) for name, each in dense.items())
        return loss, metrics | {f"dense/{name}": each.detach() for name, each in dense.items()}

    def folded_model(self) -> FlorenceModel:
        """An ordinary copy of the network, the location basis folded into its tables; in evaluation mode."""
        model = FlorenceModel(self.model.config)
        model.load_state_dict({name: attrgetter(name)(self.model).detach() for name in model.state_dict()})
        return model.to(self.dense.sides.weight.device).eval()
