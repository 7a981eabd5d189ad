"""Artwork as other hands would draw it: other colours, flatter or softer shading, outlines, other proportions.

Training knows few styles of artwork. What it sees in a scene should be told by shapes that all styles have in common.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

_HUE = 24  # of 256, either way
_OUTLINED, _FLAT, _SOFT = 0.3, 0.4, 0.2  # shares of the hands
_INK = (30, 26, 32)


class Hand:
    """How all objects of a scene are drawn; each varies a little more. Draws from `rng` alone."""

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self._saturation, self._contrast = rng.uniform(0.3, 1.7), rng.uniform(0.7, 1.4)
        self._proportion = rng.uniform(0.85, 1.18)  # width by height, times what it was
        self._bits = int(rng.integers(2, 4)) if rng.random() < _FLAT else 8
        self._blur = rng.uniform(0.5, 1.2) if rng.random() < _SOFT else 0.0
        self._outline = rng.uniform(0.01, 0.03) if rng.random() < _OUTLINED else 0.0  # of the longer side

    def draw(self, artwork: Image.Image) -> Image.Image:
        """RGBA to RGBA."""
        width, height = artwork.size
        stretch = self._proportion**0.5
        artwork = artwork.resize((max(2, round(width * stretch)), max(2, round(height / stretch))))
        alpha = artwork.getchannel("A")
        picture = self._recoloured(artwork.convert("RGB"))
        if self._bits < 8:
            picture = ImageOps.posterize(picture.filter(ImageFilter.ModeFilter(5)), self._bits)
        if self._blur:
            picture = picture.filter(ImageFilter.GaussianBlur(self._blur))
        if self._outline:
            wide = 2 * round(self._outline * max(artwork.size)) + 3
            inside = alpha.filter(ImageFilter.MinFilter(wide))
            picture.paste(_INK, mask=ImageChops.subtract(alpha, inside))
        picture.putalpha(alpha)
        return picture

    def _recoloured(self, picture: Image.Image) -> Image.Image:
        hue, saturation, value = picture.convert("HSV").split()
        turn = int(self._rng.integers(-_HUE, _HUE + 1)) % 256
        turned = Image.merge("HSV", (hue.point([(each + turn) % 256 for each in range(256)]), saturation, value))
        picture = ImageEnhance.Color(turned.convert("RGB")).enhance(self._saturation)
        return ImageEnhance.Contrast(picture).enhance(self._contrast)
