"""The vision tower against the plain one."""

import pytest
import torch

from florence_lite.engine.fast import FastModel, vision
from florence_lite.engine.fast.precision import Weights
from florence_lite.model import FlorenceModel
from florence_lite.model.config import VisionConfig
from tests.tiny import tiny_config

FITTING = {
    "dims": (32, 64),
    "depths": (1, 2),
    "heads": (1, 2),
    "groups": (1, 2),
    "patch_sizes": (7, 3),
    "strides": (4, 2),
    "paddings": (3, 1),
    "prenorm": (False, True),
}


def model_of(window, **changes):
    torch.manual_seed(1)
    config = tiny_config(vision=VisionConfig(**FITTING, window=window), **changes)
    return FlorenceModel(config).eval()


@pytest.mark.parametrize("window", [4, 5, 7, 12])  # of maps 16 × 12 and 8 × 6
@pytest.mark.parametrize("images", [1, 3])
def test_equals_the_plain_tower(build, window, images):
    model = model_of(window)
    pixel_values = torch.randn(images, 3, 48, 64)
    with torch.inference_mode():
        assert vision.can(model.vision)
        expected = model.encode_image(pixel_values)
        torch.testing.assert_close(FastModel(model).encode_image(pixel_values), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("images", [1, 2])
def test_small_pictures(build, images):
    """Maps of 4 × 4 positions and less."""
    model, pixel_values = model_of(4), torch.randn(images, 3, 32, 32)
    with torch.inference_mode():
        expected = model.vision(pixel_values)
        found = vision.features(model.vision, pixel_values, Weights())
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


def test_other_towers_are_left_to_the_plain_network(build):
    """Heads of 8 channels."""
    model = FlorenceModel(tiny_config()).eval()
    pixel_values = torch.randn(1, 3, 48, 64)
    with torch.inference_mode():
        assert not vision.can(model.vision)
        assert torch.equal(FastModel(model).encode_image(pixel_values), model.encode_image(pixel_values))


def test_a_changed_weight_is_used_at_once(build):
    model, pixel_values = model_of(4), torch.randn(1, 3, 48, 64)
    fast = FastModel(model)
    with torch.inference_mode():
        before = fast.encode_image(pixel_values)
        model.vision.stages[1].blocks[0].spatial.mlp.fc1.weight.mul_(2)
        after = fast.encode_image(pixel_values)
        assert not torch.equal(before, after)
        torch.testing.assert_close(after, model.encode_image(pixel_values), atol=2e-5, rtol=2e-5)
