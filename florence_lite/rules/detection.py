"""All objects of an image. An image whose list of objects is incomplete is not asked about.

An image with ignored objects is asked about in evaluation, where finding these is not wrong, and not in training: an
answer without them would teach that there is nothing.
"""

from collections.abc import Callable, Iterator

from florence_lite.answers import Instance
from florence_lite.data.annotation import Annotation, ObjectAnnotation
from florence_lite.rules.pair import Pair


def labels(annotation: Annotation) -> Iterator[Pair]:
    """Category and box of each object; nothing where one has no category."""
    return _objects(annotation, lambda item: item.label)


def descriptions(annotation: Annotation) -> Iterator[Pair]:
    """Phrase and box of each object, with its category for a phrase that is unknown; nothing where one has neither."""
    return _objects(annotation, lambda item: item.phrase or item.label)


def proposals(annotation: Annotation) -> Iterator[Pair]:
    """The boxes of all objects."""
    return _objects(annotation, None)


def _objects(annotation: Annotation, words: Callable[[ObjectAnnotation], str] | None) -> Iterator[Pair]:
    """All objects, with words where they are asked for."""
    named = [(words(item) if words else "", item) for item in annotation.objects]
    if "objects" not in annotation.exhaustive or (words and not all(label for label, _ in named)):
        return
    yield Pair(
        instances=tuple(Instance(label, box=item.box) for label, item in named),
        ignored=tuple(_ignored(item) for item in annotation.ignored),
        targets=None if annotation.has_all_objects else (),
    )


def _ignored(item: ObjectAnnotation) -> Instance:
    """A crowd's outline says better than its box where it is."""
    return Instance(item.label, polygons=item.polygons) if item.polygons else Instance(item.label, box=item.box)
