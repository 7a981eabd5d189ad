"""Other ways to draw the scenes of a training run, for `trials.py`: words alone first, photographs behind or among.

Each takes the configuration of the run and photographs, and gives what draws a scene in the place of `render_scene`.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image

from florence_lite.data.annotation import Annotation, TextLine
from florence_lite.images import load_image
from florence_lite.scenes import compose, training
from florence_lite.scenes.backgrounds import draw_background
from florence_lite.scenes.config import TrainConfig
from florence_lite.scenes.lettering import draw_line
from florence_lite.scenes.scene import annotate, render_scene
from florence_lite.scenes.variety import PLAIN, Variety

Draw = Callable[[int, tuple[str, ...], tuple[int, int], Variety], tuple[Image.Image, Annotation]]
BEHIND = 0.5  # of the scenes have a photograph behind them
EMPTY = 0.1  # of the images are photographs in which nothing is asked for
MOST_LINES = 3


def words_alone_first(config: TrainConfig, photographs: Sequence[Path]) -> Draw:
    """Up to three lines of text and no objects, until the first scenes have been shown as often as the run says; then
    scenes as usual."""
    until = (config.seed * config.steps + training.APART) * config.batch  # number of the first scene with objects

    def draw(
        seed: int, styles: tuple[str, ...], size_wh: tuple[int, int], variety: Variety = PLAIN
    ) -> tuple[Image.Image, Annotation]:
        if seed >= until:
            return render_scene(seed, styles, size_wh, variety)
        rng = np.random.default_rng(seed)
        picture, background, stuff = draw_background(rng, size_wh)
        taken = np.zeros(size_wh[::-1], bool)
        lines = [draw_line(rng, picture, taken, variety) for _ in range(int(rng.integers(1, 1 + MOST_LINES)))]
        found = sorted((line for line in lines if line), key=lambda line: (min(line.quad[1::2]), min(line.quad[::2])))
        return _without_objects(rng, picture, background, found, stuff, variety)

    return draw


def drawn_with_photographs(config: TrainConfig, photographs: Sequence[Path]) -> Draw:
    """Photographs in the place of half of the drawn backgrounds."""

    def background(rng: np.random.Generator, size_wh: tuple[int, int]) -> tuple[Image.Image, str, tuple]:
        if rng.random() >= BEHIND:
            return draw_background(rng, size_wh)
        return _part(rng, photographs, size_wh), "a photograph", ()

    def draw(
        seed: int, styles: tuple[str, ...], size_wh: tuple[int, int], variety: Variety = PLAIN
    ) -> tuple[Image.Image, Annotation]:
        with patch.object(compose, "draw_background", background):
            return render_scene(seed, styles, size_wh, variety)

    return draw


def empty_photographs_among(config: TrainConfig, photographs: Sequence[Path]) -> Draw:
    """Photographs among the scenes: lists are empty there, and no phrase is true of them."""

    def draw(
        seed: int, styles: tuple[str, ...], size_wh: tuple[int, int], variety: Variety = PLAIN
    ) -> tuple[Image.Image, Annotation]:
        rng = np.random.default_rng([seed, 1])
        if rng.random() >= EMPTY:
            return render_scene(seed, styles, size_wh, variety)
        return _without_objects(rng, _part(rng, photographs, size_wh), "a photograph", [], (), variety)

    return draw


def _without_objects(
    rng: np.random.Generator,
    picture: Image.Image,
    background: str,
    lines: Sequence[TextLine],
    stuff: tuple,
    variety: Variety,
) -> tuple[Image.Image, Annotation]:
    empty = compose.Composition(picture, (), (), (), tuple(lines), background, (), stuff)
    return picture, annotate(empty, rng, variety)


def _part(rng: np.random.Generator, photographs: Sequence[Path], size_wh: tuple[int, int]) -> Image.Image:
    """A part of a photograph, as large as an image, perhaps mirrored."""
    photograph = _load(photographs[int(rng.integers(len(photographs)))])
    share = rng.uniform(0.5, 1.0) * min(side / full for side, full in zip(photograph.size, size_wh, strict=True))
    width, height = (max(1, int(share * full)) for full in size_wh)
    left, top = (
        int(rng.integers(full - side + 1)) for full, side in zip(photograph.size, (width, height), strict=True)
    )
    part = photograph.resize(size_wh, Image.Resampling.BILINEAR, (left, top, left + width, top + height))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part


@lru_cache(maxsize=256)
def _load(file: Path) -> Image.Image:
    return load_image(file)
