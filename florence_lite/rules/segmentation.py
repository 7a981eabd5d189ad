"""Outlines of what a phrase or a region means."""

from collections.abc import Iterator

from florence_lite.answers import Answer, Instance
from florence_lite.data.annotation import Annotation
from florence_lite.rules.pair import Pair
from florence_lite.rules.regions import inside

MOST_OUTLINED = 2  # objects that training has one answer outline: every point costs two tokens


def phrases(annotation: Annotation) -> Iterator[Pair]:
    """The phrases whose objects all have outlines, those that mean nothing, and stuff; one answer outlines all that is
    meant."""
    for expression in annotation.expressions:
        outlines = [annotation.objects[i].polygons for i in expression.objects]
        if not all(outlines):
            continue
        together = tuple(ring for rings in outlines for ring in rings)
        target = Answer(instances=(Instance(polygons=together),) if together else ())
        yield Pair(
            {"text": expression.phrase},
            tuple(Instance(polygons=rings) for rings in outlines),
            targets=(target,) if len(outlines) <= MOST_OUTLINED else (),
            kind=expression.kind,
        )
    for item in annotation.stuff:
        yield Pair({"text": item.phrase}, (Instance(polygons=item.polygons),))


def regions(annotation: Annotation) -> Iterator[Pair]:
    """The box of each object that has an outline."""
    for item in annotation.objects:
        if item.polygons:
            yield Pair({"region": inside(item.box, annotation.size_wh)}, (Instance(polygons=item.polygons),))
