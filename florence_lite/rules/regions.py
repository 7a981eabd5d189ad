"""Words about a part of the image."""

from collections.abc import Iterator

import numpy as np

from florence_lite.answers import Box
from florence_lite.data.annotation import Annotation
from florence_lite.rules.pair import Pair


def labels(annotation: Annotation) -> Iterator[Pair]:
    """The box of each object and its category."""
    for item in annotation.objects:
        if item.label.strip():
            yield Pair({"region": inside(item.box, annotation.size_wh)}, texts=(item.label,))


def descriptions(annotation: Annotation) -> Iterator[Pair]:
    """The box of each object that has a phrase, and each described region."""
    described = [(item.box, item.phrase) for item in annotation.objects if item.phrase.strip()]
    for box, words in described + [(region.box, region.text) for region in annotation.regions]:
        yield Pair({"region": inside(box, annotation.size_wh)}, texts=(words,))


def inside(box: Box, size_wh: tuple[int, int]) -> Box:
    """The part of a box that lies in the image; a box wholly outside stays, for the prompt to refuse it by name."""
    low, high = np.clip(box[:2], 0, size_wh), np.clip(box[2:], 0, size_wh)
    return (*low.tolist(), *high.tolist()) if (low < high).all() else box
