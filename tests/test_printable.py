"""Words of others, shown and not obeyed."""

import pytest

from florence_lite.printable import printable


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("a dog, 猫, café, שלום, مرحبا", "a dog, 猫, café, שלום, مرحبا"),
        ("two\nlines\r\ttab", r"two\nlines\r\ttab"),
        ("\x1b[2J\x9b31m\x07\x7f", r"\x1b[2J\x9b31m\x07\x7f"),
        ("\u202egnp.exe\u2066\u200f", r"\u202egnp.exe\u2066\u200f"),
        ("\u2028\u2029\ufeff\u200b", r"\u2028\u2029\ufeff\u200b"),
        ("\udcff\ud83d", r"\udcff\ud83d"),
        ("\U000e0041", r"\U000e0041"),
        ("👩‍👩‍👧 می\u200cخواهم a\u3000b\xa0c", "👩‍👩‍👧 می\u200cخواهم a\u3000b\xa0c"),
        ("", ""),
    ],
)
def test_printable(words, shown):
    assert printable(words) == shown
