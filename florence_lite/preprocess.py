"""From RGB images to the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessor:
    """Resizes without keeping the aspect ratio (bicubic, antialiased), then normalises.

    size_wh: width and height in pixels that the network takes.
    mean, std: of red, green and blue; values scaled to 0–1 lose `mean` and are divided by `std`.
    """

    size_wh: tuple[int, int]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB images of any sizes to pixel_values, float32 [B, 3, H, W]."""
        arrays = [
            np.asarray(image if image.size == self.size_wh else image.resize(self.size_wh, Image.Resampling.BICUBIC))
            for image in images
        ]
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        # Scale and shift in one pass, which leaves the memory order channels-last as the vision tower wants it.
        mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (self.mean, self.std))
        return (pixels - mean) / std
