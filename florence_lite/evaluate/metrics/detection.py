"""COCO's average precision and recall, through `faster-coco-eval`, by the scores of our instances.

Boxes are the bounds of whatever an instance is given as, so that quads and polygons are measured too; masks are drawn
by `florence_lite.geometry.rasterize`, holes included. Source of the protocol: Lin et al. 2014, arXiv:1405.0312, and
https://cocodataset.org/#detection-eval: IoU 0.50 to 0.95 in steps of 0.05, 101 points of recall, mean over labels,
at most 100 instances of a label in an answer. What a truth ignores is COCO's crowd: what is found in it is neither
right nor wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from florence_lite.answers import Instance, same_label
from florence_lite.evaluate.metrics.measurement import Case, Measurement, needed
from florence_lite.results.handover import coco_place

PACKAGE = "faster_coco_eval"
MOST = 100  # instances of a label in one answer that COCO looks at, best score first
_WHERE = {"ap": 0, "ap50": 1, "ap75": 2, "ar1": 6, "ar10": 7, "ar100": 8}  # places in COCO's list of metrics


def box_ap(cases: Sequence[Case]) -> Measurement:
    """ap, ap50, ap75 of boxes, mean over labels."""
    return _coco(cases, ("ap", "ap50", "ap75"))


def box_ap_one_class(cases: Sequence[Case]) -> Measurement:
    """The same with all labels taken as one: whether things are found, whatever they are called."""
    return _coco(cases, ("ap", "ap50", "ap75"), suffix="_one_class", by_label=False)


def box_ar(cases: Sequence[Case]) -> Measurement:
    """ar1, ar10, ar100: mean recall of the best 1, 10 and 100 boxes of an answer, mean over labels."""
    return _coco(cases, ("ar1", "ar10", "ar100"))


def mask_ap(cases: Sequence[Case]) -> Measurement:
    """mask_ap, mask_ap50, mask_ap75 of outlines, mean over labels."""
    return _coco(cases, ("ap", "ap50", "ap75"), prefix="mask_", masks=True)


def _coco(
    cases: Sequence[Case],
    names: tuple[str, ...],
    prefix: str = "",
    suffix: str = "",
    by_label: bool = True,
    masks: bool = False,
) -> Measurement:
    """Figures `names` of COCO's summary. Each case is an image of its own to COCO."""
    shown = {name: f"{prefix}{name}{suffix}" for name in names}
    labels = {same_label(item.label) if by_label else "" for case in cases for item in case.truth.instances}
    if not labels:
        return Measurement(dict.fromkeys(shown.values()), ("no truth has an instance",) if cases else ())
    category_ids = {label: number for number, label in enumerate(sorted(labels), start=1)}

    def rows(sides: Iterable[Iterable[Instance]], crowd: bool = False) -> list[dict[str, Any]]:
        found = []
        for image_id, (case, items) in enumerate(zip(cases, sides, strict=True), start=1):
            for item in items:
                label = same_label(item.label) if by_label else ""
                numbers = category_ids.values() if crowd and not label else [category_ids.get(label)]
                if item.bounds is None or numbers == [None]:
                    continue
                place = coco_place(item, case.result.size_wh, masks)
                belongs = {"image_id": image_id, "iscrowd": int(crowd), "score": item.score or 0.0}
                found += [{**place, **belongs, "category_id": number} for number in numbers]
        return found

    truth = rows(case.truth.instances for case in cases) + rows((case.truth.ignored for case in cases), crowd=True)
    answers = rows(case.result.instances for case in cases)
    for side in (truth, answers):
        for number, row in enumerate(side, start=1):
            row["id"] = number
    metrics = _summary(cases, category_ids, truth, answers, "segm" if masks else "bbox")
    values = {shown[name]: None if metrics[_WHERE[name]] < 0 else float(metrics[_WHERE[name]]) for name in names}
    return Measurement(values, _notes(cases, answers))


def _summary(cases: Sequence[Case], category_ids: dict[str, int], truth: list, answers: list, kind: str) -> np.ndarray:
    coco = needed(PACKAGE)
    images = [
        {"id": image_id, "width": case.result.size_wh[0], "height": case.result.size_wh[1]}
        for image_id, case in enumerate(cases, start=1)
    ]
    head = {"images": images, "categories": [{"id": number, "name": label} for label, number in category_ids.items()]}
    evaluation = coco.COCOeval_faster(
        coco.COCO({**head, "annotations": truth}), coco.COCO({**head, "annotations": answers}), kind
    )
    evaluation.run()
    return evaluation.stats


def _notes(cases: Sequence[Case], answers: list[dict[str, Any]]) -> tuple[str, ...]:
    placed = [item for case in cases for item in case.result.instances if item.bounds is not None]
    unscored = sum(item.score is None for item in placed)
    crowded = sum(count > MOST for count in Counter((row["image_id"], row["category_id"]) for row in answers).values())
    notes = []
    if unscored:
        notes.append(f"{unscored} of {len(placed)} instances have no score and count as score 0, in their order")
    if len(answers) < len(placed):
        notes.append(f"{len(placed) - len(answers)} instances have labels that no truth has; COCO leaves them out")
    if crowded:
        notes.append(f"{crowded} answers have more than {MOST} instances of a label; COCO takes the best {MOST}")
    return tuple(notes)
