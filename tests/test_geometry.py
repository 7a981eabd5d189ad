import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from florence_lite.geometry import (
    EVEN_POINTS,
    box_area,
    box_iou,
    clip_ring,
    dequantize,
    even_outlines,
    mask_iou,
    mask_to_rings,
    mask_to_rle,
    polygon_area,
    quantize,
    rasterize,
    rasterize_window,
    simplify_ring,
    thinned_outlines,
)

SQUARE = [(1, 1), (3, 1), (3, 3), (1, 3)]
masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))
sizes = st.tuples(st.integers(1, 10_000), st.integers(1, 10_000))


@pytest.mark.parametrize(
    ("point", "size", "bins", "expected"),
    [
        ((0, 0), (640, 480), 1000, (0, 0)),
        ((34.24, 160.08), (640, 480), 1000, (53, 333)),
        ((640, 480), (640, 480), 1000, (999, 999)),  # the far border belongs to the last bin
        ((-5, 10_000), (640, 480), 1000, (0, 999)),
        ((0.999, 0.5), (1, 1), 1000, (999, 500)),
        ((31.9, 32), (64, 64), 10, (4, 5)),  # floor, not round
    ],
)
def test_quantize(point, size, bins, expected):
    assert quantize(point, size, bins).tolist() == list(expected)


def test_quantize_keeps_the_leading_shape():
    boxes = np.array([[[0, 0], [64, 48]], [[32, 24], [64, 48]]])
    assert quantize(boxes, (64, 48), 100).tolist() == [[[0, 0], [99, 99]], [[50, 50], [99, 99]]]
    assert quantize(np.zeros((0, 2)), (64, 48), 100).shape == (0, 2)


@given(sizes, st.sampled_from([1, 10, 224, 1000]))
def test_every_bin_comes_back(size, bins):
    all_bins = np.stack([np.arange(bins)] * 2, axis=1)
    centres = dequantize(all_bins, size, bins)
    assert (quantize(centres, size, bins) == all_bins).all()
    assert (centres > 0).all() and (centres < size).all()


def test_dequantize_gives_centres():
    np.testing.assert_allclose(dequantize([[53, 333]], (640, 480), 1000), [[34.24, 160.08]])


@given(st.floats(0, 640), st.floats(0, 480))
def test_a_point_moves_by_half_a_bin_at_most(x, y):
    moved = dequantize(quantize((x, y), (640, 480), 1000), (640, 480), 1000) - (x, y)
    assert (np.abs(moved) <= np.array([0.32, 0.24]) + 1e-9).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_quantize_refuses_what_is_not_finite(bad):
    with pytest.raises(ValueError, match="must be finite"):
        quantize((bad, 1), (10, 10), 100)


@pytest.mark.parametrize("size", [(0, 10), (10, -1), (10, float("nan"))])
def test_sizes_are_positive(size):
    with pytest.raises(ValueError, match="size_wh"):
        dequantize((1, 1), size, 100)


def test_box_area():
    assert box_area([[0, 0, 4, 5], [2, 2, 2, 9], [3, 3, 1, 1]]).tolist() == [20, 0, 0]


def test_box_iou():
    iou = box_iou([[0, 0, 2, 2], [5, 5, 5, 5]], [[1, 1, 3, 3], [0, 0, 2, 2], [5, 5, 5, 5]])
    np.testing.assert_allclose(iou, [[1 / 7, 1, 0], [0, 0, 0]])


def test_box_iou_of_nothing():
    assert box_iou([], [[0, 0, 1, 1]]).shape == (0, 1)
    assert box_iou(np.zeros((3, 4)), np.zeros((0, 4))).shape == (3, 0)


@pytest.mark.parametrize(
    ("ring", "area"),
    [(SQUARE, 4), (SQUARE[::-1], 4), ([(0, 0), (4, 0), (0, 3)], 6), ([(0, 0), (2, 2), (4, 4)], 0), ([], 0)],
)
def test_polygon_area(ring, area):
    assert polygon_area(ring) == area


