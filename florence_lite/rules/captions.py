"""Sentences about the whole image."""

from collections.abc import Iterator

from florence_lite.data.annotation import Annotation
from florence_lite.rules.pair import Pair


def short(annotation: Annotation) -> Iterator[Pair]:
    """One sentence; further ones of its kind are right too."""
    return _caption(annotation, annotation.captions[:1] + annotation.more_captions)


def detailed(annotation: Annotation) -> Iterator[Pair]:
    """A few sentences."""
    return _caption(annotation, annotation.captions[1:2])


def paragraph(annotation: Annotation) -> Iterator[Pair]:
    """A paragraph."""
    return _caption(annotation, annotation.captions[2:3])


def _caption(annotation: Annotation, captions: tuple[str, ...]) -> Iterator[Pair]:
    if texts := tuple(caption for caption in captions if caption.strip()):
        objects = annotation.objects if annotation.has_all_objects else ()
        yield Pair(texts=texts, objects=tuple(item.label for item in objects))
