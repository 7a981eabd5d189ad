"""Removing what a phrase names: masks that grow, fills, and what `inpaint` may return."""

import numpy as np
import pytest
from PIL import Image

from florence_lite.geometry import rasterize
from florence_lite.inference.editing import DILATION, dilated, painted_over, smooth_fill
from tests.tiny import noise_image
from tests.tokens.spelling import spell

SIZE = (100, 80)
MASK = rasterize([[(30, 20), (60, 20), (60, 50), (30, 50)]], SIZE)


def test_masks_grow_by_pixels():
    mask = np.zeros((9, 12), bool)
    mask[4, 3] = mask[0, 11] = True
    grown = dilated(mask, 2)
    expected = np.zeros((9, 12), bool)
    expected[2:7, 1:6] = expected[0:3, 9:12] = True
    assert (grown == expected).all() and mask.sum() == 2
    assert dilated(mask, 0) is mask and dilated(mask, 50).all()


def test_the_fill_goes_over_from_what_is_around():
    ramp = np.repeat(np.linspace(0, 200, 100)[None], 80, axis=0)
    image = Image.fromarray(np.stack([ramp, ramp, 255 - ramp], axis=-1).astype(np.uint8))
    hole = np.array(image)
    hole[MASK] = (255, 0, 0)
    filled = smooth_fill(Image.fromarray(hole), MASK).astype(int)
    assert np.abs(filled - np.asarray(image)).max() < 40
    assert np.abs(filled - np.asarray(image))[MASK].mean() < 12
    assert np.abs(np.diff(filled[35, 30:60, 0])).max() < 20
    flat = Image.new("RGB", SIZE, (10, 20, 30))
    assert (smooth_fill(flat, MASK) == (10, 20, 30)).all()
    assert (smooth_fill(flat, ~np.zeros_like(MASK)) == 128).all()
    assert (smooth_fill(flat, np.zeros_like(MASK)) == (10, 20, 30)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (3, 2)])
def test_tiny_pictures_are_filled(size):
    mask = np.zeros(size[::-1], bool)
    mask[0, 0] = True
    assert smooth_fill(Image.new("RGB", size, (9, 9, 9)), mask).shape == (*size[::-1], 3)


@pytest.mark.parametrize("kind", [Image.fromarray, np.asarray])
def test_only_masked_pixels_are_taken(kind):
    image = noise_image(0, SIZE)
    seen = []

    def inpaint(given, mask):
        seen.append((given.mode, given.tobytes() == image.tobytes(), (mask == MASK).all()))
        painted = kind(np.full((80, 100, 3), 77, np.uint8))
        given.paste((0, 0, 0), (0, 0, *SIZE))
        mask[:] = True
        return painted

    painted = np.asarray(painted_over(image, MASK, inpaint))
    assert seen == [("RGB", True, True)]
    assert (painted[MASK] == 77).all() and (painted[~MASK] == np.asarray(image)[~MASK]).all()


def test_an_empty_mask_calls_nobody():
    image = noise_image(0, SIZE)
    same = painted_over(image, np.zeros_like(MASK), lambda *_: pytest.fail("called"))
    assert same is not image and same.tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("painted", "message"),
    [
        (
            Image.new("RGB", (80, 100)),
            "inpaint returned a picture RGB of 80×100 pixels; it must return an RGB picture of 100×80 pixels",
        ),
        (Image.new("RGBA", SIZE), "inpaint returned a picture RGBA of 100×80 pixels"),
        (Image.new("L", SIZE), "inpaint returned a picture L of 100×80"),
        (np.zeros((80, 100), np.uint8), r"inpaint returned ndarray, uint8\[80, 100\]"),
        (np.zeros((80, 100, 3), np.float32), r"inpaint returned ndarray, float32\[80, 100, 3\]"),
        (np.zeros((3, 80, 100), np.uint8), r"uint8\[3, 80, 100\]; .* or uint8\[80, 100, 3\]"),
        (None, r"inpaint returned NoneType, object\[\]"),
    ],
)
def test_other_pictures_are_refused(painted, message):
    with pytest.raises(ValueError, match=message):
        painted_over(noise_image(0, SIZE), MASK, lambda *_: painted)


# ---- Florence.remove

RING = [300, 250, 600, 250, 600, 625, 300, 625]  # bins of 100 × 80 pixels: 30 to 60 and 20 to 50


@pytest.fixture
def knows_a_bus(scripted, toy_tokenizer):
    known, _ = scripted
    known["the bus"] = spell(toy_tokenizer, "the bus", [300, 250, 600, 625])
    known["polygon mask"] = spell(toy_tokenizer, RING)


def test_what_a_phrase_names_goes_and_all_else_stays(florence, knows_a_bus):
    image = noise_image(0, SIZE)
    gone = florence.remove(image, "the bus", lambda given, mask: Image.new("RGB", given.size), dilate=3)
    assert gone.found and gone.result.labels == ["the bus"]
    assert (gone.mask == dilated(next(gone.result.masks()), 3)).all()
    pixels, before = np.asarray(gone.image), np.asarray(image)
    assert not pixels[gone.mask].any() and (pixels[~gone.mask] == before[~gone.mask]).all()
    plain = florence.remove(florence.encode(image), "the bus")
    assert plain.mask.sum() == dilated(next(gone.result.masks()), int(np.ceil(DILATION * 80))).sum()
    assert (np.asarray(plain.image)[~plain.mask] == before[~plain.mask]).all()


def test_what_is_absent_leaves_the_image(florence, knows_a_bus):
    image = noise_image(0, SIZE)
    gone = florence.remove(image, "a unicorn", lambda *_: pytest.fail("called"))
    assert not gone.found and not gone.mask.any() and gone.result.instances == ()
    assert gone.image.tobytes() == image.tobytes()


def test_a_picture_of_another_mode_becomes_rgb(florence, knows_a_bus):
    image = noise_image(0, SIZE).convert("L")
    gone = florence.remove(image, "a unicorn")
    assert gone.image.mode == "RGB" and (np.asarray(gone.image) == np.asarray(image)[..., None]).all()


def test_bad_input_is_told(florence, knows_a_bus):
    image = noise_image(0, SIZE)
    bare = florence.encode(image, keep_image=False)
    for given, message in (
        ({"image": [image]}, "remove takes one image, not a list of 1"),
        ({"inpaint": "lama"}, "inpaint is 'lama'; it must be a function"),
        ({"dilate": -1}, "dilate is -1; it must be a whole number of pixels"),
        ({"dilate": 1.5}, "dilate is 1.5"),
        ({"phrase": ""}, "phrase is ''; it must be one string with something in it"),
        ({"phrase": "a<loc_1>"}, "phrase='a<loc_1>' holds <loc_1>, which is no word"),
        ({"phrase": None}, "phrase is None"),
        ({"region": (1, 1, 5, 5)}, "takes one of phrase, phrases and region"),
        ({"image": bare}, "the encoded image keeps no picture: give remove the image itself"),
        ({"inpaint": lambda *_: image.resize((5, 5))}, "inpaint returned a picture RGB of 5×5 pixels"),
    ):
        with pytest.raises(ValueError, match=message):
            florence.remove(**{"image": image, "phrase": "the bus"} | given)
