"""From RGB images to the network's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from florence_lite.checks import is_number, is_whole

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FLORENCE_2_SIZE_WH = (768, 768)

# What an image processor can be asked to do, and Florence-2's never are.
_NOT_KNOWN = {
    "do_resize": (False, "the network takes images of one size"),
    "do_pad": (True, "the network sees the image and nothing else"),
}


@dataclass(frozen=True)
class Preprocessor:
    """Resizes without keeping the aspect ratio (antialiased), then normalises.

    size_wh: width and height in pixels that the network takes.
    mean, std: of red, green and blue; values scaled to 0–1 lose `mean` and are divided by `std`.
    resample: PIL's filter for resizing.

    Raises ValueError naming the field.
    """

    size_wh: tuple[int, int]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    resample: Image.Resampling = Image.Resampling.BICUBIC

    def __post_init__(self):
        if len(self.size_wh) != 2 or not all(is_whole(side, 1) for side in self.size_wh):
            raise ValueError(f"size_wh = {self.size_wh} must be a width and a height in whole pixels")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(is_number(value) for value in values):
                raise ValueError(f"{name} = {values} must be three numbers: of red, green and blue")
        if min(self.std) <= 0:
            raise ValueError(f"std = {self.std} must be above 0")

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB images of any sizes to pixel_values, float32 [B, 3, H, W]."""
        # Scale and shift in one pass, which leaves the memory order channels-last as the vision tower wants it.
        mean, std = self.statistics()
        return (self.pixels(images) - mean) / std

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB images of any sizes, resized, uint8 [B, 3, H, W]: pixel_values once `statistics` have been applied."""
        return torch.from_numpy(np.stack([np.asarray(self.resized(image)) for image in images])).permute(0, 3, 1, 2)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """What uint8 pixels lose, and what they are then divided by: float32 [3, 1, 1] each."""
        mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (self.mean, self.std))
        return mean, std

    def resized(self, image: Image.Image) -> Image.Image:
        """The image with as many pixels as the network takes; itself where it has as many."""
        return image if image.size == self.size_wh else image.resize(self.size_wh, self.resample)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], size_wh: tuple[int, int] = FLORENCE_2_SIZE_WH) -> Preprocessor:
        """What transformers' image processors store as `preprocessor_config.json`; its other fields do not matter.

        A field that is absent or null has Florence-2's value, the size `size_wh`. Another scale of the pixels
        (`rescale_factor`, `do_rescale` false) or none of mean and std (`do_normalize` false) ends up in `mean` and
        `std`, with the same pixel values.

        Raises ValueError naming the field, also for settings with which an image would not be resized to one size.
        """
        settings = {name: value for name, value in settings.items() if value is not None}
        for name in ("do_resize", "do_center_crop", "do_pad", "do_normalize", "do_rescale"):
            if not isinstance(settings.get(name, True), bool):
                raise ValueError(f"{name} = {settings[name]!r} must be true or false")
        for name, (unknown, why) in _NOT_KNOWN.items():
            if settings.get(name) is unknown:
                raise ValueError(f"{name} is {str(unknown).lower()}; it must be {str(not unknown).lower()}: {why}")
        mean, std = (_three_numbers(settings, name, usual) for name, usual in _STATISTICS)
        if not settings.get("do_normalize", True):
            mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1
        if not is_number(factor) or factor <= 0:
            raise ValueError(f"rescale_factor = {factor!r} must be a number above 0")
        scale = factor * 255
        size_wh = _read_size("size", settings["size"]) if "size" in settings else size_wh
        if settings.get("do_center_crop") and _read_size("crop_size", settings.get("crop_size")) != size_wh:
            raise ValueError(
                f"do_center_crop is true and crop_size = {settings['crop_size']!r} is not the size, {size_wh}; the "
                "network sees the whole image"
            )
        resample = settings.get("resample", Image.Resampling.BICUBIC)
        if isinstance(resample, bool) or resample not in list(Image.Resampling):
            raise ValueError(
                f"resample = {resample!r} must be the number of one of PIL's filters, such as 3 for bicubic"
            )
        return cls(
            size_wh=size_wh,
            mean=(mean[0] / scale, mean[1] / scale, mean[2] / scale),
            std=(std[0] / scale, std[1] / scale, std[2] / scale),
            resample=Image.Resampling(resample),
        )

    def to_settings(self) -> dict[str, Any]:
        """The fields of a `preprocessor_config.json`; `from_settings` is the inverse."""
        size = {"height": self.size_wh[1], "width": self.size_wh[0]}
        return {
            "crop_size": size,
            "do_center_crop": False,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "resample": int(self.resample),
            "rescale_factor": 1 / 255,
            "size": size,
        }


_STATISTICS = (("image_mean", IMAGENET_MEAN), ("image_std", IMAGENET_STD))


def _read_size(name: str, size: Any) -> tuple[int, int]:
    """(width, height) of a field that holds a size: {"height": …, "width": …}, or one number for both."""
    if is_whole(size, 1):
        return size, size
    sides = (size.get("width"), size.get("height")) if isinstance(size, Mapping) else (None, None)
    if not all(is_whole(side, 1) for side in sides):
        raise ValueError(
            f"{name} = {size!r} must give height and width in whole pixels: Florence-2 resizes to one size, whatever "
            "the aspect ratio"
        )
    return sides


def _three_numbers(settings: Mapping[str, Any], name: str, usual: tuple) -> tuple[float, float, float]:
    values = settings.get(name, usual)
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(is_number(value) for value in values):
        raise ValueError(f"{name} = {values!r} must be three numbers: of red, green and blue")
    if name == "image_std" and min(values) <= 0:
        raise ValueError(f"image_std = {values!r} must be above 0")
    red, green, blue = map(float, values)
    return red, green, blue