@pytest.mark.parametrize(
    ("rings", "rows"),
    [
        ([], ["....", "....", "....", "...."]),
        ([SQUARE], ["....", ".##.", ".##.", "...."]),
        ([SQUARE, SQUARE], ["....", "....", "....", "...."]),  # inside two rings is outside
        ([[(0, 0), (4, 0), (4, 4), (0, 4)], SQUARE], ["####", "#..#", "#..#", "####"]),
        ([[(0.6, 0.6), (2.4, 0.6), (2.4, 1.4), (0.6, 1.4)]], ["....", "....", "....", "...."]),  # no centre inside
        ([[(0, 0), (4, 0), (0, 4)]], ["###.", "##..", "#...", "...."]),
        ([[(-9, -9), (99, -9), (99, 2), (-9, 2)]], ["####", "####", "....", "...."]),
        ([[(9, 0), (12, 0), (12, 4), (9, 4)]], ["....", "....", "....", "...."]),
    ],
)
def test_rasterize(rings, rows):
    assert ["".join(".#"[pixel] for pixel in row) for row in rasterize(rings, (4, 4)).astype(int)] == rows


def test_a_window_holds_the_mask():
    (rows, columns), inside = rasterize_window([SQUARE], (4000, 3000))
    assert inside.shape == (2, 3)  # of the image, not the image
    whole = np.zeros((6, 7), bool)
    whole[rows, columns] = inside
    assert (whole == rasterize([SQUARE], (7, 6))).all() and whole.sum() == 4
    assert rasterize_window([], (7, 6))[1].size == 0
    assert not rasterize_window([[(1, 1), (2, 1), (3, 1)]], (7, 6))[1].any()


def test_rasterize_follows_size_wh():
    assert rasterize([SQUARE], (7, 3)).shape == (3, 7)


coordinate = st.integers(-4, 24).map(lambda third: third / 3)  # thirds never hit the centre of a pixel
polygons = st.lists(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=6), min_size=1, max_size=3)


