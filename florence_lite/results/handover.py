"""Results in the formats of other libraries: rows of COCO files, `supervision.Detections`.

Other libraries are imported only when they are asked for.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from florence_lite.answers import Instance
from florence_lite.geometry import mask_to_rle, polygon_area, rasterize


def label_id(label: str) -> int:
    """A number from 1 to 2³¹ - 1 for a label: the same in every image, process and machine; of 1,000 labels two share
    one with a probability of 1 in 4,000."""
    return zlib.crc32(label.encode("utf-8", "surrogatepass")) % (2**31 - 1) + 1


def coco_place(instance: Instance, size_wh: tuple[int, int], masks: bool | None = None) -> dict[str, Any]:
    """Where an instance is, by COCO's names: bbox [x, y, width, height] and area; segmentation where there is one.

    masks: None gives the shape as it is: none for a box, [[x, y, x, y, …]] for a shape of one ring, an uncompressed
        RLE {"size": [height, width], "counts": […]} for several rings, because COCO's lists of polygons cannot say a
        hole. True gives the RLE of every shape, boxes too. False gives the box round the shape and nothing else.

    Raises ValueError for an instance without coordinates.
    """
    if instance.bounds is None:
        raise ValueError(f"instance {instance.label!r} has no coordinates; COCO has no row for it")
    x0, y0, x1, y1 = instance.bounds
    place: dict[str, Any] = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
    if masks is False or masks is None and instance.kind == "box":
        return place
    if masks is None and len(instance.outlines) == 1:
        [ring] = instance.outlines
        return place | {"area": polygon_area(ring), "segmentation": [[number for point in ring for number in point]]}
    mask = rasterize(instance.outlines, size_wh)
    return place | {"area": float(np.count_nonzero(mask)), "segmentation": mask_to_rle(mask)}


def to_coco(
    instances: Iterable[Instance], size_wh: tuple[int, int], image_id: int, category_ids: Mapping[str, int] | None
) -> list[dict[str, Any]]:
    """Rows of a COCO results file; see `Result.to_coco`."""
    rows = []
    for instance, category_id in _numbered(instances, category_ids):
        row = {
            "image_id": image_id,
            "category_id": category_id,
            "category_name": instance.label,
            **coco_place(instance, size_wh),
        }
        if instance.score is not None:
            row["score"] = instance.score
        rows.append(row)
    return rows


def to_supervision(instances: Sequence[Instance], size_wh: tuple[int, int], class_ids: Mapping[str, int] | None) -> Any:
    """The instances with coordinates as `supervision.Detections`; see `Result.to_supervision`."""
    try:
        import supervision
    except ImportError as error:
        raise ImportError("to_supervision needs the package supervision: pip install 'florence-lite[vis]'") from error

    placed, numbers = zip(*numbered, strict=True) if (numbered := _numbered(instances, class_ids)) else ((), ())
    scored = all(instance.score is not None for instance in placed)
    outlined = any(instance.polygons for instance in placed)
    data = {"class_name": np.array([instance.label for instance in placed], dtype=str)}
    if any(instance.quad for instance in placed):
        data["xyxyxyxy"] = np.array([_corners(instance) for instance in placed], dtype=np.float64)
    return supervision.Detections(
        xyxy=np.array([instance.bounds for instance in placed], dtype=np.float64).reshape(-1, 4),
        mask=_masks(placed, size_wh, getattr(supervision, "CompactMask", None)) if outlined else None,
        confidence=np.array([instance.score for instance in placed], dtype=np.float64) if scored else None,
        class_id=np.array(numbers, dtype=np.int64),
        data=data,
    )


def _numbered(instances: Iterable[Instance], ids: Mapping[str, int] | None) -> list[tuple[Instance, int]]:
    """The instances that have coordinates, each with the number of its label; none whose label `ids` lacks."""
    return [
        (instance, label_id(instance.label) if ids is None else ids[instance.label])
        for instance in instances
        if instance.kind != "label" and (ids is None or instance.label in ids)
    ]


def _corners(instance: Instance) -> list[tuple[float, float]]:
    """Four corners (x, y) of a quad, or of the box round another shape, clockwise from the top left."""
    x0, y0, x1, y1 = instance.bounds
    return list(instance.outlines[0]) if instance.quad else [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _masks(placed: Sequence[Instance], size_wh: tuple[int, int], compact: Any) -> Any:
    """The masks as one `compact` (the class `supervision.CompactMask`), so that one at a time exists as pixels; without
    that class bool[N, H, W]."""
    masks = (rasterize(instance.outlines, size_wh) for instance in placed)
    if compact is None:
        return np.stack(list(masks))
    height_width = size_wh[::-1]
    return compact.merge(
        [
            compact.from_dense(mask[None], np.array([instance.bounds]), height_width)
            for mask, instance in zip(masks, placed, strict=True)
        ]
    )
