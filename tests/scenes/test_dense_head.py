"""The auxiliary losses on image tokens against the same sums written out by hand."""

import pytest
import torch
import torch.nn.functional as F

from florence_lite.scenes.trainer import DenseHead
from florence_lite.train.losses import neighbour_weights

BINS = 20


@pytest.fixture
def head():
    torch.manual_seed(0)
    return DenseHead(d_model=8, classes=3)


def cells():
    """hidden [1, 6, 8], classes and boxes of six cells, four of them objects."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(1, 6, 8, generator=generator)
    classes = torch.tensor([[0, 1, 3, 0, 2, 2]])
    return hidden, classes, torch.randint(0, BINS, (1, 6, 4), generator=generator)


def test_dense_losses(head):
    hidden, classes, boxes = cells()
    locations = torch.randn(BINS, 8, generator=torch.Generator().manual_seed(2))
    weights = neighbour_weights(BINS, 2.0)
    class_loss, box_loss = head(hidden, classes, boxes, locations, weights)
    of_cells = F.cross_entropy(head.classify(hidden[0]), classes[0], reduction="none")
    assert torch.allclose(class_loss, of_cells[[1, 2, 4, 5]].mean() + of_cells[[0, 3]].mean())  # in equal parts
    of_sides = []
    for cell in (1, 2, 4, 5):
        for side, vector in enumerate(head.sides(hidden[0, cell]).view(4, 8)):
            log_probs = (locations @ vector).log_softmax(0)
            of_sides.append(-(weights[boxes[0, cell, side]] * log_probs).sum())
    assert torch.allclose(box_loss, torch.stack(of_sides).mean(), atol=1e-5)


def test_dense_losses_without_objects(head):
    hidden, classes, boxes = cells()
    locations = torch.randn(BINS, 8)
    nothing = torch.zeros_like(classes)
    class_loss, box_loss = head(hidden, nothing, boxes, locations, neighbour_weights(BINS, 2.0))
    assert torch.allclose(class_loss, F.cross_entropy(head.classify(hidden[0]), nothing[0])) and box_loss == 0


def test_dense_losses_of_objects_all_over(head):
    hidden, _, boxes = cells()
    everywhere = torch.ones(1, 6, dtype=torch.int64)
    class_loss, box_loss = head(hidden, everywhere, boxes, torch.randn(BINS, 8), neighbour_weights(BINS, 2.0))
    assert torch.allclose(class_loss, F.cross_entropy(head.classify(hidden[0]), everywhere[0])) and box_loss > 0


def test_box_loss_of_a_sample(head):
    """At most `samples` object cells count: with one, the loss is that of one of the four."""
    hidden, classes, boxes = cells()
    locations = torch.randn(BINS, 8, generator=torch.Generator().manual_seed(2))
    weights = neighbour_weights(BINS, 2.0)
    of_one = []
    for cell in (1, 2, 4, 5):
        only = torch.zeros_like(classes)
        only[0, cell] = 1
        of_one.append(head(hidden, only, boxes, locations, weights)[1].item())
    drawn = {head(hidden, classes, boxes, locations, weights, samples=1)[1].item() for _ in range(20)}
    assert len(drawn) > 1
    assert all(any(loss == pytest.approx(one, abs=1e-5) for one in of_one) for loss in drawn)
