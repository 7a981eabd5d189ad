"""Answers that are written by hand."""

from dataclasses import replace
from itertools import cycle

from florence_lite.inference.decoding import Decoding

BEGIN = Decoding.begin


class Script:
    """A guide that allows one answer."""

    start = 0

    def __init__(self, ids: list[int]):
        self.ids = ids

    def advance(self, state, token_id):
        return state + 1

    def allowed(self, state):
        token_id = self.ids[state]
        return (range(token_id, token_id + 1),)


def script(monkeypatch, *answers: list[int], truncated: bool = False):
    """Let the decoder write these ids, one answer after the other, again and again, however few it may write.
    truncated: and be stopped there."""
    given, limit = cycle(answers), max(map(len, answers)) + (2 if truncated else 3)

    def written(self, rows):
        return BEGIN(
            self,
            [
                row._replace(
                    make_guide=lambda: Script([0, *next(given), 2]),
                    options=replace(row.options, max_new_tokens=limit),
                )
                for row in rows
            ],
        )

    monkeypatch.setattr(Decoding, "begin", written)
