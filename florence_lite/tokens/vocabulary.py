"""Which id means what: the ranges of a Florence-2 vocabulary.

Order of the ids: `<s> <pad> </s> <unk>`, the byte-level BPE entries, `<mask>`, then the added tokens of
`added_tokens`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


class IdClass(enum.Enum):
    """What an id can do in an answer; the alphabet of the answer grammars."""

    TEXT = "text"
    LOC = "loc"
    SEP = "<sep>"
    POLY_OPEN = "<poly>"
    POLY_CLOSE = "</poly>"
    END = "</s>"
    BOS = "<s>"
    PAD = "<pad>"
    OTHER = "no place in an answer"


def added_tokens(bins: int = 1000) -> list[str]:
    """The tokens that Florence-2 adds to a BART vocabulary, in order: 24 marks and `bins` locations."""
    return [
        *_open_close("od", "ocr"),
        *(f"<loc_{i}>" for i in range(bins)),
        *_open_close("cap", "ncap", "dcap", "grounding", "seg"),
        "<sep>",
        # "desciption" is how the published vocabulary spells it
        *_open_close("region_cap", "region_to_desciption", "proposal", "poly"),
        "<and>",
    ]


def marks_in(text: str) -> list[str]:
    """The marks that stand in a text and that a prompt would not take as words: added tokens and special ones."""
    return _MARKS.findall(text)


def check_marks(what: str, text: str, allowed: Sequence[str] = ()) -> None:
    """Raise ValueError where a text holds marks other than those `allowed`. what: it is, such as "labels[0]"."""
    if others := [mark for mark in marks_in(text) if mark not in allowed]:
        raise ValueError(f"{what}={text!r} holds {others[0]}, which is no word: leave it out")


def _open_close(*names: str) -> list[str]:
    return [token for name in names for token in (f"<{name}>", f"</{name}>")]


_SPECIAL = ("<s>", "</s>", "<pad>", "<unk>", "<mask>", "<image>")  # "<image>" is transformers' own
_MARKS = re.compile("|".join(map(re.escape, (*_SPECIAL, *added_tokens(bins=0)))) + r"|<loc_\d+>")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The special ids of a checkpoint.

    loc_first, bins: ids loc_first … loc_first + bins - 1 are the location tokens `<loc_0>` …
    size: number of ids that have a token; the embedding table may have more rows, which mean nothing.
    """

    bos: int = 0
    pad: int = 1
    eos: int = 2
    unk: int = 3
    loc_first: int
    bins: int
    sep: int
    poly_open: int
    poly_close: int
    and_: int
    size: int

    def __post_init__(self):
        if self.bins < 1:
            raise ValueError(f"bins is {self.bins}; a vocabulary needs at least one location token")
        marks = (self.bos, self.pad, self.eos, self.unk, self.sep, self.poly_open, self.poly_close, self.and_)
        locations = range(self.loc_first, self.loc_first + self.bins)
        if len(set(marks)) < len(marks) or any(mark in locations for mark in marks):
            raise ValueError(f"special ids {marks} and locations {locations} must all be different")
        if min(marks) < 0 or max(*marks, locations[-1]) >= self.size:
            raise ValueError(f"special ids {marks} and locations {locations} must lie in [0, size = {self.size})")

    def loc(self, bin: int) -> int:
        """The id of `<loc_bin>`."""
        if not 0 <= bin < self.bins:
            raise ValueError(f"bin {bin} is outside [0, {self.bins})")
        return self.loc_first + bin

    def bin(self, token_id: int) -> int | None:
        """The bin of a location id, None for any other id."""
        return token_id - self.loc_first if self.is_loc(token_id) else None

    def is_loc(self, token_id: int) -> bool:
        """Whether the id is a location token."""
        return 0 <= token_id - self.loc_first < self.bins

    @property
    def text_ids(self) -> range:
        """The BPE entries: they follow `<unk>` and end before `<mask> <od> </od> <ocr> </ocr> <loc_0>`."""
        return range(self.unk + 1, self.loc_first - 5)

    def id_class(self, token_id: int) -> IdClass:
        """The class of any integer; OTHER for one that is no id of this vocabulary."""
        return self._classes[token_id] if 0 <= token_id < self.size else IdClass.OTHER

    def ids(self, id_class: IdClass) -> tuple[int, ...]:
        """All ids of a class, ascending."""
        return tuple(token_id for token_id, other in enumerate(self._classes) if other is id_class)

    @cached_property
    def _classes(self) -> tuple[IdClass, ...]:
        classes = [IdClass.OTHER] * self.size
        for token_id in self.text_ids:
            classes[token_id] = IdClass.TEXT
        for bin in range(self.bins):
            classes[self.loc(bin)] = IdClass.LOC
        classes[self.sep] = IdClass.SEP
        classes[self.poly_open] = IdClass.POLY_OPEN
        classes[self.poly_close] = IdClass.POLY_CLOSE
        classes[self.eos] = IdClass.END
        classes[self.bos] = IdClass.BOS
        classes[self.pad] = IdClass.PAD
        return tuple(classes)