@given(polygons)
def test_rasterize_agrees_with_counting_crossings_pixel_by_pixel(rings):
    def inside(x, y):
        crossings = 0
        for ring in rings:
            for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
                crossings += (y0 > y) != (y1 > y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x
        return crossings % 2 == 1

    expected = [[inside(x + 0.5, y + 0.5) for x in range(7)] for y in range(6)]
    assert rasterize(rings, (7, 6)).tolist() == expected


U = [(0, 0), (10, 0), (10, 30), (20, 30), (20, 0), (30, 0), (30, 40), (0, 40)]


@pytest.mark.parametrize(
    ("ring", "box", "clipped"),
    [
        (SQUARE, (0, 0, 4, 4), SQUARE),  # inside
        (SQUARE, (1, 1, 3, 3), SQUARE),  # just
        (SQUARE, (4, 0, 9, 9), []),  # outside
        (SQUARE, (3, 0, 9, 9), []),  # touching along an edge
        (SQUARE, (3, 3, 9, 9), []),  # touching in a corner
        ([(0, 0), (4, 2), (0, 4)], (4, 0, 9, 9), []),
        ([(-9, -9), (9, -9), (9, 9), (-9, 9)], (0, 0, 4, 2), [(0, 0), (4, 0), (4, 2), (0, 2)]),  # all round
        ([(-4, 2), (4, 2), (4, 3)], (0, 0, 9, 9), [(0, 2), (4, 2), (4, 3), (0, 2.5)]),  # across
        ([(0, 0), (4, 0), (4, 4), (0, 4)], (2, -1, 9, 2), [(2, 0), (4, 0), (4, 2), (2, 2)]),
        ([(0, 0), (4, 4), (0, 4)], (0, 2, 4, 4), [(0, 2), (2, 2), (4, 4), (0, 4)]),
        ([(0, 0), (2, 2), (4, 0), (4, 4), (0, 4)], (0, 2, 4, 4), [(0, 2), (4, 2), (4, 4), (0, 4)]),  # a dent touches
        (U, (0, 30, 30, 40), [(0, 30), (30, 30), (30, 40), (0, 40)]),  # no trace of its arms
        (U, (12, 0, 18, 28), []),  # between its arms
        (U, (10, 0, 20, 30), []),
        ([], (0, 0, 1, 1), []),
    ],
)
def test_clip_ring(ring, box, clipped):
    found = clip_ring(ring, box)
    assert found.shape == (len(clipped), 2)
    assert {tuple(point) for point in found} == {tuple(point) for point in clipped}
    assert polygon_area(found) == polygon_area(clipped)


def test_parts_that_the_box_separates_stay_joined_along_its_border():
    arms = clip_ring(U, (0, 0, 30, 20))
    assert polygon_area(arms) == 400
    assert rasterize([arms], (30, 40)).tolist() == rasterize([U], (30, 20)).tolist() + [[False] * 30] * 20


box_corners = st.tuples(st.integers(-1, 6), st.integers(-1, 6)).map(sorted).filter(lambda pair: pair[0] < pair[1])


@given(polygons, box_corners, box_corners)
def test_clipping_is_the_same_before_and_after_drawing(rings, across, down):
    """Also of rings that cross themselves. Shifted by what no edge can make up for, none goes through the centre of a
    pixel, where rounding would decide."""
    rings = [np.array(ring) + (2**0.5 / 10, 3**0.5 / 10) for ring in rings]
    window = np.zeros((7, 7), dtype=bool)
    window[max(down[0], 0) : down[1], max(across[0], 0) : across[1]] = True
    clipped = [clip_ring(ring, (across[0], down[0], across[1], down[1])) for ring in rings]
    assert (rasterize(clipped, (7, 7)) == rasterize(rings, (7, 7)) & window).all()


@given(polygons, box_corners, box_corners)
def test_a_clipped_ring_lies_in_the_box_and_needs_no_second_clipping(rings, across, down):
    """Also of rings that touch the box."""
    box = (across[0], down[0], across[1], down[1])
    for ring in rings:
        once = clip_ring(ring, box)
        assert (once >= np.subtract(box[:2], 1e-9)).all() and (once <= np.add(box[2:], 1e-9)).all()
        assert polygon_area(clip_ring(once, box)) == pytest.approx(polygon_area(once))


@given(masks)
def test_outlines_without_tolerance_are_exact(mask):
    rings = mask_to_rings(mask, tolerance=0)
    assert (rasterize(rings, mask.shape[::-1]) == mask).all()
    assert all(len(ring) >= 4 and len(ring) % 2 == 0 for ring in rings)


@pytest.mark.parametrize(
    ("rows", "areas"),
    [
        (["...", "..."], []),
        (["#"], [1]),
        (["###", "#.#", "###"], [9, 1]),  # a ring before its hole
        (["#..", "###", ".##"], [6]),
        (["#.", ".#"], [1, 1]),  # pixels that touch at a corner
        ([".#", "#."], [1, 1]),
        (["#.#", "..#", "..#"], [3, 1]),
    ],
)
def test_outlines(rows, areas):
    mask = np.array([[pixel == "#" for pixel in row] for row in rows])
    assert [polygon_area(ring) for ring in mask_to_rings(mask, tolerance=0)] == areas


@given(masks, st.sampled_from([0.5, 1.0, 2.0]))
def test_thinning_never_loses_a_mask_nor_adds_points(mask, tolerance):
    exact, thinned = mask_to_rings(mask, 0), mask_to_rings(mask, tolerance)
    assert bool(thinned) == bool(mask.any())
    assert sum(map(len, thinned)) <= sum(map(len, exact))
    assert all(len(ring) >= 3 for ring in thinned)


def disc(radius: float, hole: float, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    return (np.hypot(x, y) < radius) & (np.hypot(x, y) >= hole)


def test_a_large_disc_with_a_hole_becomes_few_points():
    mask = disc(400, 150, 1000)
    rings = mask_to_rings(mask)
    assert len(rings) == 2
    assert sum(map(len, rings)) < 120
    assert mask_iou(rasterize(rings, (1000, 1000)), mask) > 0.99


@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 4, 1.2])
def test_a_slanted_rectangle_becomes_four_points(angle):
    y, x = np.mgrid[:300, :300] - 149.6
    mask = (np.abs(x * np.cos(angle) + y * np.sin(angle)) < 100) & (np.abs(y * np.cos(angle) - x * np.sin(angle)) < 60)
    (ring,) = mask_to_rings(mask)
    assert len(ring) == 4
    assert mask_iou(rasterize([ring], (300, 300)), mask) > 0.99


