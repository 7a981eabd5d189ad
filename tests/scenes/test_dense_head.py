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
    """hidden [1, 6, 8], classes and boxes of six cells, four of them objects, of which three are asked for boxes."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(1, 6, 8, generator=generator)
    classes = torch.tensor([[0, 1, 3, 0, 2, 2]])
    places = {"object": [1, 2, 4, 5], "background": [0, 3], "box": [1, 4, 5]}
    kinds = {kind: torch.tensor(each) for kind, each in places.items()}
    return hidden, classes, torch.randint(0, BINS, (1, 6, 4), generator=generator), kinds


def test_dense_losses(head):
    hidden, classes, boxes, kinds = cells()
    locations = torch.randn(BINS, 8, generator=torch.Generator().manual_seed(2))
    weights = neighbour_weights(BINS, 2.0)
    found = head(hidden, classes, boxes, kinds, locations, weights)
    of_cells = F.cross_entropy(head.classify(hidden[0]), classes[0], reduction="none")
    assert torch.allclose(found["object"], of_cells[[1, 2, 4, 5]])
    assert torch.allclose(found["background"], of_cells[[0, 3]])
    of_boxes = []
    for cell in (1, 4, 5):
        of_sides = []
        for side, vector in enumerate(head.sides(hidden[0, cell]).view(4, 8)):
            log_probs = (locations @ vector).log_softmax(0)
            of_sides.append(-(weights[boxes[0, cell, side]] * log_probs).sum())
        of_boxes.append(torch.stack(of_sides).mean())
    assert torch.allclose(found["box"], torch.stack(of_boxes), atol=1e-5)


def test_dense_losses_without_objects(head):
    hidden, classes, boxes, kinds = cells()
    nothing = torch.zeros_like(classes)
    none = torch.zeros(0, dtype=torch.int64)
    kinds = {"object": none, "background": torch.arange(6), "box": none}
    found = head(hidden, nothing, boxes, kinds, torch.randn(BINS, 8), neighbour_weights(BINS, 2.0))
    assert torch.allclose(found["background"].mean(), F.cross_entropy(head.classify(hidden[0]), nothing[0]))
    assert not len(found["object"]) and not len(found["box"])
