"""Boxes of what words mean."""

import re
from collections.abc import Iterator

from florence_lite.answers import Instance
from florence_lite.data.annotation import Annotation
from florence_lite.rules.pair import Pair


def caption(annotation: Annotation) -> Iterator[Pair]:
    """The short caption, with the categories that it mentions, in its order, and their boxes.

    A caption without categories trains an empty answer. Evaluation does not ask it, because its truth is unknown.
    """
    sentence = annotation.captions[0] if annotation.captions else ""
    if not sentence or not annotation.has_all_objects:
        return
    places = [(_mentioned_at(sentence, item.label), item) for item in annotation.objects]
    mentioned = sorted(((place, item) for place, item in places if place is not None), key=lambda found: found[0])
    instances = tuple(Instance(item.label, box=item.box) for _, item in mentioned)
    yield Pair({"text": sentence}, instances, asked=bool(instances))


def _mentioned_at(sentence: str, label: str) -> int | None:
    """Where a sentence has a label as words of their own, in the singular or with a regular plural's ending."""
    found = re.search(rf"(?<!\w){re.escape(label)}(?:e?s)?(?!\w)", sentence, re.IGNORECASE) if label else None
    return found.start() if found else None


def phrases(annotation: Annotation) -> Iterator[Pair]:
    """Each phrase with the boxes that it means, which are called by it."""
    for expression in annotation.expressions:
        boxes = [annotation.objects[i].box for i in expression.objects]
        label = expression.phrase.strip()  # as prompts say it
        yield Pair({"phrases": (expression.phrase,)}, tuple(Instance(label, box=box) for box in boxes))
