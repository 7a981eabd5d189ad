"""Answers while they are written: words as they grow, and instances as soon as they are whole."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from florence_lite.answers import Instance
from florence_lite.engine import Generated
from florence_lite.inference.answering import Answering, Request, joined
from florence_lite.inference.chunks import chunks
from florence_lite.inference.decoding import Decoded, Row
from florence_lite.inference.encoded import EncodedImage
from florence_lite.results import Result
from florence_lite.tokens.grammars import grammar
from florence_lite.tokens.vocabulary import IdClass


def grow(
    answering: Answering,
    image: EncodedImage,
    requests: Sequence[Request],
    options: Mapping[str, Any],
    keep_image: bool,
) -> Iterator[str | Instance | Result]:
    """The answer to the requests of one prompt, bit by bit, and at last all of it, as `Answering.answer` gives it.

    Yields pieces of its words, never parts of a character; every instance with its score once all of its ids are
    certain, which with beams is when all of them have these ids; then the `Result`. Nothing is worked out before it is
    asked for, and closing the generator ends the work.
    """
    rows, results = answering.rows([(image, request) for request in requests], options), []
    for numbers in chunks(range(len(rows)), answering.decoding.at_once(rows)):
        few = [rows[number] for number in numbers]
        asked = [requests[number] for number in numbers]
        results += yield from _grow(answering, image, asked, few, options, keep_image)
    yield joined(results)


def _grow(
    answering: Answering,
    image: EncodedImage,
    requests: Sequence[Request],
    rows: list[Row],
    options: Mapping[str, Any],
    keep_image: bool,
) -> Iterator[str | Instance]:
    """Requests that are answered together. Returns their results."""

    def result(place: int, decoded: Decoded) -> Result:
        return answering.result(requests[place], image, decoded, options, keep_image)

    growing: dict[int, _Growing] = {}
    steps = answering.decoding.steps(rows, answering.is_present(options), answering.ids(options))
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            decoded = end.value
            break
        for writing in step:
            place = writing.place
            if place not in growing:
                running = answering.decoding.running_score(writing, answering.ids(options))
                growing[place] = _Growing(answering, requests[place], image.size_wh, running, writing, result)
            yield from growing[place].read(writing.search.certain)
    results = [result(*each) for each in enumerate(decoded)]
    for place, each in growing.items():
        yield from each.rest(results[place])
    return results


class _Growing:
    """What has been said of one answer. result: from its ids so far and their scores to a `Result`."""

    def __init__(self, answering: Answering, request: Request, size_wh: tuple[int, int], running, writing, result):
        self._vocabulary, self._tokenizer = answering.tokenizer.vocabulary, answering.tokenizer
        self._reader = answering.codec.stream(request.card.grammar, size_wh)
        self._has_words = grammar(request.card.grammar).prose
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._running, self._writing, self._result = running, writing, result
        self._ids: list[int] = []
        self._words = ""
        self._instances = 0

    def read(self, certain: list[int]) -> Iterator[str | Instance]:
        """Take the ids that are certain by now; yields what they complete."""
        whole = 0  # ids up to the end of the last instance that was completed
        piece = ""
        for place in range(len(self._ids), len(certain)):
            token_id = certain[place]
            if self._has_words and self._vocabulary.id_class(token_id) is IdClass.TEXT:
                piece += self._characters.decode(self._tokenizer.decode_bytes([token_id]))
            if self._reader.push(token_id):
                whole = place + 1
        self._ids = list(certain)
        if piece:
            self._words += piece
            yield piece
        if whole:
            ids = certain[:whole]
            scores = self._running.extend(ids[len(self._running.scores.token_logprobs) :])
            decoded = Decoded(Generated(ids, truncated=False), scores, self._writing.log_odds)
            yield from self._fresh(self._result(self._writing.place, decoded))

    def rest(self, result: Result) -> Iterator[str | Instance]:
        """What is left to be said, once the answer is finished."""
        if self._has_words and result.text.startswith(self._words) and result.text != self._words:
            yield result.text[len(self._words) :]
        yield from self._fresh(result)

    def _fresh(self, result: Result) -> Iterator[Instance]:
        fresh = result.instances[self._instances :]
        self._instances = len(result.instances)
        yield from fresh
