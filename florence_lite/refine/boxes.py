"""Stages that look at places: slivers, boxes of the whole image, twins. What is asked about a region is left alone: its
place is the question's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from florence_lite.answers import Instance, same_label
from florence_lite.checks import check, check_share, is_number
from florence_lite.geometry import box_iou
from florence_lite.refine.judged import ImageRows, JudgedRow
from florence_lite.refine.stage import Stage


def placed(image: ImageRows) -> Iterator[tuple[JudgedRow, dict[int, Instance]]]:
    """The open rows that were asked without a region, and their instances that have coordinates."""
    for row in image.open:
        items = {place: item for place, item in row.left.items() if item.bounds is not None}
        if items and row.row.query.region is None:
            yield row, items


@dataclass
class Slivers(Stage):
    """Boxes too small or too thin to be of anything. Quads and outlines count with their bounds.

    side: the least width and height, as a share of the image's. 0.005 are 4 of the 768 pixels that a network sees.
    ratio: how many times as long as wide a box may be; lines of text are not judged so.
    """

    NAME = "slivers"
    side: float = 0.005
    ratio: float = 30.0

    def __post_init__(self):
        check_share(self, "side")
        check(self, "ratio", lambda ratio: is_number(ratio) and ratio >= 1, "a number of at least 1")

    def judge(self, image: ImageRows) -> None:
        for row, items in placed(image):
            for place, item in items.items():
                x0, y0, x1, y1 = item.bounds
                sides = x1 - x0, y1 - y0
                share = min(side / whole for side, whole in zip(sides, row.size_wh, strict=True))
                if share < self.side:
                    row.drop(self.NAME, "sliver, small", f"{share:.4f} of the image's side, below {self.side:g}", place)
                elif item.quad is None and max(sides) > self.ratio * min(sides):
                    detail = f"{max(sides) / min(sides):.0f} times as long as wide, above {self.ratio:g}"
                    row.drop(self.NAME, "sliver, thin", detail, place)


@dataclass
class Whole(Stage):
    """Boxes of the whole image, which say where nothing is.

    share: of the image's area from which a box is one.
    """

    NAME = "whole"
    share: float = 0.95

    def __post_init__(self):
        check_share(self, "share")

    def judge(self, image: ImageRows) -> None:
        for row, items in placed(image):
            for place, item in items.items():
                x0, y0, x1, y1 = item.bounds
                share = (x1 - x0) * (y1 - y0) / (row.size_wh[0] * row.size_wh[1])
                if share >= self.share:
                    row.drop(self.NAME, "whole image", f"{share:.3f} of it, from {self.share:g} on", place)


@dataclass
class Twins(Stage):
    """Instances of one answer that lie on each other: the surer stays, of equally sure ones the first. Those of another
    label are counted apart.

    iou: what two boxes must have more of to be twins.
    """

    NAME = "twins"
    iou: float = 0.9

    def __post_init__(self):
        check_share(self, "iou")

    def judge(self, image: ImageRows) -> None:
        for row, items in placed(image):
            places = sorted(items, key=lambda place: (-_score(items[place]), place))
            overlap = box_iou(*2 * [np.array([items[place].bounds for place in places])])
            kept: list[int] = []
            for number, place in enumerate(places):
                surer = next((other for other in kept if overlap[number, other] > self.iou), None)
                if surer is None:
                    kept.append(number)
                    continue
                first, second = items[places[surer]], items[place]
                same = same_label(first.label) == same_label(second.label)
                kind = "twin, same label" if same else "twin, other label"
                detail = f"IoU {overlap[number, surer]:.3f} with {first.label!r} of place {places[surer]}"
                row.drop(self.NAME, kind, detail, place)


def _score(item: Instance) -> float:
    return 0.0 if item.score is None else item.score
