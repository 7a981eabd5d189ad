"""The answers about the tiles of an image as one answer about the image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from florence_lite.answers import Box, Instance, set_frozen
from florence_lite.cards import TaskCard
from florence_lite.geometry import box_area, box_iou, clip_ring, mask_to_rings, polygon_area, rasterize
from florence_lite.inference.answering import joined
from florence_lite.inference.stitching import stitched
from florence_lite.results import Result

AT_BORDER = 0.015  # of a tile's longer side: what comes so near to a border counts as cut by it
AGREE = 0.5  # the least agreement of two instances that are the same thing
SLACK = 0.25  # of the height of a line of text, by which another view of it may be higher
CUT_LETTER = 0.1  # of a letter, which is not missed at the end of a view that a border cuts

TileBox = tuple[int, int, int, int]
"""x0 y0 x1 y1 of a tile, in pixels of the image."""


def merged(
    parts: Sequence[Result],
    tiles: Sequence[TileBox],
    size_wh: tuple[int, int],
    overlap: int,
    whole: Result | None,
    card: TaskCard,
) -> Result:
    """One answer about an image of size_wh pixels from those about its tiles, which share `overlap` pixels at least.

    parts: of each tile, in pixels of the tile. whole: the answer about the whole image, of which only what is longer or
        higher than the overlap counts: the tiles see all else whole and at a higher resolution.

    Instances of different tiles are the same thing where they have the same label (of text, and of regions with
    descriptions of their own, whatever it is) and agree in what both tiles see of them. Of the same thing seen several
    times one remains: one that no inner border of the tiles cuts before one that is cut, then the surest. If all are
    cut, they become the box round them, the union of their outlines or one line of text (`stitching.stitched`), with
    the score of the surest. A cut part is left out, and counted in `dropped`, where another tile sees all of it and its
    surroundings and finds nothing of the kind there: networks take parts for things.

    Lines of text come from top to bottom, all else in the order of the tiles, row by row. The ids and log-probabilities
    of the tiles stand behind each other, and an instance that was put together has no place in them; parse errors and
    dropped instances are summed. The presence of a phrase is that in the tile, or the whole, where it is most likely,
    and it is absent where all of them say so.
    """
    parts = [_moved(part, tile) for part, tile in zip(parts, tiles, strict=True)]
    tiles = list(tiles)
    if whole is not None:
        kept = [item for item in whole.instances if item.bounds is not None and max(_sides(item.bounds)) > overlap]
        parts.append(replace(whole, instances=tuple(kept)))
        tiles.append((0, 0, *size_wh))
    together = joined([replace(part, size_wh=size_wh) for part in parts])
    items = iter(together.instances)
    seen = [
        _Seen(next(items), tile, tile == (0, 0, *size_wh), size_wh)
        for part, tile in zip(parts, tiles, strict=True)
        for _ in part.instances
    ]
    is_text = card.grammar == "labelled_quads"
    described = is_text or card.rule == "detection.descriptions"
    groups = _groups(seen, described)
    believed = [group for group in groups if not _is_refuted(group, tiles)]
    instances = [item for group in believed for item in (_line if is_text else _things)(group)]
    if is_text:
        instances.sort(key=lambda item: item.bounds[1::-1])
    dropped = together.dropped + len(groups) - len(believed)
    presence = {phrase: max(part.presence.get(phrase, 0) for part in parts) for phrase in together.presence}
    absent = tuple(phrase for phrase in presence if all(phrase in part.absent for part in parts))
    return replace(together, instances=tuple(instances), dropped=dropped, presence=presence, absent=absent)


# ---- what is the same thing ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Seen:
    """An instance in pixels of the image, as it was seen in a tile or in the whole."""

    item: Instance
    tile: TileBox
    in_whole: bool
    size_wh: tuple[int, int]
    bounds: np.ndarray = field(init=False)
    cut_sides: np.ndarray = field(init=False)  # bool[4]: left, top, right, bottom
    cuts: int = field(init=False)
    is_upright: bool = field(init=False)  # it fills the box round it

    def __post_init__(self):
        bounds, tile = np.array(self.item.bounds), np.array(self.tile)
        inner = tile != (0, 0, *self.size_wh)  # sides that are no border of the image
        set_frozen(self, "bounds", bounds)
        set_frozen(self, "cut_sides", inner & (np.abs(bounds - tile) <= self.tolerance))
        set_frozen(self, "cuts", int(self.cut_sides.sum()))
        area = sum(polygon_area(ring) for ring in self.item.outlines)
        set_frozen(self, "is_upright", area > 0.99 * box_area(bounds))

    @property
    def tolerance(self) -> float:
        """Pixels by which borders may be missed."""
        return AT_BORDER * max(_sides(self.tile))

    @property
    def rank(self) -> tuple[int, bool, float]:
        """Sorts the best view first."""
        return self.cuts, self.in_whole, -(self.item.score or 0)

    def covers(self, other: _Seen) -> bool:
        """Whether another view of a line of text shows no letter beyond this one, as far as its ends tell: those that a
        border cuts end in the middle of a letter. The other view may be a little higher."""
        along = np.argmax(_sides(self.bounds)) == np.array([0, 1, 0, 1])
        letter = _sides(other.bounds)[0 if along[0] else 1] / max(1, len(other.item.label))
        slack = np.full(4, self.tolerance + SLACK * min(_sides(self.bounds)))
        slack[along] = np.where(self.cut_sides, CUT_LETTER, 1)[along] * letter
        return bool((np.array([1, 1, -1, -1]) * (self.bounds - other.bounds) <= slack).all())


def _groups(seen: Sequence[_Seen], whatever_label: bool) -> list[list[_Seen]]:
    """The views of each thing, in the order in which the things were first seen."""
    leader = list(range(len(seen)))

    def find(place: int) -> int:
        while leader[place] != place:
            place = leader[place]
        return place

    for place, partners in enumerate(_candidates(seen)):
        best: dict[TileBox, tuple[float, int]] = {}  # in every other tile, what agrees with it most
        for other in partners:
            if whatever_label or seen[other].item.label == seen[place].item.label:
                agreement = _agreement(seen[place], seen[other])
                best[seen[other].tile] = max(best.get(seen[other].tile, (AGREE, -1)), (agreement, other))
        for _, other in best.values():
            if other >= 0:
                low, high = sorted((find(place), find(other)))
                leader[high] = low
    groups: dict[int, list[_Seen]] = {}
    for place, each in enumerate(seen):
        groups.setdefault(find(place), []).append(each)
    return list(groups.values())


def _is_refuted(group: Sequence[_Seen], tiles: Sequence[TileBox]) -> bool:
    """Whether it is a single cut part, in the midst of another tile that did not see it."""
    [part, *others] = group
    if others or not part.cuts:
        return False
    size_wh, tolerance = part.size_wh, part.tolerance
    return any(
        tile not in (part.tile, (0, 0, *size_wh))
        and all(low == 0 or near > low + tolerance for near, low in zip(part.bounds[:2], tile[:2], strict=True))
        and all(
            high == side or far < high - tolerance
            for far, high, side in zip(part.bounds[2:], tile[2:], size_wh, strict=True)
        )
        for tile in tiles
    )


def _candidates(seen: Sequence[_Seen]) -> Iterable[list[int]]:
    """For each one the places of those in other tiles that come near it."""
    boxes = np.array([each.bounds for each in seen]).reshape(-1, 4)
    tiles = np.array([each.tile for each in seen]).reshape(-1, 4)
    for each in seen:
        meets = (boxes[:, :2] <= each.bounds[2:] + 2 * each.tolerance).all(1)
        meets &= (boxes[:, 2:] >= each.bounds[:2] - 2 * each.tolerance).all(1)
        yield np.flatnonzero(meets & (tiles != each.tile).any(1)).tolist()


def _agreement(a: _Seen, b: _Seen) -> float:
    """How well what both tiles see of two instances agrees, from 0 to 1: the IoU of the boxes round it.

    Across a strip of the tiles that is thinner than what can be told of places, to reach it is enough. A part that a
    border cuts agrees with what holds it, too, where the other tile sees most of it.
    """
    low, high = np.maximum(a.tile[:2], b.tile[:2]), np.minimum(a.tile[2:], b.tile[2:])
    tolerance = max(a.tolerance, b.tolerance)
    thin = high - low <= 4 * tolerance
    if (high < low).any() or thin.all():
        return 0.0
    window = (*np.where(thin, low - tolerance, low), *np.where(thin, high + tolerance, high))
    in_a, in_b = _within(a, window), _within(b, window)
    if in_a is None or in_b is None:
        return 0.0
    agreement = 0.0
    for part, in_part, in_other in ((a, in_a, in_b), (b, in_b, in_a)):
        if part.cuts and box_area(in_part) >= box_area(part.bounds) / 2:
            agreement = max(agreement, _share(in_part, in_other))
    across = np.tile(thin, 2)
    in_a[across] = in_b[across] = np.repeat([0, 1], 2)[across]
    return max(agreement, float(box_iou(in_a, in_b)[0, 0]))


def _within(seen: _Seen, window: Box) -> np.ndarray | None:
    """The box float64[4] round what lies in a window; None where nothing does."""
    low, high = np.maximum(seen.bounds[:2], window[:2]), np.minimum(seen.bounds[2:], window[2:])
    if (low > high).any():
        return None
    if seen.is_upright:
        return np.concatenate([low, high])
    points = np.concatenate([clip_ring(ring, window) for ring in seen.item.outlines])
    return np.concatenate([points.min(0), points.max(0)]) if len(points) else None


def _share(part: np.ndarray, of: np.ndarray) -> float:
    """How much of a box lies in another one."""
    shared = box_area(np.concatenate([np.maximum(part[:2], of[:2]), np.minimum(part[2:], of[2:])]))
    area = box_area(part)
    return float(shared / area) if area else 0.0


# ---- one of several views --------------------------------------------------------------------------------------------


def _things(group: Sequence[_Seen]) -> list[Instance]:
    """What a group of views shows: what was seen uncut, as often as a single tile saw it, else the union of all."""
    whole: list[_Seen] = []
    for view in sorted(group, key=lambda view: view.rank):
        if not view.cuts and all(view.tile == each.tile or _agreement(view, each) < AGREE for each in whole):
            whole.append(view)
    return [each.item for each in whole] or [_union([view.item for view in group])]


def _union(items: Sequence[Instance]) -> Instance:
    """Parts of one thing as one: the box round them, or the union of their outlines; the score of the surest."""
    surest = max(items, key=lambda item: item.score or 0)
    if len(items) == 1:
        return surest
    bounds = np.array([item.bounds for item in items])
    (x0, y0), (x1, y1) = bounds[:, :2].min(0), bounds[:, 2:].max(0)
    if not all(item.polygons for item in items):
        return replace(surest, box=(x0, y0, x1, y1), quad=None, polygons=(), tokens=None, coords_at=None)
    corner = np.floor([x0, y0])
    width, height = (int(side) for side in np.ceil([x1, y1]) - corner + 1)
    mask = np.zeros((height, width), dtype=bool)
    for item in items:
        mask |= rasterize([np.array(ring) - corner for ring in item.polygons], (width, height))
    rings = mask_to_rings(mask) if mask.any() else ()
    polygons: Any = [(ring + corner).tolist() for ring in rings] or surest.polygons
    return replace(surest, polygons=polygons, tokens=None, coords_at=None)


def _line(group: Sequence[_Seen]) -> list[Instance]:
    """The line of text that a group of views shows."""
    kept: list[_Seen] = []
    for view in sorted(group, key=lambda view: view.rank):
        if not any(each.covers(view) for each in kept):
            kept = [each for each in kept if not view.covers(each)] + [view]
    return [kept[0].item if len(kept) == 1 else stitched([each.item for each in kept])]


# ---- places ----------------------------------------------------------------------------------------------------------


def _moved(part: Result, tile: TileBox) -> Result:
    """An answer about a tile in pixels of the image. What has no place in the tile is no place in the image."""
    return replace(
        part, instances=tuple(_shifted(item, *tile[:2]) for item in part.instances if item.bounds is not None)
    )


def _shifted(item: Instance, x: float, y: float) -> Instance:
    moved: dict[str, Any] = {
        "box": None if item.box is None else np.array(item.box) + (x, y, x, y),
        "quad": None if item.quad is None else np.array(item.quad) + np.tile((x, y), 4),
        "polygons": [[(px + x, py + y) for px, py in ring] for ring in item.polygons],
    }
    return replace(item, **moved)


def _sides(box: Box | TileBox | np.ndarray) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]
