"""Outlines of what was found in boxes: every box is asked about on its own, and the caller may refine what comes back.

The network writes an outline as one polygon with all its rings; a hole is a further ring (even-odd rule).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from florence_lite.answers import Box, Instance, Polygons
from florence_lite.geometry import mask_to_rings, rasterize_window
from florence_lite.inference.encoded import EncodedImage
from florence_lite.inference.prompts import Prompt
from florence_lite.results import Result

OF_REGION = "<REGION_TO_SEGMENTATION>"

Refine = Callable[[Image.Image, Box, list[NDArray[np.float64]]], NDArray[np.bool_]]
"""refine(image, box, polygons) → mask: from an RGB picture, x0 y0 x1 y1 and rings float64[n, 2], [] where none could be
read, both in pixels of the picture, to a mask bool[H, W] of the picture's size."""


def outline_prompts(found: Result) -> list[Prompt]:
    """What asks for the outline of each instance that lies in a box with an area, in their order."""
    return [Prompt(OF_REGION, region=item.bounds) for item in found.instances if _has_area(item)]


def given_box(image: EncodedImage, box: Sequence[float], keep_image: bool) -> Result:
    """A box that was not found but given, so that nothing about it is unsure, as if it had been found."""
    picture = image.image if keep_image else None
    given = Instance(box=cast(Box, box), score=1.0)
    return Result(OF_REGION, image.size_wh, instances=(given,), image=picture)


def outlined(found: Result, answers: Sequence[Result], image: EncodedImage, refine: Refine | None = None) -> Result:
    """What was found in an image, with an outline in the place of each box.

    answers: to `outline_prompts(found)`. refine: makes a mask of each outline; an empty one changes nothing.

    The score of an instance is that of its box times that of its outline: how sure the network is that an outline
    begins, and that four average coordinates of it lie where they were written (see `inference.scores`). An instance
    whose outline cannot be read keeps its box and the score of that. Such instances, rings that enclose no pixel and
    empty masks count as parse errors, beside those of all answers; `truncated` holds for any of these. The ids stay
    those of the boxes.

    Raises ValueError for a mask that `refine` may not return, and where there is no picture to refine on.
    """
    if refine is not None and image.image is None:
        raise ValueError("refine needs the picture of the image, which was encoded with keep_image=False")
    remaining = iter(answers)
    instances: list[Instance] = []
    parse_errors, truncated = found.parse_errors, found.truncated
    for item in found.instances:
        rings: Polygons = ()
        score = item.score
        faults = 0
        if _has_area(item):
            answer = next(remaining)
            rings, without_pixels = _whole_rings(answer)
            faults = answer.parse_errors + without_pixels
            truncated |= answer.truncated
            if rings:
                score = _product(item.score, answer.instances[0].score)
        parse_errors += faults if rings else max(1, faults)
        if refine is not None and item.bounds is not None:
            refined = _refined(item.bounds, rings, image, refine)
            rings, parse_errors = refined or rings, parse_errors + (not refined)
        instances.append(replace(item, box=None, polygons=rings, score=score) if rings else item)
    return replace(found, task=OF_REGION, instances=tuple(instances), parse_errors=parse_errors, truncated=truncated)


def _has_area(item: Instance) -> bool:
    if item.bounds is None:
        return False
    x0, y0, x1, y1 = item.bounds
    return x0 < x1 and y0 < y1


def _whole_rings(answer: Result) -> tuple[Polygons, int]:
    """The rings of an answer that enclose a pixel, and how many enclose none."""
    rings = answer.instances[0].polygons if answer.instances else ()
    whole = tuple(ring for ring in rings if rasterize_window([ring], answer.size_wh)[1].any())
    return whole, len(rings) - len(whole)


def _product(box: float | None, outline: float | None) -> float | None:
    return None if box is None or outline is None else box * outline


def _refined(box: Box, rings: Polygons, image: EncodedImage, refine: Refine) -> Polygons:
    """The outline that `refine` gives, in pixels of the image; () for an empty mask."""
    picture = image.image
    scale = np.array(picture.size) / np.array(image.size_wh)  # a large image keeps a smaller picture
    scaled = tuple((np.array(box) * np.tile(scale, 2)).tolist())
    mask = np.asarray(refine(picture.copy(), scaled, [np.array(ring) * scale for ring in rings]))
    width, height = picture.size
    if mask.dtype != bool or mask.shape != (height, width):
        raise ValueError(
            f"refine returned {mask.dtype}{list(mask.shape)}; it must return a mask bool[{height}, {width}], as high "
            "and as wide as the picture that it was given"
        )
    return tuple(tuple(map(tuple, (ring / scale).tolist())) for ring in mask_to_rings(mask))
