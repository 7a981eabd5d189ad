"""The shared basis of coordinates and image positions."""

import pytest
import torch

from florence_lite.model import FlorenceModel
from florence_lite.model.transformer import POSITION_OFFSET
from florence_lite.scenes.location_basis import add_location_basis, fourier_features
from florence_lite.scenes.trainer import ScratchTrainer
from tests.tiny import tiny_config

FIRST, BINS = 40, 30
CONFIG = tiny_config("decoder", vocab_size=FIRST + BINS + 5, bins=BINS)
GRID = slice(POSITION_OFFSET + 1, POSITION_OFFSET + 1 + 48)  # behind the mean token


@pytest.fixture
def plain():
    torch.manual_seed(0)
    return FlorenceModel(CONFIG).eval()


@pytest.fixture
def trainer():
    torch.manual_seed(0)
    return ScratchTrainer(FlorenceModel(CONFIG), classes=3, first_location_id=FIRST, dense_weight=1.0).eval()


def logits(model: FlorenceModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    states, _ = model.encode(model.encode_image(torch.randn(2, 3, 48, 64, generator=generator)))
    ids = torch.randint(0, CONFIG.text.vocab_size, (2, 9), generator=generator)
    return model.logits(model.decode(ids, model.cross_cache(states)))


def test_features():
    u = torch.linspace(0, 1, 11)
    features = fourier_features(u)
    assert features.shape == (11, 50) and features.isfinite().all()
    assert (features[:, 0] == 1).all() and torch.equal(features[:, 1], u)
    # Near positions look alike, far ones do not.
    distances = torch.cdist(fourier_features(torch.tensor([0.4])), fourier_features(torch.tensor([0.41, 0.5, 0.9])))[0]
    assert (distances.diff() > 0).all()


def test_only_the_rows_of_coordinates_and_image_tokens_change(plain):
    tokens, positions = plain.embed_tokens.weight.detach().clone(), plain.encoder.positions.weight.detach().clone()
    before = logits(plain)
    add_location_basis(plain, FIRST)
    added = plain.embed_tokens.weight - tokens
    assert (added[FIRST : FIRST + BINS].abs().amax(1) > 0).all()
    assert not added[:FIRST].any() and not added[FIRST + BINS :].any()
    added = plain.encoder.positions.weight - positions
    assert (added[GRID].abs().amax(1) > 0).all()
    assert not added[: GRID.start].any() and not added[GRID.stop :].any()
    assert not torch.allclose(logits(plain), before, atol=1e-4)


def test_image_positions_are_columns_then_rows(plain):
    """Every token of a column shares the first half, every token of a row the second, as in the projector."""
    positions = plain.encoder.positions.weight.detach().clone()
    add_location_basis(plain, FIRST)
    width, height = CONFIG.grid_wh
    columns, rows = (plain.encoder.positions.weight - positions)[GRID].view(height, width, -1).chunk(2, dim=-1)
    assert torch.allclose(columns, columns[:1].expand_as(columns), atol=1e-6)
    assert torch.allclose(rows, rows[:, :1].expand_as(rows), atol=1e-6)
    assert not torch.allclose(columns[:, 0], columns[:, 1], atol=1e-3)
    assert not torch.allclose(rows[0], rows[1], atol=1e-3)


def test_a_coordinate_and_the_image_token_under_it_are_alike(plain):
    """The same map makes both: x in the first half of the width, y in the second, up to one scale."""
    shared = plain.embed_tokens.weight.detach().clone(), plain.encoder.positions.weight.detach().clone()
    add_location_basis(plain, FIRST)
    width, height = CONFIG.grid_wh
    coordinates = (plain.embed_tokens.weight - shared[0])[FIRST : FIRST + BINS]
    grid = (plain.encoder.positions.weight - shared[1])[GRID].view(height, width, -1)
    half = coordinates.shape[1] // 2
    columns = torch.nn.functional.normalize(grid[0, :, :half] - grid[0, :, :half].mean(0), dim=-1)
    bins = torch.nn.functional.normalize(coordinates[:, :half] - coordinates[:, :half].mean(0), dim=-1)
    nearest = (columns @ bins.T).argmax(1)  # bin most like each column
    centres = (torch.arange(width) + 0.5) / width * BINS - 0.5
    assert (nearest - centres).abs().max() <= 0.15 * BINS


def test_folded_model_is_the_same_network(trainer):
    folded = trainer.folded_model()
    assert torch.allclose(logits(folded), logits(trainer.model), atol=1e-5)
    assert set(folded.state_dict()) == set(FlorenceModel(CONFIG).state_dict())
    assert not folded.training
    with torch.no_grad():
        folded.embed_tokens.weight.zero_()
    assert trainer.model.embed_tokens.weight.abs().max() > 0  # a copy


def test_gradient_reaches_the_shared_map(trainer):
    """From both sides: the coordinates that are written, and the image tokens that are read."""
    shared = trainer.model.embed_tokens.parametrizations.weight[0].shared
    assert trainer.model.encoder.positions.parametrizations.weight[0].shared is shared
    trainer.model.embed_tokens.weight[FIRST:].sum().backward()
    from_coordinates = shared.weight.grad.clone()
    assert from_coordinates.abs().max() > 0 and shared.image_scale.grad is None
    shared.weight.grad = None
    trainer.model.encode(torch.zeros(1, CONFIG.image_tokens, 32))[0].square().sum().backward()
    assert shared.weight.grad.abs().max() > 0 and shared.image_scale.grad.abs() > 0
    assert trainer.model.encoder.positions.parametrizations.weight.original.grad.abs().max() > 0
