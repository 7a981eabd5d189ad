"""Backgrounds: a picture, the words that describe it, and the stuff that it shows."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops

from florence_lite.data.annotation import Stuff
from florence_lite.scenes.catalogue import COLORS, GROUNDS, SKIES

KINDS = ("plain", "gradient", "noise", "stripes", "checks", "spots", "landscape")
_ODDS = np.cumsum([0.16, 0.16, 0.14, 0.12, 0.10, 0.12, 0.20])


def draw_background(rng: np.random.Generator, size_wh: tuple[int, int]) -> tuple[Image.Image, str, tuple[Stuff, ...]]:
    """An RGB picture, its description, such as "a plain blue background" or "green grass under a blue sky", and the sky
    and the ground of a landscape."""
    stuff: tuple[Stuff, ...] = ()
    kind = KINDS[int(np.searchsorted(_ODDS, rng.random() * _ODDS[-1], side="right"))]
    first, second = _two_colors(rng)
    one, other = (_vary(rng, COLORS[name]) for name in (first, second))
    both = " and ".join(sorted((first, second)))  # nobody sees which of two equal colours came first
    if kind == "plain":
        picture, words = Image.new("RGB", size_wh, tuple(one)), f"a plain {first} background"
    elif kind == "gradient":
        picture, words = _mix(one, other, _ramp(rng), size_wh), f"a background that fades between {both}"
    elif kind == "noise":
        picture, words = _noise(rng, one, size_wh), f"a noisy {first} background"
    elif kind == "stripes":
        picture, words = _mix(one, other, _waves(rng, size_wh), size_wh), f"a background with {both} stripes"
    elif kind == "checks":
        checks = np.abs(_waves(rng, size_wh, np.pi / 2, 0.14) - _waves(rng, size_wh, 0.0, 0.14))
        picture, words = _mix(one, other, checks, size_wh), f"a background with {both} checks"
    elif kind == "spots":
        picture, words = _mix(one, other, _spots(rng), size_wh), f"a {first} background with {second} spots"
    else:
        picture, words, stuff = _landscape(rng, size_wh)
    if kind != "noise" and rng.random() < 0.5:
        picture = _grain(rng, picture)
    return picture, words, stuff


def _two_colors(rng: np.random.Generator) -> tuple[str, str]:
    names = tuple(COLORS)
    first = int(rng.integers(len(names)))
    second = (first + 1 + int(rng.integers(len(names) - 1))) % len(names)
    return names[first], names[second]


def _vary(rng: np.random.Generator, rgb: tuple[int, int, int], amount: float = 14) -> np.ndarray:
    """The colour a little lighter or darker and a little off: uint8[3]."""
    shift = rng.normal(0, amount) + rng.normal(0, amount / 3, 3)
    return np.clip(np.array(rgb) + shift, 0, 255).astype(np.uint8)


def _mix(one: np.ndarray, other: np.ndarray, weight: np.ndarray, size_wh: tuple[int, int]) -> Image.Image:
    """`one` where the weight (float[h, w] in 0..1, any size) is 0 and `other` where it is 1."""
    mask = Image.fromarray((255 * weight).astype(np.uint8)).resize(size_wh, Image.Resampling.BICUBIC)
    return Image.composite(Image.new("RGB", size_wh, tuple(other)), Image.new("RGB", size_wh, tuple(one)), mask)


def _ramp(rng: np.random.Generator) -> np.ndarray:
    """A straight slope in any direction, or one outwards from a point: float[32, 32]."""
    y, x = np.mgrid[0:1:32j, 0:1:32j]
    if rng.random() < 0.3:
        slope = np.hypot(x - rng.uniform(0.2, 0.8), y - rng.uniform(0.2, 0.8))
    else:
        angle = rng.uniform(0, 2 * np.pi)
        slope = x * np.cos(angle) + y * np.sin(angle)
    return (slope - slope.min()) / np.ptp(slope)


def _waves(
    rng: np.random.Generator, size_wh: tuple[int, int], angle: float | None = None, finest: float = 0.06
) -> np.ndarray:
    """Hard or soft parallel bands at full size: float32[H, W] in 0..1."""
    angle = rng.uniform(0, np.pi) if angle is None else angle
    width, height = size_wh
    period = rng.uniform(finest, 0.3) * min(size_wh)
    x = np.arange(width, dtype=np.float32) * np.float32(np.cos(angle) / period)
    y = np.arange(height, dtype=np.float32)[:, None] * np.float32(np.sin(angle) / period)
    phase = (x + y + np.float32(rng.random())) % 1
    edge = np.abs(2 * phase - 1) - 0.5  # +-0.5, one zero crossing per edge
    return np.clip(edge * period / 2 + 0.5, 0, 1)


def _spots(rng: np.random.Generator) -> np.ndarray:
    """Three to seven soft round spots: float[48, 48] in 0..1."""
    y, x = np.mgrid[0:1:48j, 0:1:48j]
    count = int(rng.integers(3, 8))
    cx, cy, radius = rng.random(count), rng.random(count), rng.uniform(0.06, 0.2, count)
    squared = (x[..., None] - cx) ** 2 + (y[..., None] - cy) ** 2
    return np.clip(np.exp(-squared / radius**2).max(axis=-1) * 1.2, 0, 1)


def _octaves(rng: np.random.Generator, size_wh: tuple[int, int], amount: float) -> np.ndarray:
    """Smooth noise at two or three scales: float32[H, W, 1] around 0."""
    total = np.zeros((size_wh[1], size_wh[0]), np.float32)
    for cells in rng.choice((3, 6, 12, 28, 56), size=int(rng.integers(2, 4)), replace=False):
        grid = rng.integers(0, 256, (int(cells), int(cells)), dtype=np.uint8)
        total += np.asarray(Image.fromarray(grid).resize(size_wh, Image.Resampling.BICUBIC))
        total -= 127.5
    return total[..., None] * np.float32(amount / 127.5)


def _noise(rng: np.random.Generator, color: np.ndarray, size_wh: tuple[int, int]) -> Image.Image:
    """Light and dark noise with a weaker tint of another colour that comes and goes."""
    tint = rng.normal(0, 0.4, 3).astype(np.float32)
    noisy = _octaves(rng, size_wh, rng.uniform(14, 34)) + _octaves(rng, size_wh, 25) * tint + color.astype(np.float32)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _grain(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Fine grey grain of a strength that varies, as from a camera's sensor."""
    strength = int(rng.integers(2, 9))
    width, height = picture.size
    grain = Image.fromarray(rng.integers(0, 2 * strength + 1, (height, width), dtype=np.uint8))
    return ImageChops.add(picture, Image.merge("RGB", (grain, grain, grain)), offset=-strength)


