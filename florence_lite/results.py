"""What a call returns: instances, answers and results. Everything is in pixels of the original image, as floats."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from florence_lite.geometry import mask_to_rle, polygon_area, rasterize

Box = tuple[float, float, float, float]
"""x0 y0 x1 y1 in pixels, x0 ≤ x1 and y0 ≤ y1."""

Quad = tuple[float, float, float, float, float, float, float, float]
"""Four corners x0 y0 … x3 y3 in pixels, clockwise from the top left of the reading direction."""

Rings = tuple[tuple[tuple[float, float], ...], ...]
"""Outlines of a shape, each a tuple of (x, y) in pixels; holes are further rings (even-odd rule)."""


@dataclass(frozen=True)
class Instance:
    """One object, text line or region of an answer.

    label: its words, or "".
    box, quad, rings: where it is, at most one of the three; none for a region answer that is only words.
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
    rings: Rings = ()
    score: float | None = None
    tokens: tuple[int, int] | None = field(default=None, compare=False)
    coords_at: int | None = field(default=None, compare=False)

    def __post_init__(self):
        if self.box is not None:
            _set(self, "box", self._numbers("box", self.box, 4))
            x0, y0, x1, y1 = self.box
            if x1 < x0 or y1 < y0:
                raise ValueError(f"instance {self.label!r}: box {self.box} must have x0 <= x1 and y0 <= y1")
        if self.quad is not None:
            _set(self, "quad", self._numbers("quad", self.quad, 8))
        _set(self, "rings", tuple(tuple(self._numbers("point", p, 2) for p in ring) for ring in self.rings))
        short = [len(ring) for ring in self.rings if len(ring) < 3]
        if short:
            raise ValueError(f"instance {self.label!r}: a ring has {short[0]} points; it needs at least 3")
        if (self.box is not None) + (self.quad is not None) + bool(self.rings) > 1:
            raise ValueError(f"instance {self.label!r}: give one of box, quad and rings, not several")
        _set(self, "score", _confidence(self.score))

    def _numbers(self, name: str, values: Any, count: int) -> tuple[float, ...]:
        numbers = tuple(float(value) for value in values)
        if len(numbers) != count or not all(map(math.isfinite, numbers)):
            raise ValueError(f"instance {self.label!r}: {name} {numbers} must be {count} finite numbers")
        return numbers

    @property
    def kind(self) -> str:
        """What it is given as: "box", "quad", "rings", or "label" without coordinates."""
        if self.box is not None:
            return "box"
        if self.quad is not None:
            return "quad"
        return "rings" if self.rings else "label"

    @property
    def outlines(self) -> Rings:
        """The shape as rings, whatever it was given as; () without coordinates."""
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            return (((x0, y0), (x1, y0), (x1, y1), (x0, y1)),)
        if self.quad is not None:
            return (tuple(zip(self.quad[0::2], self.quad[1::2], strict=True)),)
        return self.rings

    @property
    def bounds(self) -> Box | None:
        """The smallest upright box round the shape, None without coordinates."""
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
    malformed: faults met while reading: items that were dropped and items that were repaired.
    truncated: the ids stopped before `</s>`.
    """

    text: str = ""
    instances: tuple[Instance, ...] = ()
    malformed: int = 0
    truncated: bool = False

    def __post_init__(self):
        _set(self, "instances", tuple(self.instances))
        if self.malformed < 0:
            raise ValueError(f"malformed is {self.malformed}; it counts faults and cannot be negative")


@dataclass(frozen=True)
class Result:
    """The answer to one prompt about one image.

    task: name of the task card, or the free prompt.
    size_wh: width and height of the image in pixels.
    text, instances, malformed, truncated: as in `Answer`.
    dropped: instances that were left out because the call asked for that (`general_phrases=False`).
    score: confidence of the answer as a whole in [0, 1]; None where nothing was measured.
    token_ids: the ids the model produced after its prompt; token_logprobs: their natural log-probabilities, or None.
    image: the picture itself (PIL.Image.Image) or None, kept for display only; it does not count in comparisons.
    """

    task: str
    size_wh: tuple[int, int]
    text: str = ""
    instances: tuple[Instance, ...] = ()
    malformed: int = 0
    truncated: bool = False
    dropped: int = 0
    score: float | None = None
    token_ids: tuple[int, ...] = field(default=(), repr=False)
    token_logprobs: tuple[float, ...] | None = field(default=None, repr=False)
    image: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self):
        _set(self, "size_wh", tuple(int(side) for side in self.size_wh))
        _set(self, "instances", tuple(self.instances))
        _set(self, "token_ids", tuple(int(id) for id in self.token_ids))
        _set(self, "score", _confidence(self.score))
        if len(self.size_wh) != 2 or min(self.size_wh) < 1:
            raise ValueError(f"size_wh is {self.size_wh}; it must be a positive width and height in pixels")
        if self.token_logprobs is not None:
            _set(self, "token_logprobs", tuple(float(number) for number in self.token_logprobs))
            if len(self.token_logprobs) != len(self.token_ids):
                raise ValueError(
                    f"token_logprobs has {len(self.token_logprobs)} numbers for {len(self.token_ids)} token_ids"
                )

    @classmethod
    def from_answer(cls, task: str, size_wh: tuple[int, int], answer: Answer, **more: Any) -> Result:
        """A result that says what `answer` says; `more` are the other fields of `Result`."""
        return cls(task, size_wh, answer.text, answer.instances, answer.malformed, answer.truncated, **more)

    @property
    def labels(self) -> list[str]:
        """The N labels; the arrays and lists below have the same order."""
        return [instance.label for instance in self.instances]

    @property
    def scores(self) -> list[float | None]:
        """The N scores, None where nothing was measured."""
        return [instance.score for instance in self.instances]

    @property
    def boxes_xyxy(self) -> NDArray[np.float64]:
        """float64[N, 4], pixels, x0 y0 x1 y1: boxes, bounds of quads and polygons; NaN without coordinates."""
        rows = [instance.bounds or (math.nan,) * 4 for instance in self.instances]
        return np.array(rows, dtype=np.float64).reshape(-1, 4)

    @property
    def quads(self) -> NDArray[np.float64]:
        """float64[N, 8], pixels, x0 y0 … x3 y3; NaN for instances that are no quads."""
        rows = [instance.quad or (math.nan,) * 8 for instance in self.instances]
        return np.array(rows, dtype=np.float64).reshape(-1, 8)

    @property
    def polygons(self) -> list[list[NDArray[np.float64]]]:
        """For each instance its rings float64[n, 2], pixels, even-odd rule; an empty list where it has none."""
        return [[np.array(ring, dtype=np.float64) for ring in instance.rings] for instance in self.instances]

    def masks(self) -> NDArray[np.bool_]:
        """bool[N, H, W]: pixels whose centre lies inside the polygon, quad or box; all False without coordinates."""
        width, height = self.size_wh
        masks = np.zeros((len(self.instances), height, width), dtype=bool)
        for mask, instance in zip(masks, self.instances, strict=True):
            mask[:] = rasterize(instance.outlines, self.size_wh)
        return masks

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: task, size_wh, text, instances, malformed, truncated, dropped, score.

        Each instance has label, box (its bounds, or null) and score (or null); a quad adds `quad` (8 numbers), rings
        add `polygons` (a list of rings of [x, y]). Token ids stay on the object.
        """
        return {
            "task": self.task,
            "size_wh": list(self.size_wh),
            "text": self.text,
            "instances": [_instance_dict(instance) for instance in self.instances],
            "malformed": self.malformed,
            "truncated": self.truncated,
            "dropped": self.dropped,
            "score": self.score,
        }

    def to_coco(self, image_id: int = 1, category_ids: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
        """Rows of a COCO results file, one for each instance that has coordinates.

        Each row holds image_id, category_id, category_name, bbox [x, y, width, height], area, score (left out where
        nothing was measured, so that the rows can also serve as annotations) and, for quads and polygons,
        segmentation: [[x, y, x, y, …]] for one ring, an uncompressed RLE {"size": [height, width], "counts": […]}
        for several, because COCO's lists of polygons cannot say a hole.

        category_ids: label → id. Instances with a label outside it are left out: the format cannot name them.
        Without it labels are numbered from 1 in the order of their first appearance.
        """
        if category_ids is None:
            category_ids = {label: number for number, label in enumerate(dict.fromkeys(self.labels), start=1)}
        rows = []
        for instance in self.instances:
            if instance.kind == "label" or instance.label not in category_ids:
                continue
            x0, y0, x1, y1 = instance.bounds
            row = {
                "image_id": image_id,
                "category_id": category_ids[instance.label],
                "category_name": instance.label,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
            }
            if instance.kind == "box":
                row["area"] = (x1 - x0) * (y1 - y0)
            elif len(instance.outlines) == 1:
                row["area"] = polygon_area(instance.outlines[0])
                row["segmentation"] = [[number for point in instance.outlines[0] for number in point]]
            else:
                mask = rasterize(instance.rings, self.size_wh)
                row["area"] = float(np.count_nonzero(mask))
                row["segmentation"] = mask_to_rle(mask)
            if instance.score is not None:
                row["score"] = instance.score
            rows.append(row)
        return rows

    def to_supervision(self) -> Any:
        """The instances that have coordinates as `supervision.Detections`; needs the extra `florence-lite[vis]`."""
        from florence_lite.interop import to_supervision

        return to_supervision(self)

    def draw(self) -> Any:
        """The image with the answer drawn on it, a PIL image. Raises ValueError where the result keeps no image."""
        if self.image is None:
            raise ValueError(f"this {self.task} result keeps no image; use florence_lite.display.draw(image, result)")
        from florence_lite.display import draw

        return draw(self.image, self)

    def show(self) -> None:
        """Open the drawn answer in the system's picture viewer."""
        self.draw().show()

    def _repr_png_(self) -> bytes | None:
        if self.image is None:
            return None
        buffer = io.BytesIO()
        self.draw().save(buffer, format="PNG")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        png = self._repr_png_()
        picture = f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}"/>' if png else ""
        rows = "".join(
            f"<tr><td>{html.escape(instance.label)}</td><td>{_shown(instance.bounds)}</td>"
            f"<td>{'' if instance.score is None else f'{instance.score:.2f}'}</td></tr>"
            for instance in self.instances
        )
        table = f"<table><tr><th>label</th><th>box</th><th>score</th></tr>{rows}</table>" if rows else ""
        return f"<div><b>{html.escape(self.task)}</b><p>{html.escape(self.text)}</p>{picture}{table}</div>"


def _set(frozen: Any, name: str, value: Any) -> None:
    object.__setattr__(frozen, name, value)


def _confidence(score: float | None) -> float | None:
    if score is not None and not 0 <= score <= 1:
        raise ValueError(f"score is {score}; it must lie in [0, 1], or be None where nothing was measured")
    return None if score is None else float(score)


def _shown(bounds: Box | None) -> str:
    return "" if bounds is None else " ".join(f"{number:.1f}" for number in bounds)


def _instance_dict(instance: Instance) -> dict[str, Any]:
    bounds = instance.bounds
    entry = {"label": instance.label, "box": None if bounds is None else list(bounds), "score": instance.score}
    if instance.quad is not None:
        entry["quad"] = list(instance.quad)
    if instance.rings:
        entry["polygons"] = [[list(point) for point in ring] for ring in instance.rings]
    return entry
