"""Where sentences mention the objects that labels name."""

import re


def mention_pattern(label: str) -> re.Pattern[str]:
    """Finds a label as words of their own, in the singular or with a regular plural's ending, whatever the capitals.

    A label of y has its own plural ("berry", "berries"); irregular ones ("people") are other words.
    """
    plural = rf"|{re.escape(label[:-1])}ies" if label[-1:] in ("y", "Y") else ""
    return re.compile(rf"(?<!\w)(?:{re.escape(label)}(?:e?s)?{plural})(?!\w)", re.IGNORECASE)
