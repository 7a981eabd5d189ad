"""Whether a sentence is true of the image."""

from collections.abc import Iterator

from florence_lite.data.annotation import Annotation
from florence_lite.rules.pair import Pair

YES, NO = "yes", "no"


def captions(annotation: Annotation) -> Iterator[Pair]:
    """Every caption but the paragraph, which is true, and every sentence that is known to be wrong."""
    for caption in (*annotation.captions[:2], *annotation.more_captions):
        if caption.strip():
            yield Pair({"text": caption}, texts=(YES,))
    for caption in annotation.wrong_captions:
        yield Pair({"text": caption}, texts=(NO,), kind="wrong")
