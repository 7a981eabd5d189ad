"""Changes of an image that its annotation follows: mirroring, quarter turns, cropping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from florence_lite.answers import Box, Polygons
from florence_lite.data.annotation import Annotation
from florence_lite.data.sides import tells_height, tells_side
from florence_lite.geometry import box_area, clip_ring, polygon_area, thinned_outlines

Turn = Image.Transpose
LEAST_VISIBLE = 0.3  # share of an object's box that a crop must hold for the object to stay
LANGUAGES = ("en",)  # in which it is known how sentences tell sides
SMALLEST_CROP = 0.5  # of either side of the image

_POINTS: dict[Turn, Callable] = {  # where the point (x, y) of an image of w × h pixels goes
    Turn.FLIP_LEFT_RIGHT: lambda x, y, w, h: (w - x, y),
    Turn.FLIP_TOP_BOTTOM: lambda x, y, w, h: (x, h - y),
    Turn.ROTATE_90: lambda x, y, w, h: (y, w - x),
    Turn.ROTATE_180: lambda x, y, w, h: (w - x, h - y),
    Turn.ROTATE_270: lambda x, y, w, h: (h - y, x),
    Turn.TRANSPOSE: lambda x, y, w, h: (y, x),
    Turn.TRANSVERSE: lambda x, y, w, h: (h - y, w - x),
}
_LYING = (Turn.ROTATE_90, Turn.ROTATE_270, Turn.TRANSPOSE, Turn.TRANSVERSE)  # width and height change places
_REFLECTIONS = (Turn.FLIP_LEFT_RIGHT, Turn.FLIP_TOP_BOTTOM, Turn.TRANSPOSE, Turn.TRANSVERSE)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images. An image is only changed where all that is known about it stays true.

    flips: share of the images that are mirrored. upright: whether images have a top; if not, all eight ways to lay
    them down are drawn evenly, whatever `flips` says. crops: share of the images of which a random part is taken.
    language: of the texts about the images, as in `can_turn`.
    """

    flips: float = 0.0
    upright: bool = True
    crops: float = 0.0
    language: str | None = None

    def __call__(
        self, image: Image.Image, annotation: Annotation, rng: np.random.Generator
    ) -> tuple[Image.Image, Annotation]:
        """Image and annotation, changed by chance."""
        corners, turn = self.draw(rng)
        if corners is not None and can_crop(annotation, self.language):
            image, annotation = crop(image, annotation, _random_part(annotation.size_wh, corners), self.language)
        if turn is not None and can_turn(annotation, turn, self.language):
            image, annotation = transpose(image, annotation, turn, self.language)
        return image, annotation

    @property
    def changes_nothing(self) -> bool:
        """Whether images stay as they are."""
        return self.upright and not self.flips and not self.crops

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray | None, Turn | None]:
        """What is to be changed: four chances that place a crop, and a way to turn; None for neither."""
        chances, way, corners = rng.random(2), int(rng.integers(8)), rng.random(4)
        mirrored = Turn.FLIP_LEFT_RIGHT if chances[1] < self.flips else None
        turn = mirrored if self.upright else (None, *_POINTS)[way]
        return (corners if chances[0] < self.crops else None), turn


def can_turn(annotation: Annotation, turn: Turn, language: str | None = None) -> bool:
    """Whether everything that is said about the image stays true, or can follow, when it is mirrored or turned.

    Mirrored text is no text. Words that tell sides, or heights where the top does not stay on top, would be wrong. In
    names of classes they are known in many languages, in captions, phrases, questions and texts of regions in English
    alone, for there are more ways to say where something is than a list can hold: an image with such texts is neither
    mirrored nor turned, unless `language` is "en".
    """
    names = {item.label for item in annotation.objects}
    texts = set(_texts(annotation)) - names - {""}
    if annotation.lines or (texts and language not in LANGUAGES):
        return False
    said = texts | names
    if any(map(tells_side, said)):
        return False
    return turn == Turn.FLIP_LEFT_RIGHT or not any(map(tells_height, said))


def transpose(
    image: Image.Image, annotation: Annotation, turn: Turn, language: str | None = None
) -> tuple[Image.Image, Annotation]:
    """Image and annotation mirrored or turned; ValueError where `can_turn` says no."""
    return image.transpose(turn), turned(annotation, turn, language)


def turned(annotation: Annotation, turn: Turn, language: str | None = None) -> Annotation:
    """The annotation of the mirrored or turned image; ValueError where `can_turn` says no."""
    if not can_turn(annotation, turn, language):
        raise ValueError("the annotation has text or may tell sides, which mirroring would make wrong")
    width, height = annotation.size_wh

    def box(values: Box) -> Box:
        x0, y0, x1, y1 = values
        (a, b), (c, d) = (_POINTS[turn](x, y, width, height) for x, y in ((x0, y0), (x1, y1)))
        return (min(a, c), min(b, d), max(a, c), max(b, d))

    def ring(points: tuple) -> tuple:
        moved = tuple(_POINTS[turn](x, y, width, height) for x, y in points)
        return moved[::-1] if turn in _REFLECTIONS else moved  # the sense of rotation stays

    objects, ignored = (
        tuple(replace(item, box=box(item.box), polygons=tuple(map(ring, item.polygons))) for item in items)
        for items in (annotation.objects, annotation.ignored)
    )
    regions = tuple(replace(region, box=box(region.box)) for region in annotation.regions)
    stuff = tuple(replace(item, polygons=tuple(map(ring, item.polygons))) for item in annotation.stuff)
    size_wh = (height, width) if turn in _LYING else (width, height)
    return replace(annotation, size_wh=size_wh, objects=objects, regions=regions, ignored=ignored, stuff=stuff)


