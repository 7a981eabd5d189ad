"""Words of others on a line: names of files, labels and texts are shown by a terminal, never obeyed."""

from __future__ import annotations

import unicodedata

_STEERS = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control and format characters, halves of pairs, ends of lines
_JOINS = "\u200c\u200d"  # inside emoji and Persian words


def printable(words: str) -> str:
    r"""The words on one line, without anything that steers a terminal or turns the direction of writing.

    Line breaks, escapes, bidi controls and bytes of a file name that are no text are written as Python writes them in
    a string, such as \n, \x1b, \u202e and \udcff: nothing is lost, and two names stay two.
    """
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _STEERS and character not in _JOINS
        else character
        for character in words
    )
