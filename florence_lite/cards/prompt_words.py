"""The words of prompts and captions."""

import re

WORD = re.compile(r"[^\W\d_]+")
_SMALL = """
    a an the and or of to in on at by for from with is are was were be it its this that there as into
"""
SMALL_WORDS = frozenset(_SMALL.split())
"""Words that say nothing by themselves."""

_NOT_ASKED = re.compile(r'"[^"]*"|<[^>]*>')  # what stands in pictures, and marks


def words_of(prompt: str) -> list[str]:
    """The words of a prompt as they are written, but for quoted ones and marks such as "<mask>"."""
    return WORD.findall(_NOT_ASKED.sub(" ", prompt))
