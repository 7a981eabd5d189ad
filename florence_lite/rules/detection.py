"""All objects of an image. An image whose list of objects is incomplete is not asked about."""

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
    if "objects" in annotation.exhaustive:
        yield Pair(instances=tuple(Instance(box=item.box) for item in annotation.objects))


def _objects(annotation: Annotation, words: Callable[[ObjectAnnotation], str]) -> Iterator[Pair]:
    if "objects" in annotation.exhaustive and all(words(item) for item in annotation.objects):
        yield Pair(instances=tuple(Instance(words(item), box=item.box) for item in annotation.objects))
