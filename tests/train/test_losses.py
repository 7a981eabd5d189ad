"""Losses against the same sums written out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from florence_lite.train.losses import neighbour_weights, token_losses

BINS, FIRST = 20, 5
VOCABULARY = FIRST + BINS + 3


def logits(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [0.01, 0.5, 2.0, 25.0])
def test_neighbour_weights(sigma):
    weights = neighbour_weights(BINS, sigma)
    assert weights.shape == (BINS, BINS) and (weights >= 0).all()
    assert torch.allclose(weights.sum(1), torch.ones(BINS))
    assert (weights.argmax(1) == torch.arange(BINS)).all()
    ratio = math.exp(-(1**2) / (2 * sigma**2))  # of a Gaussian one bin off its middle
    assert (weights[7, 8] / weights[7, 7]).item() == pytest.approx(ratio, abs=1e-6)
    assert torch.allclose(weights[7, :15], weights[7, :15].flip(0))  # as much on either side


def test_hard_tokens():
    labels = torch.tensor([0, 4, FIRST + BINS, VOCABULARY - 1])
    expected = F.cross_entropy(logits(4), labels, reduction="none")
    got = token_losses(logits(4), labels, FIRST, neighbour_weights(BINS, 2.0))
    assert torch.allclose(got, expected)


def test_coordinates_and_hard_tokens_together():
    labels = torch.tensor([FIRST, 2, FIRST + BINS - 1, FIRST + 7, 3])
    weights = neighbour_weights(BINS, 1.5)
    got = token_losses(logits(5), labels, FIRST, weights)
    log_probs = logits(5).log_softmax(-1)
    for row, label in enumerate(labels.tolist()):
        if FIRST <= label < FIRST + BINS:
            expected = -sum(weights[label - FIRST, b] * log_probs[row, FIRST + b] for b in range(BINS))
        else:
            expected = -log_probs[row, label]
        assert got[row].item() == pytest.approx(expected.item(), abs=1e-5)


def test_narrow_targets_are_hard_ones():
    labels = torch.arange(FIRST, FIRST + BINS)
    got = token_losses(logits(BINS), labels, FIRST, neighbour_weights(BINS, 0.05))
    assert torch.allclose(got, F.cross_entropy(logits(BINS), labels, reduction="none"))


@pytest.mark.parametrize("sigma", [1.7, 3.0])
@pytest.mark.parametrize("true_bin", [0, 1, 9, BINS - 1])
def test_the_loss_of_a_coordinate_is_least_at_the_true_bin(sigma, true_bin):
    """Of predictions of one width the one round the true bin costs least, also at the border; the farther, the more."""
    weights = neighbour_weights(BINS, sigma)
    predictions = torch.full((BINS, VOCABULARY), -100.0)
    predictions[:, FIRST : FIRST + BINS] = weights.log()  # row b is sure of bin b
    losses = token_losses(predictions, torch.full((BINS,), FIRST + true_bin), FIRST, weights)
    assert losses.argmin() == true_bin
    assert (losses[true_bin:].diff() > 0).all() and (losses[: true_bin + 1].diff() < 0).all()


def test_gradient_moves_towards_the_target():
    values = logits(1).requires_grad_()
    weights = neighbour_weights(BINS, 2.0)
    token_losses(values, torch.tensor([FIRST + 7]), FIRST, weights).sum().backward()
    target = torch.zeros(VOCABULARY)
    target[FIRST : FIRST + BINS] = weights[7]
    assert torch.allclose(values.grad[0], values.detach()[0].softmax(-1) - target, atol=1e-6)


def test_half_precision_logits_are_summed_in_float32():
    labels = torch.tensor([1, FIRST + 3])
    got = token_losses(logits(2).bfloat16(), labels, FIRST, neighbour_weights(BINS, 2.0))
    expected = token_losses(logits(2).bfloat16().float(), labels, FIRST, neighbour_weights(BINS, 2.0))
    assert got.dtype == torch.float32 and torch.equal(got, expected)
