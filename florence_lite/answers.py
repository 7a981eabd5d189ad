"""What an answer says: instances with places in pixels of the original image, as floats, and words."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

Box = tuple[float, float, float, float]
"""x0 y0 x1 y1 in pixels, x0 ≤ x1 and y0 ≤ y1."""

Quad = tuple[float, float, float, float, float, float, float, float]
"""Four corners x0 y0 … x3 y3 in pixels, clockwise from the top left of the reading direction."""

Polygons = tuple[tuple[tuple[float, float], ...], ...]
"""Outlines of a shape, each a tuple of (x, y) in pixels; holes are further outlines (even-odd rule)."""


@dataclass(frozen=True)
class Instance:
    """One object, text line or region of an answer.

    label: its words, or "".
    box, quad, polygons: where it is, at most one of the three; none for a region answer that is only words.
    score: confidence in [0, 1], or None where nothing was measured.
    tokens: [start, end) positions in the ids that it was read from: its label and its coordinates, or only its
        coordinates where it shares the label of the instance before.
    coords_at: position of the id that opens its coordinates (the first location, or `<poly>`), where the model chose
        to place one more; None for an instance without coordinates.
    tokens and coords_at say where an instance comes from and do not count in comparisons.
    Any sequences of numbers are taken as coordinates and kept as tuples of floats.
    """

    label: str = ""
    box: Box | None = None
    quad: Quad | None = None
    polygons: Polygons = ()
    score: float | None = None
    tokens: tuple[int, int] | None = field(default=None, compare=False)
    coords_at: int | None = field(default=None, compare=False)

    def __post_init__(self):
        if self.box is not None:
            set_frozen(self, "box", self._numbers("box", self.box, 4))
            x0, y0, x1, y1 = self.box
            if x1 < x0 or y1 < y0:
                raise ValueError(f"instance {self.label!r}: box {self.box} must have x0 <= x1 and y0 <= y1")
        if self.quad is not None:
            set_frozen(self, "quad", self._numbers("quad", self.quad, 8))
        set_frozen(self, "polygons", tuple(map(self._points, self.polygons)))
        short = [len(ring) for ring in self.polygons if len(ring) < 3]
        if short:
            raise ValueError(f"instance {self.label!r}: an outline has {short[0]} points; it needs at least 3")
        if (self.box is not None) + (self.quad is not None) + bool(self.polygons) > 1:
            raise ValueError(f"instance {self.label!r}: give one of box, quad and polygons, not several")
        set_frozen(self, "score", confidence(self.score))

    def _numbers(self, name: str, values: Any, count: int) -> tuple[float, ...]:
        numbers = tuple(float(value) for value in values)
        if len(numbers) != count or not all(map(math.isfinite, numbers)):
            raise ValueError(f"instance {self.label!r}: {name} {numbers} must be {count} finite numbers")
        return numbers

    def _points(self, ring: Any) -> tuple[tuple[float, float], ...]:
        points = tuple(map(tuple, ring))
        if all(len(p) == 2 and type(p[0]) is type(p[1]) is float and math.isfinite(p[0] + p[1]) for p in points):
            return points  # as other instances keep them
        return tuple((x, y) for x, y in (self._numbers("point", point, 2) for point in points))

    @property
    def kind(self) -> str:
        """What it is given as: "box", "quad", "polygons", or "label" without coordinates."""
        if self.box is not None:
            return "box"
        if self.quad is not None:
            return "quad"
        return "polygons" if self.polygons else "label"

    @property
    def outlines(self) -> Polygons:
        """The shape as outlines, whatever it was given as; () without coordinates."""
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            return (((x0, y0), (x1, y0), (x1, y1), (x0, y1)),)
        if self.quad is not None:
            return (tuple(zip(self.quad[0::2], self.quad[1::2], strict=True)),)
        return self.polygons

    @property
    def bounds(self) -> Box | None:
        """The smallest upright box round the shape, None without coordinates."""
        if self.box is not None:
            return self.box
        points = [point for ring in self.outlines for point in ring]
        if not points:
            return None
        xs, ys = zip(*points, strict=True)
        return min(xs), min(ys), max(xs), max(ys)


@dataclass(frozen=True)
class Answer:
    """What an answer says; `Codec` turns it into ids and back.

    text: the words of a prose answer; for a region answer, the label of its instance. "" for lists.
    instances: in the order of the answer.
    parse_errors: faults met while reading: items that were dropped and items that were repaired.
    truncated: the ids stopped before `</s>`.
    """

    text: str = ""
    instances: tuple[Instance, ...] = ()
    parse_errors: int = 0
    truncated: bool = False

    def __post_init__(self):
        set_frozen(self, "instances", tuple(self.instances))
        if self.parse_errors < 0:
            raise ValueError(f"parse_errors is {self.parse_errors}; it counts faults and cannot be negative")


def same_label(label: str) -> str:
    """The form in which labels and words are compared: without capitals and surplus space."""
    return " ".join(label.casefold().split())


def confidence(score: float | None) -> float | None:
    """A score as a float, or None. Raises ValueError for a number outside of [0, 1]."""
    if score is not None and not 0 <= score <= 1:
        raise ValueError(f"score is {score}; it must lie in [0, 1], or be None where nothing was measured")
    return None if score is None else float(score)


def set_frozen(frozen: Any, name: str, value: Any) -> None:
    """Give a field of a frozen dataclass its final value, while it is being made."""
    object.__setattr__(frozen, name, value)