@pytest.mark.parametrize(
    ("ring", "tolerance", "kept"),
    [
        (SQUARE, 0.5, SQUARE),
        ([(0, 0), (2, 0.4), (4, 0), (4, 4), (0, 4)], 0.5, [(0, 0), (4, 0), (4, 4), (0, 4)]),
        ([(0, 0), (2, 0.6), (4, 0), (4, 4), (0, 4)], 0.5, [(0, 0), (2, 0.6), (4, 0), (4, 4), (0, 4)]),
        ([(0, 0), (9, 0), (9, 0.4), (0, 0.4)], 0.5, [(0, 0), (9, 0.4)]),  # too thin for the tolerance
        ([(0, 0), (0, 0), (0, 0)], 0.5, [(0, 0)]),
    ],
)
def test_simplify_ring(ring, tolerance, kept):
    assert simplify_ring(ring, tolerance).tolist() == [list(point) for point in kept]


def test_specks_vanish_beside_something_larger():
    mask = disc(10, 0, 40)
    mask[0, 0] = True
    assert len(mask_to_rings(mask, 0)) == 2
    assert len(mask_to_rings(mask, 1.0)) == 1


def test_one_mask_at_a_time():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\)"):
        mask_to_rings(np.zeros((2, 3, 4), bool))


def test_mask_iou():
    a, b = np.zeros((2, 4, 4), bool)
    assert mask_iou(a, b) == 0
    a[:2], b[1:3] = True, True
    assert mask_iou(a, b) == pytest.approx(1 / 3)


@given(masks)
def test_run_lengths_say_the_mask(mask):
    rle = mask_to_rle(mask)
    values = np.arange(len(rle["counts"])) % 2 == 1
    assert rle["size"] == list(mask.shape)
    assert (np.repeat(values, rle["counts"]).reshape(mask.shape, order="F") == mask).all()


def test_run_lengths_go_down_the_columns():
    assert mask_to_rle([[False, True], [True, True]]) == {"size": [2, 2], "counts": [1, 3]}
    assert mask_to_rle([[True, False], [True, False]]) == {"size": [2, 2], "counts": [0, 2, 2]}


def test_even_outlines_of_a_disc():
    (ring,) = even_outlines(mask_to_rings(disc(40, 0, 100)), (100, 100))
    assert len(ring) == EVEN_POINTS
    steps = np.linalg.norm(np.roll(ring, -1, axis=0) - ring, axis=1)
    assert steps.max() < 1.1 * steps.min()
    assert ring[0, 1] == ring[:, 1].min()
    assert ring[1, 0] > ring[0, 0]  # clockwise
    assert mask_iou(rasterize([ring], (100, 100)), disc(40, 0, 100)) > 0.94


@pytest.mark.parametrize("turned", [1, -1])
@pytest.mark.parametrize("first", range(4))
def test_few_corners_stay_clockwise_from_the_top(turned, first):
    corners = np.array([(10.0, 5.0), (90.0, 5.0), (80.0, 70.0), (20.0, 60.0)])
    (ring,) = even_outlines([np.roll(corners, first, axis=0)[::turned]], (100, 100))
    assert ring.tolist() == corners.tolist()


def test_parts_and_holes_have_the_spacing_of_the_longest_outline():
    whole, hole = even_outlines(mask_to_rings(disc(80, 40, 200)), (200, 200))
    assert (len(whole), len(hole)) == (20, 10)
    speck = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]
    assert len(even_outlines([*mask_to_rings(disc(80, 0, 200)), speck], (200, 200))) == 1
    assert even_outlines([], (200, 200)) == [] == even_outlines([speck], (200, 200))


def test_an_outline_of_many_points_keeps_as_many():
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    star = np.stack([np.cos(angle), np.sin(angle)], 1) * (60 + 30 * np.cos(15 * angle))[:, None] + 100
    (ring,) = even_outlines([star], (200, 200))
    assert len(ring) == len(thinned_outlines([star], (200, 200))[0]) > EVEN_POINTS
