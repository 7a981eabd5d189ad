"""Pixels and bins, boxes, polygons and masks.

Pixel coordinates are floats, x to the right and y down, with the image covering [0, width] × [0, height]; the centre
of the top-left pixel is (0.5, 0.5). A *ring* is a closed outline float[n, 2] whose last point joins its first;
several rings together enclose the points that lie inside an odd number of them (even-odd rule), so a hole is simply
a further ring.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def quantize(points_px: ArrayLike, size_wh: tuple[float, float], bins: int) -> NDArray[np.int64]:
    """The bins that points fall into: `clamp(floor(c / (size / bins)), 0, bins - 1)`.

    points_px: float[..., 2], pixels, x y (a box x0 y0 x1 y1 is two points). Points outside the image go to its border.
    size_wh: width and height of the image in pixels.
    Returns int64[..., 2]. Raises ValueError for a coordinate that is not finite.
    """
    points = np.asarray(points_px, dtype=np.float64)
    if not np.isfinite(points).all():
        raise ValueError(f"points_px holds {points[~np.isfinite(points)][0]}; coordinates must be finite")
    cells = np.floor(points / _bin_size(size_wh, bins))
    return np.clip(cells, 0, bins - 1).astype(np.int64)


def dequantize(point_bins: ArrayLike, size_wh: tuple[float, float], bins: int) -> NDArray[np.float64]:
    """The centres of bins in pixels, `(bin + 0.5) · size / bins`; `quantize` gives every bin back exactly.

    point_bins: int[..., 2], x y, each in [0, bins), or float for places between centres. Returns float64[..., 2].
    """
    return (np.asarray(point_bins, dtype=np.float64) + 0.5) * _bin_size(size_wh, bins)


def _bin_size(size_wh: tuple[float, float], bins: int) -> NDArray[np.float64]:
    width, height = size_wh
    if not (width > 0 and height > 0):
        raise ValueError(f"size_wh is {tuple(size_wh)}; width and height must be positive")
    return np.array([width, height], dtype=np.float64) / bins


def box_area(boxes_xyxy: ArrayLike) -> NDArray[np.float64]:
    """Areas float64[...] of boxes float[..., 4], x0 y0 x1 y1; an inverted box has area 0."""
    boxes = np.asarray(boxes_xyxy, dtype=np.float64)
    return np.clip(boxes[..., 2:] - boxes[..., :2], 0, None).prod(-1)


def box_iou(a_xyxy: ArrayLike, b_xyxy: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of every pair: float[N, 4] and float[M, 4] → float64[N, M]; two empty boxes have 0."""
    a = np.asarray(a_xyxy, dtype=np.float64).reshape(-1, 4)
    b = np.asarray(b_xyxy, dtype=np.float64).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])  # [N, M, 2]
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])  # [N, M, 2]
    shared = np.clip(high - low, 0, None).prod(-1)
    union = box_area(a)[:, None] + box_area(b)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def non_maximum_suppression(boxes_xyxy: ArrayLike, scores: ArrayLike, iou: float) -> NDArray[np.int64]:
    """The places of the boxes that remain, in ascending order, when each one leaves out all that score less than it (of
    equal scores: that come later) and that it overlaps by an IoU of more than `iou`.

    boxes_xyxy: float[N, 4]. scores: float[N].
    """
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    remaining = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    kept = []
    while len(remaining):
        best, *_ = remaining
        kept.append(best)
        remaining = remaining[1:]
        remaining = remaining[box_iou(boxes[[best]], boxes[remaining])[0] <= iou]
    return np.sort(np.array(kept, dtype=np.int64))


