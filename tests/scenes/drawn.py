"""Scenes that tests look at; those of `shared` are drawn once, to be looked at only."""

from functools import cache

import numpy as np
import pytest

from florence_lite.data.annotation import Annotation
from florence_lite.scenes.artwork import find_style
from florence_lite.scenes.compose import Composition, compose
from florence_lite.scenes.scene import annotate


def draw(seed: int, style: str = "openmoji", size_wh: tuple[int, int] = (224, 224)) -> tuple[Composition, Annotation]:
    """What `render_scene` draws and tells, with the composition whole."""
    rng = np.random.default_rng(seed)
    composition = compose(rng, (style,), size_wh)
    return composition, annotate(composition, rng)


shared = cache(draw)


def installed(*styles: str):
    """Test parameters that skip the styles that are not installed, with the reason."""
    return [
        pytest.param(style, marks=pytest.mark.skipif(not _is_there(style), reason=f"artwork {style} is not installed"))
        for style in styles
    ]


def _is_there(style: str) -> bool:
    try:
        find_style(style)
    except FileNotFoundError:
        return False
    return True
