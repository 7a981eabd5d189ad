"""Words that answers have in common."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

from florence_lite.answers import same_label
from florence_lite.rules.mentions import mention_pattern

# Words that any two English sentences share.
_COMMON = frozenset(
    ("a", "an", "the", "this", "that", "these", "those", "there", "it", "its", "is", "are", "was", "were", "be", "been")
    + ("has", "have", "and", "or", "but", "of", "in", "on", "at", "to", "from", "by", "with", "for", "into", "near")
    + ("next", "as", "image", "picture", "photo", "shows", "some")
)


def content_words(text: str) -> list[str]:
    """The words of a text without capitals, marks and the plural's s, and without those that any sentence has. Of a
    text that has no others, all."""
    words = re.findall(r"\w+", text.casefold())
    telling = [word for word in words if word not in _COMMON] or words
    return [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in telling]


def common_words(one: str, other: str) -> float:
    """F1 of the content words of two texts, from 0 to 1; 1 for two without words."""
    first, second = Counter(content_words(one)), Counter(content_words(other))
    total = first.total() + second.total()
    return 2 * (first & second).total() / total if total else 1.0


def is_named(label: str, text: str) -> bool:
    """Whether a text has the label as words of their own, in the singular or plural."""
    return bool(label.strip()) and _pattern(same_label(label)).search(same_label(text)) is not None


@cache
def _pattern(label: str) -> re.Pattern[str]:
    return mention_pattern(label)
