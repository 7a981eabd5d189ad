"""Painting over a part of an image, and the plain fill that is used where the caller has no inpainting model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from florence_lite.checks import is_text, is_whole
from florence_lite.geometry import rasterize_window
from florence_lite.inference.encoded import EncodedImage
from florence_lite.results import Removal, Result
from florence_lite.tokens import check_marks

DILATION = 0.02  # of the image's shorter side, by which a mask grows: outlines of small networks are that coarse

Inpaint = Callable[[Image.Image, NDArray[np.bool_]], Image.Image | NDArray[np.uint8]]
"""inpaint(image, mask) → image: from an RGB picture and bool[H, W], True where it is to be filled, to a picture of the
same size and mode, or the array uint8[H, W, 3] of one."""


def check_removal(image: Any, phrase: Any, inpaint: Any, dilate: Any) -> None:
    """Raises ValueError for what `Florence.remove` does not take."""
    if not is_text(phrase):
        raise ValueError(f'phrase is {phrase!r}; it must be one string with something in it, such as "the bus"')
    check_marks("phrase", phrase)
    if isinstance(image, list | tuple):
        raise ValueError(f"remove takes one image, not a list of {len(image)}: call it for each of them")
    if inpaint is not None and not callable(inpaint):
        raise ValueError(f"inpaint is {inpaint!r}; it must be a function inpaint(image, mask) → image")
    if dilate is not None and not is_whole(dilate, 0):
        raise ValueError(f"dilate is {dilate!r}; it must be a whole number of pixels, at least 0")


def picture_of(image: EncodedImage) -> Image.Image:
    """The picture of an encoded image, in full. Raises ValueError where it kept none, or a smaller one."""
    if image.image is None or image.image.size != image.size_wh:
        kept = "no picture" if image.image is None else "a smaller picture"
        raise ValueError(f"the encoded image keeps {kept}: give remove the image itself")
    return image.image


def removed(picture: Image.Image, result: Result, inpaint: Inpaint | None, dilate: int | None) -> Removal:
    """The RGB picture without the instances of a result; see `Florence.remove`. Raises as `painted_over`."""
    width, height = picture.size
    mask = np.zeros((height, width), dtype=bool)
    for item in result.instances:
        window, inside = rasterize_window(item.outlines, picture.size)
        mask[window] |= inside
    mask = dilated(mask, math.ceil(DILATION * min(picture.size)) if dilate is None else dilate)
    return Removal(painted_over(picture, mask, inpaint), mask, result)


def dilated(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """The mask bool[H, W], grown by a number of pixels in every direction (a square as structuring element)."""
    if pixels == 0 or not mask.any():
        return mask
    for axis in (0, 1):
        ends = np.zeros_like(mask, dtype=np.int32)
        np.cumsum(mask, axis=axis, out=ends)
        length = mask.shape[axis]
        last = np.minimum(np.arange(length) + pixels, length - 1)
        first = np.arange(length) - pixels - 1
        before = np.take(ends, np.maximum(first, 0), axis=axis)
        before[(slice(None),) * axis + (first < 0,)] = 0
        mask = np.take(ends, last, axis=axis) > before
    return mask


def painted_over(image: Image.Image, mask: NDArray[np.bool_], inpaint: Inpaint | None = None) -> Image.Image:
    """The RGB image with the pixels of the mask bool[H, W] taken from what `inpaint` returns, all others as they are.

    inpaint: gets a copy of image and mask; `smooth_fill` without one. It is not called for an empty mask.
    Raises ValueError where it returns anything but an RGB picture of the same size.
    """
    if not mask.any():
        return image.copy()
    painted = _pixels((inpaint or smooth_fill)(image.copy(), mask.copy()), image.size)
    pixels = np.array(image)
    pixels[mask] = painted[mask]
    return Image.fromarray(pixels)


def smooth_fill(image: Image.Image, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """uint8[H, W, 3]: the RGB image with the pixels of the mask bool[H, W] filled smoothly from those around them.

    Each pixel without a colour takes it from the next coarser level of a pyramid, in which the mean of the coloured
    pixels of 2 × 2 stands for them; mid-grey where the mask leaves nothing. Source: the pull-push method of Gortler et
    al. 1996, doi:10.1145/237170.237200.
    """
    pixels = np.array(image)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return pixels
    margin = 2 + max(rows[-1] - rows[0], columns[-1] - columns[0]) // 4
    part = tuple(slice(max(0, each[0] - margin), each[-1] + 1 + margin) for each in (rows, columns))
    filled = _pull_push(pixels[part].astype(np.float32), (~mask[part]).astype(np.float32))
    pixels[part] = np.where(mask[part][..., None], np.rint(filled).clip(0, 255).astype(np.uint8), pixels[part])
    return pixels


def _pull_push(colors: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours float32[h, w, 3] with those where `known`, float32[h, w] of 0 and 1, is 0 filled in."""
    if known.all():
        return colors
    height, width = known.shape
    if height == width == 1:
        return np.full_like(colors, 127.5)
    padded = np.pad(known, ((0, height % 2), (0, width % 2)))
    blocks = (len(padded) // 2, 2, padded.shape[1] // 2, 2)
    weights = padded.reshape(blocks).sum((1, 3))
    sums = np.pad(colors * known[..., None], ((0, height % 2), (0, width % 2), (0, 0))).reshape(*blocks, 3).sum((1, 3))
    means = sums / np.maximum(weights, 1)[..., None]
    coarse = _pull_push(means, (weights > 0).astype(np.float32))
    finer = np.stack([_enlarged(coarse[..., channel], (width, height)) for channel in range(3)], axis=-1)
    return np.where(known[..., None] > 0, colors, finer)


def _enlarged(channel: NDArray[np.float32], size_wh: tuple[int, int]) -> NDArray[np.float32]:
    """A channel float32[h, w] at twice its size, cut to `size_wh`, with straight ramps between its values."""
    doubled = Image.fromarray(channel).resize([2 * side for side in channel.shape[::-1]], Image.Resampling.BILINEAR)
    return np.asarray(doubled)[: size_wh[1], : size_wh[0]]


def _pixels(painted: object, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """What `inpaint` returned, uint8[H, W, 3]."""
    width, height = size_wh
    if isinstance(painted, Image.Image):
        if (painted.mode, painted.size) == ("RGB", size_wh):
            return np.asarray(painted)
        got = f"a picture {painted.mode} of {painted.width}×{painted.height} pixels"
    else:
        array = np.asarray(painted)
        if (array.dtype, array.shape) == (np.uint8, (height, width, 3)):
            return array
        got = f"{type(painted).__name__}, {array.dtype}{list(array.shape)}"
    raise ValueError(
        f"inpaint returned {got}; it must return an RGB picture of {width}×{height} pixels, as it was given, or "
        f"uint8[{height}, {width}, 3]"
    )
