"""Answers while they are written: words as they grow, and instances as soon as they are whole."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from florence_lite.answers import Instance
from florence_lite.engine import Generated, Scores
from florence_lite.engine.generate import decoding_steps
from florence_lite.engine.running_score import RunningScore
from florence_lite.inference.answering import Answering, Request, joined
from florence_lite.inference.chunks import chunks
from florence_lite.inference.decoding import Decoded
from florence_lite.inference.encoded import EncodedImage
from florence_lite.results import Result
from florence_lite.tokens.grammars import grammar
from florence_lite.tokens.vocabulary import IdClass

AT_ONCE = 8  # prompts that are answered together at most, so that the first words come soon


def stream(
    answering: Answering,
    image: EncodedImage,
    requests: Sequence[Request],
    options: Mapping[str, Any],
    keep_image: bool,
) -> Iterator[str | Instance | Result]:
    """The answer to the requests of one prompt, bit by bit, and at last all of it, as `Answering.answer` gives it.

    Yields pieces of its words, never parts of a character; every instance with its score once all of its ids are
    certain, which with beams is when all of them have these ids; then the `Result`. Nothing is worked out before it is
    asked for, and closing the generator ends the work. Raises as `Answering.answer`, at once.
    """
    rows = answering.rows([(image, request) for request in requests], options)
    at_once = min(AT_ONCE, answering.decoding.at_once(rows))

    def bit_by_bit() -> Iterator[str | Instance | Result]:
        if options.get("choices") is not None:  # which are weighed, not written
            yield joined(answering.answer([(image, request) for request in requests], options, keep_image))
            return
        results: list[Result] = []
        for few in chunks(requests, at_once):
            results += yield from _stream(answering, image, few, options, keep_image)
        yield joined(results)

    return bit_by_bit()


def _stream(
    answering: Answering,
    image: EncodedImage,
    requests: Sequence[Request],
    options: Mapping[str, Any],
    keep_image: bool,
) -> Iterator[str | Instance]:
    """Requests that are answered together. Returns their results."""
    decoding, size = answering.decoding, answering.ids(options)
    is_present = answering.is_present(options)
    begun = decoding.begin(answering.rows([(image, request) for request in requests], options), size)

    def result(place: int, decoded: Decoded) -> Result:
        return answering.result(requests[place], image, decoded, keep_image, options)

    results: dict[int, Result] = {}
    log_odds = {place: opening.log_odds for place, opening in begun.opened.items()}
    for place, each in log_odds.items():
        if not is_present(each):
            results[place] = result(place, begun.empty(place))
    left = [place for place in range(len(requests)) if place not in results]
    for places, part in begun.of_equal_count(left):
        states, mask, cross = part.states, part.mask, part.cross
        chosen = [row.answer_options for row in part.rows]
        growing = []
        for number, place in enumerate(places):
            own = slice(part.images[number], part.images[number] + 1)
            running = RunningScore(
                answering.model,
                cross.part(own),
                mask if mask is None else mask[own],
                part.prefixes[number],
                chosen[number].max_new_tokens,
                decoding.locations,
                decoding.tolerance,
                size,
            )
            scored = partial(_decoded, result, place, log_odds.get(place))
            growing.append(_Growing(answering, requests[place], image.size_wh, running, scored))
        searches: list = []
        steps = decoding_steps(answering.model, states, mask, part.prefixes, chosen, cross, size, part.read)
        for searches in steps:
            for each, search in zip(growing, searches, strict=True):
                yield from each.read(search.certain)
        answers = [search.result for search in searches]
        for each, place, *answered in zip(growing, places, answers, decoding.scores(part, answers, size), strict=True):
            results[place] = _decoded(result, place, log_odds.get(place), *answered)
            yield from each.rest(results[place])
    return [results[place] for place in range(len(requests))]


def _decoded(result: Any, place: int, log_odds: float | None, generated: Generated, scores: Scores) -> Result:
    return result(place, Decoded(generated, scores, log_odds))


class _Growing:
    """What has been said of one answer. result: from its ids so far and their scores to a `Result`."""

    def __init__(self, answering: Answering, request: Request, size_wh: tuple[int, int], running, result):
        self._vocabulary, self._tokenizer = answering.tokenizer.vocabulary, answering.tokenizer
        self._reader = answering.codec.stream(request.card.grammar, size_wh)
        self._has_words = grammar(request.card.grammar).prose
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._running, self._result = running, result
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
            yield from self._fresh(self._result(Generated(ids, truncated=False), scores))

    def rest(self, result: Result) -> Iterator[str | Instance]:
        """What is left to be said, once the answer is finished."""
        if self._has_words and result.text.startswith(self._words) and result.text != self._words:
            yield result.text[len(self._words) :]
        yield from self._fresh(result)

    def _fresh(self, result: Result) -> Iterator[Instance]:
        fresh = result.instances[self._instances :]
        self._instances = len(result.instances)
        yield from fresh
