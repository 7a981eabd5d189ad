"""Answers written as readable parts: words, bins and marks."""

from collections.abc import Sequence

from florence_lite.answers import Answer, Instance
from florence_lite.tokens import IdClass, Tokenizer, Vocabulary

SIZE = (1000, 1000)  # one bin per pixel: bin b is b + 0.5 px

TEXT, LOC, SEP, OPEN, CLOSE, END, BOS, PAD, OTHER = IdClass


def mark_id(vocabulary: Vocabulary, mark: IdClass) -> int:
    """An id of a class that is no text and no location."""
    outsider = {IdClass.OTHER: vocabulary.loc_first - 1}  # </ocr>
    return outsider[mark] if mark in outsider else vocabulary.ids(mark)[0]


def spell(tokenizer: Tokenizer, *parts: str | int | Sequence[int] | IdClass) -> list[int]:
    """Ids of words (str), locations (bins, alone or in a sequence) and marks (IdClass)."""
    ids = []
    for part in parts:
        if isinstance(part, str):
            ids += tokenizer.encode_plain(part)
        elif isinstance(part, IdClass):
            ids.append(mark_id(tokenizer.vocabulary, part))
        else:
            ids += [tokenizer.vocabulary.loc(bin) for bin in ([part] if isinstance(part, int) else part)]
    return ids


def box(label: str, x0: int, y0: int, x1: int, y1: int) -> Instance:
    """A box between bin centres."""
    return Instance(label, box=centres(x0, y0, x1, y1))


def quad(label: str, *bins: int) -> Instance:
    """A quad between bin centres."""
    return Instance(label, quad=centres(*bins))


def polygon(label: str, *rings: Sequence[int]) -> Instance:
    """A polygon whose rings are x y x y … bins."""
    return Instance(
        label, polygons=[list(zip(centres(*ring)[::2], centres(*ring)[1::2], strict=True)) for ring in rings]
    )


def centres(*bins: int) -> tuple[float, ...]:
    return tuple(bin + 0.5 for bin in bins)


def answer(*instances: Instance, text: str = "", parse_errors: int = 0, truncated: bool = False) -> Answer:
    """An answer with its instances written out."""
    return Answer(text, instances, parse_errors, truncated)
