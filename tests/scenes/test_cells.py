"""What lies under the image tokens."""

import numpy as np
import pytest
import torch

from florence_lite.data.annotation import Annotation, ObjectAnnotation
from florence_lite.geometry import quantize
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.scenes.cells import TEXT_CLASS, SceneCollator
from florence_lite.tokens import Codec
from florence_lite.train.collate import TaskCollator
from tests.data.annotated import ANNOTATED, DOOR, LEFT_DOG, RIGHT_DOG, SIZE, rectangle
from tests.tiny import noise_image

CLASSES = ("cat", "dog", "door", TEXT_CLASS)
PAIRS = [(noise_image(0, SIZE), ANNOTATED), (noise_image(1, SIZE), Annotation(SIZE))]


@pytest.fixture
def collate(toy_tokenizer):
    rows = TaskCollator(Codec(toy_tokenizer), Preprocessor((64, 48)), {"<OD>": 1.0, "<VQA>": 0.5}, (10, 8))
    return SceneCollator(rows, CLASSES)


def test_rows_and_pixels_are_those_of_the_tasks(collate):
    batch, plain = (make(PAIRS, np.random.default_rng(0), 2) for make in (collate, collate.tasks))
    assert batch.cell_classes.shape == (2, 80) and batch.cell_boxes.shape == (2, 80, 4)
    assert torch.equal(batch.pixel_values, plain.pixel_values) and batch.tokens == plain.tokens
    for one, other in zip(batch.groups, plain.groups, strict=True):
        assert torch.equal(one.labels, other.labels)
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.cell_boxes, batch.cell_boxes) and torch.equal(moved.cell_classes, batch.cell_classes)
    assert len(moved.groups) == len(batch.groups)


def test_cells_that_are_asked_for_their_boxes(collate, monkeypatch):
    """Some object cells of every image, drawn for the image by itself; whoever collates a part draws the same."""
    monkeypatch.setattr("florence_lite.scenes.cells.ASKED", 5)
    examples = [(noise_image(seed, SIZE), ANNOTATED) for seed in range(3)]
    whole = collate(examples, np.random.default_rng(0))
    images, cells = whole.kinds["box"].view(3, 5).div(80, rounding_mode="floor"), whole.kinds["box"].view(3, 5) % 80
    assert (
        images.tolist() == [[0] * 5, [1] * 5, [2] * 5] and (whole.cell_classes.flatten()[whole.kinds["box"]] > 0).all()
    )
    assert not torch.equal(cells[0], cells[1])
    part = collate(examples[1:], np.random.default_rng(0), 1)
    assert torch.equal(part.kinds["box"], whole.kinds["box"][5:] - 80)
    assert not torch.equal(collate(examples, np.random.default_rng(1)).kinds["box"], whole.kinds["box"])
    assert not len(collate(PAIRS[1:], np.random.default_rng(0)).kinds["box"])
    objects = int((whole.cell_classes > 0).sum())
    assert whole.counts == {"tokens": whole.tokens, "object": objects, "background": 240 - objects, "box": 15}


def test_cells(collate, toy_tokenizer):
    """Cells of 10 × 10 pixels: class and box of what covers their centre."""
    batch = collate(PAIRS, np.random.default_rng(0))
    classes = batch.cell_classes[0].reshape(8, 10)
    expected = np.zeros((8, 10), int)
    expected[1:4, 1:3] = 2  # centres 15 and 25 lie between 5 and 35, centre 5 does not lie inside of x = 5
    expected[1:4, 0] = 2
    expected[1:4, 6:9] = 2
    expected[5:8, 2:5] = 3
    expected[6, 3] = 0  # the hole
    expected[5:7, 6:10] = 4
    expected[7, 0:4] = 4  # text lies above the door
    covered = classes.numpy()
    covered[1:4, 0] = 2  # on the edge: either will do
    assert covered.tolist() == expected.tolist()
    cell_boxes = batch.cell_boxes[0].reshape(8, 10, 4)
    for (row, column), box in {(2, 2): LEFT_DOG.box, (2, 7): RIGHT_DOG.box, (5, 2): DOOR.box}.items():
        bins = quantize(np.reshape(box, (2, 2)), SIZE, toy_tokenizer.vocabulary.bins).ravel()
        assert cell_boxes[row, column].tolist() == bins.tolist()
    assert cell_boxes[5, 7].tolist() == quantize([[62, 50], [99, 68]], SIZE, 1000).ravel().tolist()
    assert (cell_boxes[batch.cell_classes[0].reshape(8, 10) == 0] == 0).all()
    assert not batch.cell_classes[1].any() and not batch.cell_boxes[1].any()


def test_a_later_object_covers_an_earlier_one(collate):
    above = ObjectAnnotation("cat", (10.0, 10.0, 30.0, 30.0), (rectangle(10, 10, 30, 30),))
    annotation = Annotation(SIZE, (LEFT_DOG, above))
    batch = collate([(PAIRS[0][0], annotation)], np.random.default_rng(0))
    classes = batch.cell_classes[0].reshape(8, 10)
    assert classes[1, 1] == classes[2, 2] == 1 and classes[3, 1] == 2


def test_an_object_of_an_unknown_class(collate):
    annotation = Annotation(SIZE, (ObjectAnnotation("cow", (0, 0, 9, 9), (rectangle(0, 0, 9, 9),)),))
    with pytest.raises(ValueError, match="class 'cow' is none of the 4 classes of the image cells"):
        collate([(PAIRS[0][0], annotation)], np.random.default_rng(0))