def can_crop(annotation: Annotation, language: str | None = None) -> bool:
    """Whether a part of the image can be described: where nothing is known but objects, and regions whose words do
    not place them in the image, which is known of English ones (`language` "en")."""
    texts = [region.text for region in annotation.regions]
    placing = language not in LANGUAGES or any(tells_side(text) or tells_height(text) for text in texts)
    return not (
        annotation.lines
        or annotation.ignored_lines
        or any(annotation.captions)
        or annotation.more_captions
        or annotation.wrong_captions
        or annotation.expressions
        or annotation.questions
        or any(item.phrase for item in annotation.objects)
        or (texts and placing)
    )


def crop(
    image: Image.Image, annotation: Annotation, part: tuple[int, int, int, int], language: str | None = None
) -> tuple[Image.Image, Annotation]:
    """The part x0 y0 x1 y1 of an image, in pixels, and what is in it; objects and regions of which less than
    `LEAST_VISIBLE` is left are gone. ValueError where `can_crop` says no."""
    if not can_crop(annotation, language):
        raise ValueError("the annotation has words about the whole image, which may be wrong about a part of it")
    objects, ignored = (
        tuple(
            replace(item, box=cut[0], polygons=cut[1])
            for item in items
            if (cut := _cut(item.box, item.polygons, part, annotation.size_wh, least))
        )
        for items, least in ((annotation.objects, LEAST_VISIBLE), (annotation.ignored, 0))
    )
    regions = tuple(
        replace(region, box=cut[0])
        for region in annotation.regions
        if (cut := _cut(region.box, (), part, annotation.size_wh, LEAST_VISIBLE))
    )
    stuff = tuple(
        replace(item, polygons=outline) for item in annotation.stuff if (outline := _clipped(item.polygons, part))
    )
    image = image.crop(part)
    return image, replace(
        annotation, size_wh=image.size, objects=objects, regions=regions, ignored=ignored, stuff=stuff
    )


def _cut(
    box: Box, polygons: Polygons, part: tuple[int, int, int, int], size_wh: tuple[int, int], least: float
) -> tuple[Box, Polygons] | None:
    """Box and outline as a part of the image shows them, in its own pixels; None where less of the box than a share of
    `least` is left, or nothing."""
    whole, corner = np.array(box, dtype=np.float64), np.array(part[:2])
    low, high = np.maximum(whole[:2], part[:2]), np.minimum(whole[2:], part[2:])
    # Thinned first: the tolerance is a share of the image's side; with the part's side the answer might become longer
    # than any that was checked before training.
    thin = thinned_outlines(polygons, size_wh)
    clipped = [ring for ring in (clip_ring(points, part) for points in thin) if polygon_area(ring) > 0]
    if polygons and (*low, *high) != box:  # what is left of a cut object may be narrower than what is left of its box
        if not clipped:
            return None
        points = np.concatenate(clipped)
        low, high = np.maximum(low, points.min(0)), np.minimum(high, points.max(0))
    left = box_area([*low, *high])
    if left == 0 or left < least * box_area(whole):
        return None
    outline = tuple(tuple(map(tuple, (ring - corner).tolist())) for ring in clipped)
    return (*(low - corner).tolist(), *(high - corner).tolist()), outline


def _clipped(polygons: Polygons, part: tuple[int, int, int, int]) -> Polygons:
    """Outlines as a part of the image shows them, in its own pixels; () where nothing of them is in it."""
    rings = (clip_ring(np.asarray(ring, dtype=np.float64), part) for ring in polygons)
    corner = np.array(part[:2])
    return tuple(tuple(map(tuple, (ring - corner).tolist())) for ring in rings if polygon_area(ring) > 0)


def _random_part(size_wh: tuple[int, int], chances: np.ndarray) -> tuple[int, int, int, int]:
    """A part whose sides are drawn apart, so that its shape varies; four chances in [0, 1)."""
    sides = [
        max(1, round(length * (SMALLEST_CROP + (1 - SMALLEST_CROP) * c)))
        for length, c in zip(size_wh, chances[:2], strict=True)
    ]
    left, top = (int(c * (length - side + 1)) for length, side, c in zip(size_wh, sides, chances[2:], strict=True))
    return left, top, left + sides[0], top + sides[1]


def _texts(annotation: Annotation) -> Iterator[str]:
    """All words that are said about an image."""
    yield from annotation.captions
    yield from annotation.more_captions
    yield from annotation.wrong_captions
    yield from (item.label for item in annotation.stuff)
    for item in annotation.objects:
        yield from (item.label, item.phrase)
    yield from (region.text for region in annotation.regions)
    yield from (expression.phrase for expression in annotation.expressions)
    for pair in annotation.questions:
        yield from (pair.question, pair.answer)
