"""Pixels for the network, against transformers' image processor with Florence-2's settings."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from florence_lite.inference.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessor

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


def test_settings_are_those_of_the_published_checkpoints(published):
    for folder in ("florence-2-large", "florence-2-base-ft-tuned"):
        settings = json.loads((published / folder / "preprocessor_config.json").read_text())
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


# ---- settings of image processors ------------------------------------------------------------------------------------

USUAL = Preprocessor((768, 768))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, USUAL),
        ({"size": None, "image_mean": None, "do_resize": None, "do_pad": None, "unheard_of": [1]}, USUAL),
        ({"size": {"height": 512, "width": 640}}, Preprocessor((640, 512))),
        ({"size": 384}, Preprocessor((384, 384))),
        ({"resample": 2}, Preprocessor((768, 768), resample=Image.Resampling.BILINEAR)),
        ({"image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1]}, Preprocessor((768, 768), (0.5,) * 3, (1.0,) * 3)),
        ({"do_normalize": False, "image_mean": [9, 9, 9]}, Preprocessor((768, 768), (0.0,) * 3, (1.0,) * 3)),
        ({"do_normalize": False, "do_rescale": False}, Preprocessor((768, 768), (0.0,) * 3, (1 / 255,) * 3)),
        (
            {"rescale_factor": 2 / 255, "image_mean": [1, 1, 1], "image_std": [0.5, 0.5, 0.5]},
            Preprocessor((768, 768), (0.5,) * 3, (0.25,) * 3),
        ),
        ({"do_center_crop": True, "size": 64, "crop_size": {"height": 64, "width": 64}}, Preprocessor((64, 64))),
    ],
)
def test_settings_are_read(settings, expected):
    assert Preprocessor.from_settings(settings) == expected


def test_the_size_comes_from_the_caller_where_the_settings_tell_none():
    assert Preprocessor.from_settings({}, (224, 112)).size_wh == (224, 112)
    assert Preprocessor.from_settings({"size": 64}, (224, 112)).size_wh == (64, 64)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [120, 115, 100], "image_std": [58, 57, 56]},
        {"do_normalize": False, "do_rescale": False},
        {"rescale_factor": 2 / 255},
        {"resample": 0},
        {"resample": 1},
        {"resample": 2},
    ],
)
def test_settings_mean_what_they_mean_to_the_reference(settings):
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    usual = {"size": {"height": 36, "width": 24}, "do_center_crop": False, "resample": 3}
    settings = usual | {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)} | settings
    expected = clip.CLIPImageProcessorPil(**settings)(photo((91, 130)), return_tensors="pt").pixel_values.float()
    got = Preprocessor.from_settings(settings)([photo((91, 130))])
    assert torch.allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}, "size = .*shortest_edge"),
        ({"size": {"height": 768}}, "size = .* must give height and width"),
        ({"size": {"height": 768, "width": "768"}}, "size = .* must give height and width"),
        ({"size": [768, 768]}, "size = .* must give height and width"),
        ({"size": 0}, "size = 0 must give"),
        ({"size": True}, "size = True must give"),
        ({"do_resize": False}, "do_resize is false; it must be true"),
        ({"do_pad": True}, "do_pad is true; it must be false"),
        ({"do_center_crop": True, "crop_size": {"height": 224, "width": 224}}, "do_center_crop is true and crop_size"),
        ({"do_center_crop": True}, "crop_size = None must give"),
        ({"do_rescale": "no"}, "do_rescale = 'no' must be true or false"),
        ({"do_normalize": 0}, "do_normalize = 0 must be true or false"),
        ({"image_mean": [0.5, 0.5]}, "image_mean = .* three numbers"),
        ({"image_mean": 0.5}, "image_mean = 0.5 must be three numbers"),
        ({"image_mean": ["a", "b", "c"]}, "image_mean = .* three numbers"),
        ({"image_std": [1, 1, 0]}, "image_std = .* above 0"),
        ({"image_std": [1, 1, float("nan")]}, "image_std = .* three numbers"),
        ({"rescale_factor": 0}, "rescale_factor = 0 must be a number above 0"),
        ({"rescale_factor": "1/255"}, "rescale_factor = '1/255' must be a number"),
        ({"resample": 9}, "resample = 9 must be the number"),
        ({"resample": "bicubic"}, "resample = 'bicubic' must be the number"),
        ({"resample": True}, "resample = True must be the number"),
    ],
)
def test_settings_that_florence_2_cannot_have_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Preprocessor.from_settings(settings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size_wh": (0, 4)}, r"size_wh = \(0, 4\)"),
        ({"size_wh": (4.0, 4)}, r"size_wh = \(4.0, 4\)"),
        ({"size_wh": (4,)}, r"size_wh = \(4,\)"),
        ({"size_wh": (4, 4), "mean": (0, 0)}, r"mean = \(0, 0\)"),
        ({"size_wh": (4, 4), "std": (1, 1, 0)}, r"std = \(1, 1, 0\)"),
    ],
)
def test_fields_are_checked(values, message):
    with pytest.raises(ValueError, match=message):
        Preprocessor(**values)


@pytest.mark.parametrize(
    "preprocessor",
    [USUAL, Preprocessor((64, 48), (0.1, 0.2, 0.3), (0.7, 0.8, 0.9), Image.Resampling.LANCZOS)],
)
def test_settings_round_trip(preprocessor):
    settings = json.loads(json.dumps(preprocessor.to_settings()))
    assert Preprocessor.from_settings(settings, (1, 1)) == preprocessor
