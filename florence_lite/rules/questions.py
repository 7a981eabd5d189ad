"""Questions about the image."""

from collections.abc import Iterator

from florence_lite.data.annotation import Annotation
from florence_lite.rules.pair import Pair


def answers(annotation: Annotation) -> Iterator[Pair]:
    """Each question with all of its answers: one that stands there several times, as VQA's ten annotators answer it, is
    asked once."""
    found: dict[str, tuple[str, ...]] = {}
    for item in annotation.questions:
        found[item.question] = (*found.get(item.question, ()), item.answer)
    for question, texts in found.items():
        yield Pair({"text": question}, texts=texts)