def polygon_area(ring: ArrayLike) -> float:
    """Area enclosed by one ring float[n, 2] that does not cross itself (shoelace formula), never negative."""
    x, y = np.asarray(ring, dtype=np.float64).reshape(-1, 2).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def from_xywh(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    """x0 y0 x1 y1 of a box that is given by its top left corner and its size, as COCO does."""
    return x, y, x + width, y + height


def from_cxcywh(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    """x0 y0 x1 y1 of a box that is given by its centre and its size, as YOLO does."""
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


OUTLINE_TOLERANCE = 0.015  # how far a thinned outline may leave the true one, as a share of the image's shorter side
CORNERS = 4  # points of a thinned outline that are kept as they are: triangles and quadrilaterals are their corners
EVEN_POINTS = 20  # of any other outline, or as many as its thinned one has; 0.93 IoU with the outlines of emoji
FEWEST_POINTS = 6  # of a small part or hole beside it


def thinned_outlines(rings: Sequence[ArrayLike], size_wh: tuple[int, int]) -> list[NDArray[np.float64]]:
    """The rings, each float[n, 2] pixels, with so few points that a small network can be asked to write them.

    Those that are nowhere wide enough are left out. size_wh: of the image.
    """
    thin = (simplify_ring(np.asarray(ring), OUTLINE_TOLERANCE * min(size_wh)) for ring in rings)
    return [ring for ring in thin if len(ring) >= 3]


def even_outlines(rings: Sequence[ArrayLike], size_wh: tuple[int, int]) -> list[NDArray[np.float64]]:
    """The rings, each float[n, 2] pixels, as a small network can be asked to write them: few points at even distances,
    clockwise from the topmost one.

    Where thinning leaves points, and how many, hangs on details that a network does not see; where the next of evenly
    spaced points lies, and which is the last, it can tell. All rings have the spacing of the longest. Outlines of few
    corners are these. Those that are nowhere wide enough are left out. size_wh: of the image.
    """
    found = [
        (np.asarray(ring, dtype=np.float64), thinned) for ring in rings for thinned in thinned_outlines([ring], size_wh)
    ]
    lengths = [_lengths(ring)[-1] for ring, _ in found]
    if not found:
        return []
    longest = int(np.argmax(lengths))
    spacing = lengths[longest] / max(EVEN_POINTS, len(found[longest][1]))
    even = []
    for (ring, thinned), length in zip(found, lengths, strict=True):
        if len(thinned) <= CORNERS:
            even.append(_clockwise(thinned))
            continue
        ring = _clockwise(ring)
        count = max(FEWEST_POINTS, round(length / spacing))
        along, closed, known = np.arange(count) * length / count, np.concatenate([ring, ring[:1]]), _lengths(ring)
        even.append(np.stack([np.interp(along, known, closed[:, axis]) for axis in (0, 1)], axis=1))
    return even


def _lengths(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """float[n + 1]: how long the outline is up to each point, and round to the first again."""
    x, y = np.concatenate([ring, ring[:1]]).T
    return np.concatenate([[0.0], np.cumsum(np.sqrt(np.diff(x) ** 2 + np.diff(y) ** 2))])


def _clockwise(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ring clockwise, as one sees it with y downwards, from its topmost point, the leftmost of several."""
    x, y = ring.T
    if np.dot(x, np.roll(y, -1)) < np.dot(y, np.roll(x, -1)):
        ring = ring[::-1]
    return np.roll(ring, -np.lexsort(ring.T)[0], axis=0)


def rasterize(rings: Sequence[ArrayLike], size_wh: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask bool[height, width] of the pixels whose centre lies inside an odd number of rings, each float[n, 2]."""
    width, height = size_wh
    mask = np.zeros((height, width), dtype=bool)
    window, inside = rasterize_window(rings, size_wh)
    mask[window] = inside
    return mask


def rasterize_window(
    rings: Sequence[ArrayLike], size_wh: tuple[int, int]
) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """The part of `rasterize`'s mask that holds its pixels: (rows, columns) of the image, and bool[h, w] for these.

    What lies small in a large image takes little memory so.
    """
    width, height = size_wh
    nothing = (slice(0, 0), slice(0, 0)), np.zeros((0, 0), dtype=bool)
    starts = [np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in rings]
    if not starts:
        return nothing
    x0, y0 = np.concatenate(starts).T  # [E]
    x1, y1 = np.concatenate([np.roll(start, -1, axis=0) for start in starts]).T  # [E]

    # An edge crosses the centre line of a row (y = row + 0.5) for the rows first ≤ row < last.
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64)
    crossings = last - first
    edge = np.repeat(np.arange(len(first)), crossings)  # [C]
    if not len(edge):
        return nothing
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(crossings) - crossings, crossings)
    x = x0[edge] + (row + 0.5 - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)

    # Every crossing flips all pixels to its right: flips are marked, then summed along the row (modulo 2).
    top, left = row.min(), column.min()
    window = np.zeros((row.max() - top + 1, column.max() - left + 1), dtype=np.uint8)
    np.bitwise_xor.at(window, (row - top, column - left), 1)
    inside = np.bitwise_xor.accumulate(window, axis=1).astype(bool)[:, : width - left]
    return (slice(top, top + inside.shape[0]), slice(left, left + inside.shape[1])), inside


def solid_rings(rings: Sequence[ArrayLike], size_wh: tuple[int, int]) -> list[NDArray[np.float64]]:
    """Those of a shape's outlines that enclose something which the larger ones do not, largest first: without holes."""
    ordered = sorted((np.asarray(ring, dtype=np.float64) for ring in rings), key=polygon_area, reverse=True)
    if len(ordered) == 1:
        return ordered
    covered = np.zeros(size_wh[::-1], dtype=bool)
    parts: list[NDArray[np.float64]] = []
    for ring in ordered:
        inside = rasterize([ring], size_wh)
        if not parts or (inside & ~covered).sum() * 2 > inside.sum():
            parts.append(ring)
            covered |= inside
    return parts


def joined_ring(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """One ring float[n, 2] through all parts: from each to the next and, at the end, all the way back."""
    closed = [np.concatenate([part, part[:1]]) for part in parts] if len(parts) > 1 else list(parts)
    return np.concatenate(closed + [part[:1] for part in parts[-2:0:-1]])


def mask_iou(a: ArrayLike, b: ArrayLike) -> float:
    """Intersection over union of two masks bool[H, W]; 0 where both are empty."""
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0


def mask_to_rle(mask: ArrayLike) -> dict[str, list[int]]:
    """COCO's uncompressed run lengths of a mask bool[H, W]: column by column, the number of False pixels first."""
    mask = np.asarray(mask, dtype=bool)
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [len(pixels)]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if len(pixels) and pixels[0] else counts}


def mask_to_rings(mask: ArrayLike, tolerance: float = 1.0) -> tuple[NDArray[np.float64], ...]:
    """The outlines of a mask bool[H, W]: outer rings and holes, float64[n, 2] pixels, for the even-odd rule.

    Outlines run along the edges of the pixels, so that `rasterize(mask_to_rings(mask, 0), size_wh)` is the mask
    again; pixels that only touch at a corner belong to different rings. With a tolerance (pixels) the one-pixel steps
    of slanted outlines are levelled, each ring is thinned by the Douglas-Peucker method, and rings that are nowhere
    wider than the tolerance vanish; the largest always stays. Polygons come largest first: a ring before its holes.
    """
    mask = np.asarray(mask, dtype=bool)
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {mask.shape}; one mask bool[H, W] is needed")
    rings = sorted(_trace(mask), key=polygon_area, reverse=True)
    if tolerance <= 0:
        return tuple(rings)
    thinned = [simplify_ring(_level_steps(ring), tolerance) for ring in rings]
    return tuple(ring for ring in thinned if len(ring) >= 3) or tuple(rings[:1])


def _trace(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """The closed pixel-edge outlines of a mask, corner by corner.

    A corner is a grid point where the outline turns. Along a grid line the corners alternate between the start and
    the end of a straight piece of outline, so sorting them by row pairs them horizontally and sorting them by column
    pairs them vertically; following the two pairings in turn walks round a ring. Where two pixels touch only
    diagonally, two rings turn in one point: such a point is listed twice.
    """
    padded = np.pad(mask, 1)
    top_left, top_right = padded[:-1, :-1], padded[:-1, 1:]  # the four pixels round grid point (y, x)
    bottom_left, bottom_right = padded[1:, :-1], padded[1:, 1:]
    touching = (top_left == bottom_right) & (top_right == bottom_left) & (top_left != top_right)
    turns = top_left ^ top_right ^ bottom_left ^ bottom_right
    y, x = np.nonzero(turns | touching)  # row by row
    times = 1 + touching[y, x]
    y, x = np.repeat(y, times), np.repeat(x, times)
    second = np.zeros(len(x), dtype=bool)  # the second listing of a point: it takes the piece of outline to its right
    second[1:] = (y[1:] == y[:-1]) & (x[1:] == x[:-1])
    takes_lower = np.where(touching[y, x], second ^ top_right[y, x], False)

    by_column = np.lexsort((takes_lower, y, x))
    across = np.arange(len(x)) ^ 1
    down = np.empty(len(x), dtype=np.int64)
    down[by_column] = by_column[np.arange(len(x)) ^ 1]

    along_row, along_column = across.tolist(), down.tolist()
    corners = np.stack([x, y], axis=1).astype(np.float64)
    seen = [False] * len(across)
    rings = []
    for start in range(len(across)):
        if seen[start]:
            continue
        ring, corner = [], start
        while not seen[corner]:
            ring += [corner, along_row[corner]]
            seen[corner] = seen[along_row[corner]] = True
            corner = along_column[along_row[corner]]
        rings.append(corners[ring])
    return rings


def _level_steps(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put the middle of every step of one pixel, a left turn and then a right turn or the reverse, in its place.

    A slanted outline runs through these middles; its corners lie up to a pixel apart across it, which would use up the
    tolerance of the thinning.
    """
    pieces = np.roll(ring, -1, axis=0) - ring  # from each corner to the next
    before = np.roll(pieces, 1, axis=0)
    turns = before[:, 0] * pieces[:, 1] > before[:, 1] * pieces[:, 0]
    steps = (np.abs(pieces).sum(1) == 1) & (turns != np.roll(turns, -1))
    corners = ~steps & ~np.roll(steps, 1)
    candidates = np.stack([ring, ring + pieces / 2], axis=1)  # [n, 2, 2]
    return candidates[np.stack([corners, steps], axis=1)]


def simplify_ring(ring: ArrayLike, tolerance: float) -> NDArray[np.float64]:
    """The points of a ring float[n, 2] that outline it within a tolerance in pixels: no dropped point is farther
    than that from the line that replaces it. Fewer than 3 points remain of a ring that is nowhere wider.

    The ring is cut at its first point and at the point farthest from it, and each half thinned.
    Source: Douglas and Peucker 1973, doi:10.3138/FM57-6770-U75U-7727.
    """
    ring = np.asarray(ring, dtype=np.float64).reshape(-1, 2)
    x, y = np.concatenate([ring, ring[:1]]).T.copy()
    far = int(_squared_distance(x[:-1], y[:-1], 0, 0).argmax())
    keep = np.zeros(len(x), dtype=bool)
    keep[[0, far]] = True
    pieces = [(0, far), (far, len(ring))]
    while pieces:
        start, end = pieces.pop()
        if end - start < 2:
            continue
        squared = _squared_distance(x, y, start, end)
        farthest = int(squared.argmax())
        if squared[farthest] > tolerance**2:
            middle = start + farthest
            keep[middle] = True
            pieces += [(start, middle), (middle, end)]
    return ring[keep[:-1]]


def clip_ring(ring: ArrayLike, box_xyxy: tuple[float, float, float, float]) -> NDArray[np.float64]:
    """The part of a ring float[n, 2] that lies in a box, as a ring float[m, 2]; m is 0 where nothing does.

    Parts that the box separates stay joined along its border, by lines that enclose nothing.
    Source: Sutherland and Hodgman 1974, doi:10.1145/360767.360802.
    """
    points = np.asarray(ring, dtype=np.float64).reshape(-1, 2)
    x0, y0, x1, y1 = box_xyxy
    for axis, border, inward in ((0, x0, 1), (0, x1, -1), (1, y0, 1), (1, y1, -1)):
        depth = inward * (points[:, axis] - border)
        before, start = np.roll(depth, 1), np.roll(points, 1, axis=0)  # of the edge that ends in each point
        crosses = before * depth < 0
        share = np.divide(before, before - depth, out=np.zeros_like(depth), where=crosses)
        crossing = start + share[:, None] * (points - start)
        crossing[:, axis] = border
        points = np.stack([crossing, points], axis=1)[np.stack([crosses, depth >= 0], axis=1)]
        along = points[:, axis] == border  # of several points in a row only the ends matter; all of them: no area
        points = points[~(along & np.roll(along, 1) & np.roll(along, -1))]
    return points


def _squared_distance(x: NDArray, y: NDArray, start: int, end: int) -> NDArray[np.float64]:
    """Of the points from `start` to before `end` to the segment between these two, float; of all if they are one."""
    x0, y0, x1, y1 = float(x[start]), float(y[start]), float(x[end]), float(y[end])
    piece = slice(start, end) if end > start else slice(None)
    right, down = x[piece] - x0, y[piece] - y0
    if length_squared := (x1 - x0) ** 2 + (y1 - y0) ** 2:
        share = (right * (x1 - x0) + down * (y1 - y0)) / length_squared
        np.minimum(np.maximum(share, 0, out=share), 1, out=share)
        right -= share * (x1 - x0)
        down -= share * (y1 - y0)
    return right * right + down * down
