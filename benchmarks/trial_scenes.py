"""Other ways to draw the scenes of a training run, for `trials.py`: words alone first, photographs behind or among.

Each takes the configuration of the run and photographs, and gives what draws a scene in the place of `render_scene`.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from string import ascii_lowercase
from unittest.mock import patch

import numpy as np
from PIL import Image

from florence_lite.data.annotation import Annotation, TextLine
from florence_lite.images import load_image
from florence_lite.scenes import compose, language, lettering, training
from florence_lite.scenes.backgrounds import draw_background
from florence_lite.scenes.config import TrainConfig
from florence_lite.scenes.lettering import draw_line
from florence_lite.scenes.scene import annotate, render_scene

Draw = Callable[[int, tuple[str, ...], tuple[int, int]], tuple[Image.Image, Annotation]]
BEHIND = 0.5  # of the scenes have a photograph behind them
EMPTY = 0.1  # of the images are photographs in which nothing is asked for
MOST_LINES = 3
_STRANGE = """
    man woman child girl boy baby king queen doctor monkey bear wolf fox deer goat sheep duck goose eagle snake lizard
    spider bee ant worm whale shark dolphin seal camel zebra giraffe kangaroo squirrel bat swan parrot peach pear
    grape cherry melon potato onion tomato pepper bread cheese egg rice pasta soup cookie candy van train subway ship
    canoe scooter wagon ambulance tank desk bed lamp mirror door window stove oven fridge sink toilet towel pillow
    blanket carpet curtain plate bowl cup fork pan pot box bag basket bucket rope ladder hammer saw nail screw drill
    brush pencil pen paper letter stamp map flag crown ring necklace shirt pants dress coat hat glove sock boot piano
    drum violin trumpet bell radio computer keyboard screen robot moon star cloud river bridge tower castle tent fence
"""
STRANGE_THINGS = tuple(_STRANGE.split())
"""Things that no scene shows; `unfamiliar.OTHER_THINGS` are still others."""


def words_alone_first(config: TrainConfig, photographs: Sequence[Path]) -> Draw:
    """Up to three lines of text and no objects, until the first scenes have been shown as often as the run says; then
    scenes as usual."""
    until = (config.seed * config.steps + training.APART) * config.batch  # number of the first scene with objects

    def draw(seed: int, styles: tuple[str, ...], size_wh: tuple[int, int]) -> tuple[Image.Image, Annotation]:
        if seed >= until:
            return render_scene(seed, styles, size_wh)
        rng = np.random.default_rng(seed)
        picture, background, stuff = draw_background(rng, size_wh)
        taken = np.zeros(size_wh[::-1], bool)
        lines = [draw_line(rng, picture, taken) for _ in range(int(rng.integers(1, 1 + MOST_LINES)))]
        found = sorted((line for line in lines if line), key=lambda line: (min(line.quad[1::2]), min(line.quad[::2])))
        return _without_objects(rng, picture, background, found, stuff)

    return draw


def drawn_with_photographs(config: TrainConfig, photographs: Sequence[Path]) -> Draw:
    """Photographs in the place of half of the drawn backgrounds."""

    def background(rng: np.random.Generator, size_wh: tuple[int, int]) -> tuple[Image.Image, str, tuple]:
        if rng.random() >= BEHIND:
            return draw_background(rng, size_wh)
        return _part(rng, photographs, size_wh), "a photograph", ()

    def draw(seed: int, styles: tuple[str, ...], size_wh: tuple[int, int]) -> tuple[Image.Image, Annotation]:
        with patch.object(compose, "draw_background", background):
            return render_scene(seed, styles, size_wh)

    return draw


def empty_photographs_among(config: TrainConfig, photographs: Sequence[Path]) -> Draw:
    """Photographs among the scenes: lists are empty there, and no phrase is true of them."""

    def draw(seed: int, styles: tuple[str, ...], size_wh: tuple[int, int]) -> tuple[Image.Image, Annotation]:
        rng = np.random.default_rng([seed, 1])
        if rng.random() >= EMPTY:
            return render_scene(seed, styles, size_wh)
        return _without_objects(rng, _part(rng, photographs, size_wh), "a photograph", [], ())

    return draw


def with_any_words(config: TrainConfig, photographs: Sequence[Path]) -> Draw:
    """Half of the words are letters in any order, as many as words have."""
    choose = lettering.choose_text

    def text(rng: np.random.Generator) -> str:
        if rng.random() < 0.5:
            return choose(rng)
        letters = "".join(rng.choice(list(ascii_lowercase), int(rng.integers(2, 9))))
        return (letters.upper(), letters, letters.capitalize())[int(rng.integers(3))]

    def draw(seed: int, styles: tuple[str, ...], size_wh: tuple[int, int]) -> tuple[Image.Image, Annotation]:
        with patch.object(lettering, "choose_text", text):
            return render_scene(seed, styles, size_wh)

    return draw


def with_strange_things(config: TrainConfig, photographs: Sequence[Path]) -> Draw:
    """Half of the things that are asked for and are not there are of kinds that no scene has."""
    usual = language._stranger

    def stranger(view: language.View, rng: np.random.Generator) -> str:
        return usual(view, rng) if rng.random() < 0.5 else STRANGE_THINGS[int(rng.integers(len(STRANGE_THINGS)))]

    def draw(seed: int, styles: tuple[str, ...], size_wh: tuple[int, int]) -> tuple[Image.Image, Annotation]:
        with patch.object(language, "_stranger", stranger):
            return render_scene(seed, styles, size_wh)

    return draw


def _without_objects(
    rng: np.random.Generator, picture: Image.Image, background: str, lines: Sequence[TextLine], stuff: tuple
) -> tuple[Image.Image, Annotation]:
    empty = compose.Composition(picture, (), (), (), tuple(lines), background, (), stuff)
    return picture, annotate(empty, rng)


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
