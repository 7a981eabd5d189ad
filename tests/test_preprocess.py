"""Pixels for the network, against transformers' image processor with Florence-2's settings."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from florence_lite.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessor

SIZES = [(640, 480), (91, 130), (1000, 700)]


def photo(size_wh: tuple[int, int], seed: int = 0) -> Image.Image:
    """Smooth colours with noise on top, as a camera would see them."""
    rng = np.random.default_rng(seed)
    smooth = np.asarray(Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).resize(size_wh, 3), np.int64)
    return Image.fromarray(np.clip(smooth + rng.integers(-40, 41, smooth.shape), 0, 255).astype(np.uint8))


def to_255(pixel_values: torch.Tensor) -> torch.Tensor:
    """Undo the normalisation: values in 0–255, float [B, 3, H, W]."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixel_values * std + mean) * 255


@pytest.mark.parametrize("size_wh", SIZES)
def test_equals_the_reference(size_wh):
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    reference = clip.CLIPImageProcessorPil(
        do_resize=True,
        size={"height": 768, "width": 768},
        resample=3,
        do_center_crop=False,
        do_rescale=True,
        do_normalize=True,
        image_mean=IMAGENET_MEAN,
        image_std=IMAGENET_STD,
    )
    expected = reference(photo(size_wh), return_tensors="pt").pixel_values
    got = Preprocessor((768, 768))([photo(size_wh)])
    assert got.shape == expected.shape == (1, 3, 768, 768)
    assert got.dtype == torch.float32
    assert (to_255(got) - to_255(expected)).abs().max() <= 1


def test_settings_are_those_of_the_published_checkpoints(shared_data):
    for folder in ("florence-2-large", "florence-2-base-ft-tuned"):
        settings = json.loads((shared_data / folder / "preprocessor_config.json").read_text())
        assert (tuple(settings["image_mean"]), tuple(settings["image_std"])) == (IMAGENET_MEAN, IMAGENET_STD)
        assert (settings["size"], settings["resample"]) == ({"height": 768, "width": 768}, Image.Resampling.BICUBIC)


def test_an_image_of_the_right_size_is_untouched():
    image = photo((40, 30))
    pixels = to_255(Preprocessor((40, 30))([image]))[0].permute(1, 2, 0)  # [H, W, 3]
    assert torch.allclose(pixels, torch.from_numpy(np.array(image)).float(), atol=1e-3)


def test_width_and_height_keep_their_places():
    """Left half black, right half white, twice as wide as high: the aspect goes, the sides stay."""
    image = Image.new("RGB", (100, 50))
    image.paste("white", (50, 0, 100, 50))
    pixels = Preprocessor((24, 36), mean=(0, 0, 0), std=(1, 1, 1))([image])
    assert pixels.shape == (1, 3, 36, 24)
    assert (pixels[..., :8] == 0).all() and (pixels[..., 16:] == 1).all()


def test_channels_keep_their_order_and_statistics():
    image = Image.new("RGB", (8, 8), (255, 0, 102))
    pixels = Preprocessor((8, 8), mean=(0.5, 0.25, 0.4), std=(0.5, 0.25, 2.0))([image])
    assert torch.allclose(pixels[0, :, 0, 0], torch.tensor([1.0, -1.0, 0.0]), atol=1e-6)


def test_images_of_a_batch_do_not_mix():
    images = [photo(size, seed) for seed, size in enumerate(SIZES)]
    preprocess = Preprocessor((32, 24))
    together = preprocess(images)
    assert together.shape == (3, 3, 24, 32)
    for row, image in zip(together, images, strict=True):
        assert torch.equal(row, preprocess([image])[0])
