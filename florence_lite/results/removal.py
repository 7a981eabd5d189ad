"""An image from which what a phrase names was removed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from florence_lite.results.result import Result


@dataclass(frozen=True, eq=False)
class Removal:
    """What `Florence.remove` returns.

    image: RGB, of the size of the image; where the mask is False its pixels are those of the image, bit for bit.
    mask: bool[H, W], the pixels that were painted over.
    result: the instances that were removed, with their outlines; none where the phrase is absent.
    """

    image: Image.Image
    mask: NDArray[np.bool_] = field(repr=False)
    result: Result

    @property
    def found(self) -> bool:
        """Whether there was anything to remove; if not, the image is as it was."""
        return bool(self.mask.any())
