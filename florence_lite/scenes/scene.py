"""A scene from its seed, and scenes as a sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from florence_lite.data.annotation import Annotation, ObjectAnnotation
from florence_lite.data.samples import Sample
from florence_lite.geometry import mask_to_rings
from florence_lite.scenes import language
from florence_lite.scenes.artwork import find_style
from florence_lite.scenes.catalogue import DEFAULT_STYLES, STYLES
from florence_lite.scenes.compose import Composition, compose
from florence_lite.scenes.variety import PLAIN, Variety

TRAIN = range(0, 10**9)
VALIDATION = range(10**9, 10**9 + 10**6)
TEST = range(2 * 10**9, 2 * 10**9 + 10**6)
_SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
_SHORTEST_SIDE = 64


def scene_seeds(split: str) -> range:
    """The seeds of a split ("train", "validation" or "test"); no seed is in two splits. ValueError for another name."""
    if split not in _SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(_SPLITS)}")
    return _SPLITS[split]


def render_scene(
    seed: int,
    styles: tuple[str, ...] = DEFAULT_STYLES,
    size_wh: tuple[int, int] = (224, 224),
    variety: Variety = PLAIN,
) -> tuple[Image.Image, Annotation]:
    """Draw scene number `seed` and tell the whole truth about it.

    seed: any whole number from 0; see `scene_seeds`.
    styles: artwork to choose from; all of a scene is in one style.
    size_wh: pixels, at least 64 each.
    variety: what it has beyond the catalogue, for training; the scenes of a split have nothing.

    Returns an RGB image and its annotation: objects from left to right (left edge, then top edge, of the visible box)
    with the box and the outline of what is visible, lines of text from top to bottom, three captions, expressions and
    questions. The same arguments give the same pixels and truth with the same versions of numpy, Pillow, the artwork
    and the fonts. Raises ValueError for bad arguments, FileNotFoundError for a style that is not installed.
    """
    _check(styles, size_wh)
    if seed < 0:
        raise ValueError(f"seed {seed} must be 0 or more")
    rng = np.random.default_rng(seed)
    scene = compose(rng, tuple(styles), size_wh, variety)
    return scene.picture, annotate(scene, rng, variety)


def annotate(scene: Composition, rng: np.random.Generator, variety: Variety = PLAIN) -> Annotation:
    """Put a composition into boxes, outlines and words; `rng` chooses among the true sentences."""
    boxes = []
    rings = []
    for (x, y), mask in zip(scene.corners, scene.masks, strict=True):
        height, width = mask.shape
        boxes.append((float(x), float(y), float(x + width), float(y + height)))
        rings.append(
            tuple(
                tuple((float(px) + x, float(py) + y) for px, py in ring) for ring in mask_to_rings(mask, tolerance=1.0)
            )
        )
    view = language.View(scene.labels, tuple(boxes), scene.picture.size, variety)
    objects = zip(scene.labels, boxes, rings, strict=True)
    captions = language.captions(view, scene.lines, scene.background)
    expressions, questions = language.expressions(view, rng), language.questions(view, scene.lines, rng)
    return Annotation(
        size_wh=scene.picture.size,
        objects=tuple(
            ObjectAnnotation(label, box, outline, view.phrase(i)) for i, (label, box, outline) in enumerate(objects)
        ),
        lines=scene.lines,
        captions=captions,
        expressions=(*expressions, *language.absent_stuff(scene.stuff, rng)),
        questions=questions,
        stuff=scene.stuff,
        wrong_captions=language.wrong_captions(view, captions, rng),
    )


class Scenes(Sequence[Sample]):
    """The scenes of one split as annotated samples, drawn when they are asked for.

    It holds no state, so any number of worker processes may share it.

    split: "train", "validation" or "test".
    styles, size_wh: as in `render_scene`.
    length: how many of the split's seeds, from its first; None takes all of them.

    Raises ValueError for bad arguments, FileNotFoundError for a style that is not installed.
    """

    def __init__(
        self,
        split: str,
        styles: tuple[str, ...] = DEFAULT_STYLES,
        size_wh: tuple[int, int] = (224, 224),
        length: int | None = None,
    ):
        seeds = scene_seeds(split)
        if length is not None and not 0 <= length <= len(seeds):
            raise ValueError(f"length {length} must be between 0 and {len(seeds)}, the size of the split {split!r}")
        _check(styles, size_wh)
        for style in styles:
            find_style(style)
        self.seeds = seeds[:length]
        self.styles = tuple(styles)
        self.size_wh = size_wh

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]  # no slices
        seed = self.seeds[index]
        image, annotation = render_scene(seed, self.styles, self.size_wh)
        return Sample(image, annotation, f"scene {seed}")

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def _check(styles: tuple[str, ...], size_wh: tuple[int, int]) -> None:
    if isinstance(styles, str) or not styles:
        raise ValueError(f"styles {styles!r} must be a tuple with at least one style, such as {DEFAULT_STYLES}")
    for style in styles:
        if style not in STYLES:
            raise ValueError(f"unknown artwork style {style!r}; the styles are {', '.join(STYLES)}")
    if min(size_wh) < _SHORTEST_SIDE:
        raise ValueError(f"size_wh {size_wh}: both sides must be at least {_SHORTEST_SIDE} pixels")
