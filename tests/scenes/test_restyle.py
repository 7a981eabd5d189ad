"""Artwork as other hands draw it."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from florence_lite.scenes.restyle import Hand


@pytest.fixture
def artwork():
    picture = Image.new("RGBA", (100, 60))
    ImageDraw.Draw(picture).ellipse((4, 4, 95, 55), fill=(200, 60, 40, 255))
    return picture


def test_the_same_hand_draws_the_same(artwork):
    one, other = (Hand(np.random.default_rng(3)).draw(artwork) for _ in range(2))
    assert one.tobytes() == other.tobytes()


def test_hands_differ_in_colours_but_keep_the_shape(artwork):
    """The middle is solid, the corners are empty, the size changes by a fifth at most."""
    colours = set()
    for seed in range(40):
        drawn = Hand(np.random.default_rng(seed)).draw(artwork)
        assert drawn.mode == "RGBA" and 0.8 < drawn.width * drawn.height / 6000 < 1.2
        assert 0.84 < drawn.width / drawn.height / (100 / 60) < 1.2
        middle = drawn.getpixel((drawn.width // 2, drawn.height // 2))
        assert middle[3] == 255 and drawn.getpixel((0, 0))[3] == 0
        colours.add(middle)
    assert len(colours) > 20


def test_tiny_artwork_can_be_drawn():
    for seed in range(20):
        assert min(Hand(np.random.default_rng(seed)).draw(Image.new("RGBA", (1, 3), (9, 9, 9, 255))).size) >= 2
