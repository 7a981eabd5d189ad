"""Words that are missing in a caption."""

from collections.abc import Iterator

from florence_lite.answers import Instance
from florence_lite.cards.prompt_words import SMALL_WORDS, WORD
from florence_lite.data.annotation import Annotation
from florence_lite.rules.pair import Pair
from florence_lite.tokens import marks_in

MASK = "<mask>"


def captions(annotation: Annotation) -> Iterator[Pair]:
    """The first two captions, with each word that says something masked alone, and together with the next one."""
    for caption in annotation.captions[:2]:
        if marks_in(caption):
            continue
        words = [found.span() for found in WORD.finditer(caption) if found[0].casefold() not in SMALL_WORDS]
        for first, word in enumerate(words):
            yield _masked(caption, (word,))
            if first + 1 < len(words):
                yield _masked(caption, (word, words[first + 1]))


def _masked(caption: str, spans: tuple[tuple[int, int], ...]) -> Pair:
    """The caption with a mask in the place of each of the spans, whose words are to be found."""
    text, end = "", 0
    for start, stop in spans:
        text, end = text + caption[end:start] + MASK, stop
    return Pair({"text": text + caption[end:]}, tuple(Instance(caption[slice(*span)]) for span in spans))
