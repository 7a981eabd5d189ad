"""Coordinates share one smooth basis with image positions while a small model trains from scratch.

A coordinate token and the image token under it then differ by a linear map, so reading a position off the image and
writing it down is easy to learn; with independent tables it is the slowest part of training. The basis is a
parametrisation of the ordinary tables: read as numbers they are plain tables again, and the checkpoint an ordinary one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from florence_lite.model import FlorenceModel
from florence_lite.model.transformer import POSITION_OFFSET


def fourier_features(u: Tensor) -> Tensor:
    """Positions u in 0–1, float [N], to features [N, 50]: the position, a constant and 24 sine/cosine pairs."""
    frequencies = torch.cat([torch.arange(1.0, 17.0), 16 * 2 ** (torch.arange(1.0, 9.0) * 3 / 8)])
    angles = math.pi * u[:, None] * frequencies
    decay = 1 / (1 + frequencies / 8)  # smooth first: high frequencies start small
    return torch.cat([torch.ones_like(u)[:, None], u[:, None], angles.sin() * decay, angles.cos() * decay], dim=1)


class _SharedMap(nn.Module):
    """One linear map from Fourier features to the model width; first half for columns, second half for rows."""

    def __init__(self, features: int, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(0.004 * torch.randn(features, d_model))
        self.image_scale = nn.Parameter(torch.tensor(30.0))


class _Locations(nn.Module):
    """Adds the basis to the rows of the token table that stand for coordinate bins."""

    def __init__(self, shared: _SharedMap, bins: int, first_row: int):
        super().__init__()
        self.shared = shared
        self.first_row = first_row
        self.register_buffer("features", fourier_features((torch.arange(bins) + 0.5) / bins), persistent=False)

    def forward(self, table: Tensor) -> Tensor:
        with torch.autocast(table.device.type, enabled=False):
            rows = self.features @ self.shared.weight
        behind = len(table) - self.first_row - len(rows)
        return table + nn.functional.pad(rows, (0, 0, self.first_row, behind))


class _GridPositions(nn.Module):
    """Adds the basis to the rows of the encoder's position table that image tokens use."""

    def __init__(self, shared: _SharedMap, grid_wh: tuple[int, int]):
        super().__init__()
        self.shared = shared
        for name, count in zip(("columns", "rows"), grid_wh, strict=True):
            features = fourier_features((torch.arange(count) + 0.5) / count)
            self.register_buffer(name, features, persistent=False)

    def forward(self, table: Tensor) -> Tensor:
        half = table.shape[1] // 2
        weight = self.shared.weight * self.shared.image_scale
        with torch.autocast(table.device.type, enabled=False):
            columns = self.columns @ weight[:, :half]  # [w, D/2]
            rows = self.rows @ weight[:, half:]  # [h, D/2]
        shape = (len(rows), len(columns), half)
        grid = torch.cat([columns.expand(shape), rows[:, None].expand(shape)], dim=-1).flatten(0, 1)
        first = POSITION_OFFSET + 1  # behind the mean token
        return table + nn.functional.pad(grid, (0, 0, first, len(table) - first - len(grid)))


def add_location_basis(model: FlorenceModel, first_location_id: int) -> None:
    """Parametrise the token and encoder position tables of `model`; `first_location_id` is the id of `<loc_0>`."""
    config = model.config
    features = fourier_features(torch.zeros(1)).shape[1]
    shared = _SharedMap(features, config.text.d_model)
    parametrize.register_parametrization(
        model.embed_tokens, "weight", _Locations(shared, config.bins, first_location_id)
    )
    parametrize.register_parametrization(model.encoder.positions, "weight", _GridPositions(shared, config.grid_wh))
