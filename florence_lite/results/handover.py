"""Results in the formats of other tools: rows of COCO, YOLO and LabelMe, objects of supervision and FiftyOne.

Other libraries are imported only when they are asked for.
"""

from __future__ import annotations

import os
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from florence_lite.answers import Instance
from florence_lite.cards import task
from florence_lite.checks import is_whole
from florence_lite.geometry import joined_ring, mask_to_rle, polygon_area, rasterize, solid_rings
from florence_lite.tokens import Grammar, grammar

Classes = Mapping[str, int] | Mapping[int, str] | Sequence[str]
"""The classes of a data set: label → number, number → label, as in a data.yaml, or a list of labels, whose places from
0 on are the numbers."""

LABELME_VERSION = "5.5.0"  # of the format; later ones read the same fields
_DIGITS = 8  # of a share: a hundredth of a pixel in images of a million


def label_id(label: str) -> int:
    """A number from 1 to 2³¹ - 1 for a label: the same in every image, process and machine; of 1,000 labels two share
    one with a probability of 1 in 4,000."""
    return zlib.crc32(label.encode("utf-8", "surrogatepass")) % (2**31 - 1) + 1


# ---- COCO ------------------------------------------------------------------------------------------------------------


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


# ---- YOLO ------------------------------------------------------------------------------------------------------------


def yolo_row(number: int, box: ArrayLike, rings: Sequence[NDArray[np.float64]], size_wh: tuple[int, int]) -> str:
    """A line of a label file: the class, then in shares of the image the centre and the size of the box (x0 y0 x1 y1,
    pixels), or, where there are `rings` float[n, 2] in pixels, the points of one ring through all of them.

    Source: https://docs.ultralytics.com/datasets/.
    """
    if rings:
        shares = np.clip(joined_ring(rings) / size_wh, 0, 1).ravel()
    else:
        low, high = np.clip(np.reshape(box, (2, 2)) / size_wh, 0, 1)
        shares = np.concatenate([(low + high) / 2, high - low])
    return f"{number} {' '.join(np.format_float_positional(each, _DIGITS, trim='-') for each in shares)}"


def to_yolo(instances: Iterable[Instance], size_wh: tuple[int, int], classes: Classes) -> list[str]:
    """Lines of a YOLO label file; see `Result.to_yolo`."""
    if classes is None:
        raise ValueError("classes is None; a YOLO label file needs the labels of its data set, such as ['cat', 'dog']")
    numbered = _numbered(_seen(instances, size_wh), classes)
    outlined = all(instance.kind != "box" for instance, _ in numbered)
    return [
        yolo_row(number, instance.bounds, solid_rings(instance.outlines, size_wh) if outlined else [], size_wh)
        for instance, number in numbered
    ]


# ---- LabelMe ---------------------------------------------------------------------------------------------------------


def to_labelme(
    instances: Iterable[Instance], size_wh: tuple[int, int], image_path: str | os.PathLike
) -> dict[str, Any]:
    """The content of a LabelMe file; see `Result.to_labelme`."""
    width, height = size_wh
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": list(_labelme_shapes(instances, size_wh)),
        "imagePath": os.fspath(image_path),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def _labelme_shapes(instances: Iterable[Instance], size_wh: tuple[int, int]) -> Iterator[dict[str, Any]]:
    groups = 0
    for instance in instances:
        if instance.kind == "label":
            continue
        shape: dict[str, Any] = {
            "label": instance.label,
            "group_id": None,
            "description": "",
            "flags": {},
            "mask": None,
        }
        if instance.score is not None:
            shape["score"] = instance.score
        if instance.box is not None:
            x0, y0, x1, y1 = instance.box
            yield shape | {"shape_type": "rectangle", "points": [[x0, y0], [x1, y1]]}
            continue
        parts = solid_rings(instance.outlines, size_wh)
        groups += len(parts) > 1
        for part in parts:
            group = groups if len(parts) > 1 else None
            yield shape | {"shape_type": "polygon", "points": part.tolist(), "group_id": group}


# ---- supervision and FiftyOne ----------------------------------------------------------------------------------------


