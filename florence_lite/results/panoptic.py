"""A panoptic answer: every pixel belongs to at most one segment, a thing or stuff."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from florence_lite.answers import Instance
from florence_lite.geometry import mask_to_rings
from florence_lite.images import load_image
from florence_lite.results.handover import label_id
from florence_lite.results.pictures import draw

DRAWN_SIDE = 1024  # pixels of the longer side of the id map that a picture is drawn from


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic answer.

    id: its number in the id map, from 1. label: the category or phrase. score: in [0, 1], None where nothing was
    measured. is_thing: a countable object; else stuff, one segment for all of a label. area: pixels of the id map.
    """

    id: int
    label: str
    score: float | None
    is_thing: bool
    area: int


@dataclass(frozen=True, eq=False)
class Panoptic:
    """Which segment each pixel of an image belongs to.

    id_map: int32[H, W] at the image's resolution: the id of a segment, 0 for none.
    segments: in the order of their ids.
    dropped: segments left out because others hide too much of them, or because they enclose no pixel.
    parse_errors, truncated, foreign, presence, absent: of the answers behind it, as in `Result`.
    image: the picture, RGB, kept to be drawn on, or None.
    """

    id_map: NDArray[np.int32] = field(repr=False)
    segments: tuple[Segment, ...] = ()
    dropped: int = 0
    parse_errors: int = 0
    truncated: bool = False
    foreign: bool = False
    presence: Mapping[str, float] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    image: Image.Image | None = field(default=None, repr=False)

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the image in pixels."""
        height, width = self.id_map.shape
        return width, height

    @property
    def labels(self) -> list[str]:
        """The different labels of the segments, sorted."""
        return sorted({segment.label for segment in self.segments})

    def mask(self, segment_id: int) -> NDArray[np.bool_]:
        """bool[H, W]: the pixels of one segment. Raises ValueError for an id that no segment has."""
        self._segment(segment_id)
        return self.id_map == segment_id

    def semantic_map(self, labels: Sequence[str] | None = None) -> NDArray[np.int32]:
        """int32[H, W]: the category of each pixel, k for `labels[k - 1]`, 0 for none of them.

        labels: the categories; without them `self.labels`.
        """
        labels = self.labels if labels is None else list(labels)
        numbers = {label: number for number, label in reversed(list(enumerate(labels, start=1)))}
        return self._mapped({segment.id: numbers.get(segment.label, 0) for segment in self.segments})

    def instance_map(self) -> NDArray[np.int32]:
        """int32[H, W]: the ids of things, 0 where stuff or nothing is."""
        return self._mapped({segment.id: segment.id for segment in self.segments if segment.is_thing})

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: size_wh, segments, dropped, parse_errors, truncated, foreign, presence; the id
        map is `to_png`'s."""
        return {
            "size_wh": list(self.size_wh),
            "segments": [asdict(segment) for segment in self.segments],
            "dropped": self.dropped,
            "parse_errors": self.parse_errors,
            "truncated": self.truncated,
            "foreign": self.foreign,
            "presence": dict(self.presence),
        }

    def to_png(self) -> Image.Image:
        """The ids as COCO's panoptic files hold them: an RGB picture with id = R + 256·G + 256²·B, to be saved as PNG.

        Source: https://cocodataset.org/#format-data.
        """
        ids = self.id_map
        return Image.fromarray(np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8))

    def to_coco(
        self, image_id: int = 1, file_name: str = "1.png", category_ids: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """The entry of the image among the `annotations` of a COCO panoptic file: image_id, file_name, segments_info.

        Each of segments_info holds id, category_id, category_name, area, bbox [x, y, width, height], iscrowd 0,
        isthing, and score where there is one.

        file_name: of the picture that `to_png` gives.
        category_ids: label → id, as the COCO file of a data set has them; segments with a label outside it are left
            out, and their ids in the picture then mean nothing. Without it a label's id follows from its words, as in
            `Result.to_coco`.
        """
        rows = []
        boxes = self._bounds()
        for segment in self.segments:
            if category_ids is not None and segment.label not in category_ids:
                continue
            x0, y0, x1, y1 = boxes[segment.id]
            row = {
                "id": segment.id,
                "category_id": label_id(segment.label) if category_ids is None else category_ids[segment.label],
                "category_name": segment.label,
                "area": segment.area,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": 0,
                "isthing": int(segment.is_thing),
            }
            rows.append(row | ({} if segment.score is None else {"score": segment.score}))
        return {"image_id": image_id, "file_name": file_name, "segments_info": rows}

    def draw(self, image: Any = None, max_side: int | None = None) -> Image.Image:
        """A new RGB picture: every segment filled translucently in the colour of its label and outlined, with its label
        and score.

        image, max_side: as in `Result.draw`. Raises as that does.
        """
        if image is None and self.image is None:
            raise ValueError(
                "this panoptic result keeps no image: draw it with result.draw(image), or ask with keep_image=True"
            )
        picture = load_image(self.image if image is None else image)
        return draw(picture, self._outlines(), self.size_wh, "", max_side)

    def show(self) -> None:
        """Open the drawn answer in the system's picture viewer."""
        self.draw().show()

    def _segment(self, segment_id: int) -> Segment:
        for segment in self.segments:
            if segment.id == segment_id:
                return segment
        raise ValueError(f"there is no segment {segment_id!r}; the ids are {[each.id for each in self.segments]}")

    def _mapped(self, numbers: Mapping[int, int]) -> NDArray[np.int32]:
        """The id map with each id replaced by a number, 0 for ids that have none."""
        table = np.zeros(1 + max((segment.id for segment in self.segments), default=0), dtype=np.int32)
        for segment_id, number in numbers.items():
            table[segment_id] = number
        return table[self.id_map]

    def _bounds(self, ids: NDArray[np.int32] | None = None) -> dict[int, tuple[int, int, int, int]]:
        """x0 y0 x1 y1 of each segment, in pixels of an id map."""
        ids = self.id_map if ids is None else ids
        found = {}
        for segment in self.segments:
            rows = np.flatnonzero((ids == segment.id).any(axis=1))
            if len(rows):
                columns = np.flatnonzero((ids[rows[0] : rows[-1] + 1] == segment.id).any(axis=0))
                found[segment.id] = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        return found

    def _outlines(self) -> list[Instance]:
        """The segments as polygons in pixels of the image, from a map of at most `DRAWN_SIDE` pixels."""
        step = max(1, math.ceil(max(self.size_wh) / DRAWN_SIDE))
        ids = self.id_map[step // 2 :: step, step // 2 :: step]
        bounds = self._bounds(ids)
        instances = []
        for segment in self.segments:
            if segment.id in bounds:
                x0, y0, x1, y1 = bounds[segment.id]
                rings = mask_to_rings(ids[y0:y1, x0:x1] == segment.id)
                polygons: Any = [((ring + (x0, y0)) * step).tolist() for ring in rings]
                instances.append(Instance(segment.label, polygons=polygons, score=segment.score))
        return instances
