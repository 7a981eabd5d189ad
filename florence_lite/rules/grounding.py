"""Boxes of what words mean."""

from collections.abc import Iterator

from florence_lite.answers import Instance
from florence_lite.data.annotation import Annotation, ReferringExpression
from florence_lite.rules.mentions import mention_pattern
from florence_lite.rules.pair import Pair


def caption(annotation: Annotation) -> Iterator[Pair]:
    """The short caption, with the words in it that name categories, in its order, and their boxes.

    A caption without categories trains an empty answer. Evaluation does not ask it, because its truth is unknown.
    """
    sentence = annotation.captions[0] if annotation.captions else ""
    if not sentence or not annotation.has_all_objects:
        return
    places = [(_mention(sentence, item.label), item) for item in annotation.objects]
    mentioned = sorted(((place, item) for place, item in places if place is not None), key=lambda found: found[0])
    instances = tuple(Instance(sentence[slice(*place)], box=item.box) for place, item in mentioned)
    yield Pair({"text": sentence}, instances, asked=bool(instances))


def _mention(sentence: str, label: str) -> tuple[int, int] | None:
    """Where a sentence mentions what a label names."""
    found = mention_pattern(label).search(sentence) if label else None
    return found.span() if found else None


def phrases(annotation: Annotation) -> Iterator[Pair]:
    """Each phrase with the boxes that it means, which are called by it; without any, the names of categories. Stuff has
    one box around all of it."""
    for expression in annotation.expressions or names_of_categories(annotation):
        boxes = [annotation.objects[i].box for i in expression.objects]
        label = expression.phrase.strip()  # as prompts say it
        yield Pair(
            {"phrases": (expression.phrase,)}, tuple(Instance(label, box=box) for box in boxes), kind=expression.kind
        )
    for item in annotation.stuff:
        box = Instance(polygons=item.polygons).bounds
        yield Pair({"phrases": (item.phrase,)}, (Instance(item.phrase, box=box),))


def names_of_categories(annotation: Annotation) -> tuple[ReferringExpression, ...]:
    """The name of each category that an image shows, which means all of them; () where not all objects are known."""
    if not annotation.has_all_objects:
        return ()
    labels = [item.label for item in annotation.objects]
    return tuple(
        ReferringExpression(label, tuple(place for place, other in enumerate(labels) if other == label))
        for label in dict.fromkeys(labels)
        if label.strip()
    )