def to_supervision(
    instances: Iterable[Instance], size_wh: tuple[int, int], task_name: str, classes: Classes | None
) -> Any:
    """The instances with coordinates as `supervision.Detections`; see `Result.to_supervision`."""
    try:
        import supervision
    except ImportError as error:
        raise ImportError("to_supervision needs the package supervision: pip install 'florence-lite[vis]'") from error

    placed, numbers = zip(*numbered, strict=True) if (numbered := _numbered(instances, classes)) else ((), ())
    scored = all(instance.score is not None for instance in placed)
    form = _form(task_name)
    outlined = any(instance.polygons for instance in placed) or bool(placed) and form is not None and form.polygons
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


def to_fiftyone(
    instances: Iterable[Instance], size_wh: tuple[int, int], task_name: str, text: str, score: float | None
) -> Any:
    """A label of FiftyOne; see `Result.to_fiftyone`. task_name: tells what an empty answer could have held, since a
    field of FiftyOne takes one kind of label."""
    try:
        import fiftyone
    except ImportError as error:
        raise ImportError("to_fiftyone needs the package fiftyone: pip install fiftyone") from error

    placed = [instance for instance in instances if instance.kind != "label"]
    form = _form(task_name)
    if not placed and (text or form is not None and not form.places):
        return fiftyone.Classification(label=text, confidence=score) if text else None
    width, height = size_wh
    outlined = form is not None and (form.polygons or form.group == 8)
    if not outlined and all(instance.kind == "box" for instance in placed):
        detections = []
        for instance in placed:
            x0, y0, x1, y1 = instance.box
            place = [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]
            detections.append(fiftyone.Detection(label=instance.label, bounding_box=place, confidence=instance.score))
        return fiftyone.Detections(detections=detections)
    polylines = []
    for instance in placed:
        shapes = [[(x / width, y / height) for x, y in ring] for ring in instance.outlines]
        how = {"closed": True, "filled": bool(instance.polygons), "confidence": instance.score}
        polylines.append(fiftyone.Polyline(label=instance.label, points=shapes, **how))
    return fiftyone.Polylines(polylines=polylines)


def _seen(instances: Iterable[Instance], size_wh: tuple[int, int]) -> list[Instance]:
    """The instances without those outside of the image, which shares of it cannot say; a warning tells of them."""
    width, height = size_wh
    seen: list[Instance] = []
    outside: list[Instance] = []
    for instance in instances:
        x0, y0, x1, y1 = instance.bounds or (0, 0, 0, 0)
        (seen if x0 <= width and y0 <= height and x1 >= 0 and y1 >= 0 else outside).append(instance)
    if outside:
        named = ", ".join(f"{instance.label!r} at {instance.bounds}" for instance in outside)
        warnings.warn(f"left out, since they lie outside of the image: {named}", stacklevel=4)
    return seen


def _form(task_name: str) -> Grammar | None:
    """The form of a task's answers; None for a task that is not registered here."""
    try:
        return grammar(task(task_name).grammar)
    except ValueError:
        return None


def _numbered(instances: Iterable[Instance], classes: Classes | None) -> list[tuple[Instance, int]]:
    """The instances that have coordinates, each with the number of its label; those whose label the classes lack are
    left out with a warning. Raises as `_number_of`."""
    placed = [instance for instance in instances if instance.kind != "label"]
    if classes is None:
        return [(instance, label_id(instance.label)) for instance in placed]
    number_of = _number_of(classes)
    if unknown := Counter(instance.label for instance in placed if instance.label not in number_of):
        named = ", ".join(f"{label!r} ({times})" for label, times in unknown.most_common())
        warnings.warn(f"left out, since the classes lack their label: {named}", stacklevel=4)
    return [(instance, number_of[instance.label]) for instance in placed if instance.label in number_of]


def _number_of(classes: Classes) -> Mapping[str, int]:
    """Label → number; several labels may share one. Raises ValueError for what is no list or mapping, for a label that
    stands twice, and for numbers below 0."""
    if isinstance(classes, list | tuple):
        pairs: list[tuple[Any, Any]] = [(label, number) for number, label in enumerate(classes)]
    elif isinstance(classes, Mapping):
        pairs = [pair[::-1] if is_whole(pair[0], 0) else pair for pair in classes.items()]
    else:
        pairs = [(None, None)]
    if not all(isinstance(label, str) and is_whole(number, 0) for label, number in pairs):
        raise ValueError(
            f"classes is {classes!r}; it must be a list of labels, or a mapping from label to number or number to label"
        )
    if twins := [label for label, times in Counter(label for label, _ in pairs).items() if times > 1]:
        raise ValueError(f"classes holds {twins[0]!r} more than once; each label has one number")
    return dict(pairs)


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
