"""Hand-over to other libraries, each imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from florence_lite.results import Result


def to_supervision(result: Result) -> Any:
    """The instances with coordinates as `supervision.Detections`.

    xyxy float[N, 4] pixels; class_id numbers the labels from 0 in the order of their first appearance,
    data["class_name"] holds them; mask bool[N, H, W] where an instance has rings; confidence float[N], None unless
    every instance was scored. Raises ImportError where the package is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise ImportError("to_supervision needs the package supervision: pip install 'florence-lite[vis]'") from error

    placed = [i for i, instance in enumerate(result.instances) if instance.kind != "label"]
    if not placed:
        return supervision.Detections.empty()
    instances = [result.instances[i] for i in placed]
    labels = [instance.label for instance in instances]
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    scored = all(instance.score is not None for instance in instances)
    return supervision.Detections(
        xyxy=result.boxes_xyxy[placed],
        mask=result.masks()[placed] if any(instance.rings for instance in instances) else None,
        confidence=np.array([instance.score for instance in instances], dtype=np.float64) if scored else None,
        class_id=np.array([numbers[label] for label in labels], dtype=np.int64),
        data={"class_name": np.array(labels)},
    )