def _landscape(rng: np.random.Generator, size_wh: tuple[int, int]) -> tuple[Image.Image, str, tuple[Stuff, ...]]:
    """Sky above ground, with a lighter horizon and a textured ground."""
    sky_name, ground_name = (tuple(names)[int(rng.integers(len(names)))] for names in (SKIES, GROUNDS))
    width, height = size_wh
    horizon = round(rng.uniform(0.3, 0.7) * height)
    sky, ground = _vary(rng, SKIES[sky_name], 8), _vary(rng, GROUNDS[ground_name], 8)
    paler = (sky + 0.35 * (255.0 - sky)).astype(np.uint8)
    picture = _mix(sky, paler, np.linspace(0, 1, 16)[:, None], (width, horizon))
    canvas = Image.new("RGB", size_wh)
    canvas.paste(picture, (0, 0))
    below = _octaves(rng, (width, height - horizon), rng.uniform(6, 18)) + ground.astype(np.float32)
    canvas.paste(Image.fromarray(np.clip(below, 0, 255).astype(np.uint8)), (0, horizon))
    above = Stuff("sky", (_rectangle(0, horizon, width),))
    under = Stuff(ground_name.split()[-1], (_rectangle(horizon, height, width),))
    return canvas, f"{ground_name} under a {sky_name} sky", (above, under)


def _rectangle(top: float, bottom: float, width: float) -> tuple[tuple[float, float], ...]:
    """All of an image from one height to another."""
    return (0.0, float(top)), (float(width), float(top)), (float(width), float(bottom)), (0.0, float(bottom))
