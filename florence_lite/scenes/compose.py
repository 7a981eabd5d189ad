"""Putting artwork and words on a background, with the visible mask of every object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from florence_lite.data.annotation import Stuff, TextLine
from florence_lite.scenes.artwork import load_style
from florence_lite.scenes.backgrounds import draw_background
from florence_lite.scenes.catalogue import CLASSES
from florence_lite.scenes.lettering import draw_line
from florence_lite.scenes.variety import PLAIN, Variety

MIN_VISIBLE = 0.45
MAX_OBJECTS = 6
_COUNT_ODDS = np.cumsum([0.10, 0.27, 0.28, 0.19, 0.10, 0.06])  # 1 … 6 objects
_SMALLEST, _LARGEST = 0.15, 0.5  # longest side of the artwork as a share of the image's shorter side
_TURN = 20.0  # degrees
_TRIES = 14
_REPEAT = 0.35  # chance that an object is of a class already in the scene
_CROWDED = 0.35  # share of scenes in which objects may overlap
_LINE_ODDS = np.cumsum([0.35, 0.45, 0.20])  # 0, 1, 2 lines of text


@dataclass(frozen=True)
class Composition:
    """A drawn scene before it is put into words.

    picture: RGB.
    labels, corners, masks, visible: one entry per object, in the order of `Annotation.objects`: the class; (x, y) of
    the top left
        pixel of the mask; the part in sight, bool[h, w], cropped to its box; the share of the object that this part is.
    lines: words, from top to bottom.
    background: its description. stuff: what it shows.
    """

    picture: Image.Image
    labels: tuple[str, ...]
    corners: tuple[tuple[int, int], ...]
    masks: tuple[np.ndarray, ...]
    lines: tuple[TextLine, ...]
    background: str
    visible: tuple[float, ...]
    stuff: tuple[Stuff, ...] = ()


def compose(
    rng: np.random.Generator, styles: tuple[str, ...], size_wh: tuple[int, int], variety: Variety = PLAIN
) -> Composition:
    """Draw one scene, its artwork all in one of the styles.

    Objects are sorted by the left edge, then the top edge, of the visible box. There is at least one, unless the words
    leave no room for it.
    """
    artwork = [load_style(style) for style in styles][int(rng.integers(len(styles)))]  # a missing style fails at once
    picture, background, stuff = draw_background(rng, size_wh)
    taken = np.zeros((size_wh[1], size_wh[0]), bool)
    lines = [line for _ in range(_draw_from(_LINE_ODDS, rng)) if (line := draw_line(rng, picture, taken, variety))]
    lines.sort(key=lambda line: (min(line.quad[1::2]), min(line.quad[::2])))

    wanted = 1 + _draw_from(_COUNT_ODDS, rng)
    largest = _LARGEST - 0.035 * (wanted - 1)
    canvas = _Canvas(picture, taken, may_overlap=rng.random() < _CROWDED)
    labels = canvas.labels
    failures = 0
    while len(labels) < wanted:
        repeat = labels and rng.random() < _REPEAT
        label = labels[int(rng.integers(len(labels)))] if repeat else CLASSES[int(rng.integers(len(CLASSES)))]
        side = min(size_wh) * _SMALLEST * (largest / _SMALLEST) ** rng.random()
        if not canvas.place(rng, label, _sprite(rng, artwork[label], side)):
            failures += 1
            largest = max(_SMALLEST, 0.85 * largest)
            if labels or failures >= _TRIES:  # rather one small object than none
                wanted -= 1

    objects = sorted(
        zip(map(canvas.visible_part, range(len(labels))), labels, strict=True), key=lambda item: item[0][0]
    )
    return Composition(
        picture=picture,
        labels=tuple(label for _, label in objects),
        corners=tuple(corner for (corner, _, _), _ in objects),
        masks=tuple(mask for (_, mask, _), _ in objects),
        visible=tuple(share for (_, _, share), _ in objects),
        lines=tuple(lines),
        background=background,
        stuff=stuff,
    )


def _draw_from(odds: np.ndarray, rng: np.random.Generator) -> int:
    """An index drawn by cumulative odds that end at 1."""
    return int(np.searchsorted(odds, rng.random() * odds[-1], side="right"))


def _sprite(rng: np.random.Generator, artwork: Image.Image, side: float) -> Image.Image:
    """The artwork, `side` pixels long before turning, perhaps mirrored, turned, with other brightness and contrast."""
    scale = side / max(artwork.size)
    size = [max(2, round(scale * length)) for length in artwork.size]
    if rng.random() < 0.5:
        artwork = artwork.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    sprite = artwork.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    if rng.random() < 0.7:
        angle = float(np.clip(rng.normal(0, _TURN / 2), -_TURN, _TURN))
        sprite = sprite.rotate(angle, Image.Resampling.BILINEAR, expand=True)
    contrast, brightness = rng.uniform(0.8, 1.15), rng.uniform(-18, 18)
    tones = np.clip((np.arange(256) - 128) * contrast + 128 + brightness, 0, 255).astype(np.uint8)
    pixels = np.array(sprite)
    pixels[..., :3] = tones[pixels[..., :3]]
    return Image.fromarray(pixels)


class _Canvas:
    """The picture so far and which object is on top at each of its pixels."""

    def __init__(self, picture: Image.Image, words: np.ndarray, may_overlap: bool):
        """words: bool[H, W], where no object may go. may_overlap: whether objects may cover other classes."""
        self.picture = picture
        self.may_overlap = may_overlap
        self.owner = np.where(
            words, np.int8(MAX_OBJECTS), np.int8(-1)
        )  # object index; MAX_OBJECTS: words; -1: background
        self.labels: list[str] = []
        self.whole: list[int] = []  # pixels of each object, hidden ones included
        self.in_sight: list[int] = []

    def place(self, rng: np.random.Generator, label: str, sprite: Image.Image) -> bool:
        """Draw the sprite at a random place where every object, this one included, keeps `MIN_VISIBLE` of its pixels.

        Objects of one class never overlap. False, with nothing drawn, when no such place was found.
        """
        solid = np.asarray(sprite.getchannel("A")) > 127
        whole = int(np.count_nonzero(solid))
        beyond = 0.15 if rng.random() < 0.15 else 0.0  # share of the sprite's side that may lie outside the picture
        for _ in range(_TRIES):
            left, top = (
                int(rng.uniform(-beyond * side, max(full - (1 - beyond) * side, 1 - beyond * side)))
                for full, side in zip(self.picture.size, sprite.size, strict=True)
            )
            x0, y0 = max(left, 0), max(top, 0)
            under = self.owner[y0 : top + sprite.height, x0 : left + sprite.width]
            mask = solid[y0 - top :, x0 - left :][: under.shape[0], : under.shape[1]]
            covered = under[mask]
            lost = np.bincount(covered[covered >= 0], minlength=MAX_OBJECTS + 1).tolist()
            if lost[MAX_OBJECTS] or (any(lost) and not self.may_overlap) or covered.size < max(MIN_VISIBLE * whole, 1):
                continue
            if any(gone and other == label for gone, other in zip(lost, self.labels, strict=False)):
                continue  # nobody could tell where one ends and the other begins
            remaining = [seen - gone for seen, gone in zip(self.in_sight, lost, strict=False)]
            if any(seen < MIN_VISIBLE * full for seen, full in zip(remaining, self.whole, strict=True)):
                continue
            under[mask] = len(self.labels)
            self.picture.paste(sprite, (left, top), sprite)
            self.labels.append(label)
            self.whole.append(whole)
            self.in_sight = [*remaining, covered.size]
            return True
        return False

    def visible_part(self, index: int) -> tuple[tuple[int, int], np.ndarray, float]:
        """An object's (x, y) of the top left pixel in sight, mask bool[h, w] cropped to its box, and share in sight."""
        mask = self.owner == index
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        crop = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return (int(columns[0]), int(rows[0])), crop, self.in_sight[index] / self.whole[index]
