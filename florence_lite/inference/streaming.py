"""Answers while they are written: words as they grow, and instances as soon as they are whole."""

from __future__ import annotations

import codecs
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from florence_lite.answers import Instance
from florence_lite.engine import Generated, Scores
from florence_lite.engine.score import joined as joined_scores
from florence_lite.inference.answering import Answering, Request, joined
from florence_lite.inference.chunks import chunks
from florence_lite.inference.continuous import DecodingQueue, Ticket
from florence_lite.inference.decoding import Decoded, Row
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
) -> Generator[str | Instance | Result, None, None]:
    """The answer to the requests of one prompt, bit by bit, and at last all of it, as `Answering.answer` gives it.

    Yields pieces of its words, never parts of a character; every instance with its score once all of its ids are
    certain, which with beams is when all of them have these ids; then the `Result`. Nothing is worked out before it is
    asked for, and closing the generator ends the work. Raises as `Answering.answer`, at once.
    """
    queue = DecodingQueue(answering.decoding)
    lists = growing(answering, image, requests, options, keep_image, queue)

    def bit_by_bit() -> Generator[str | Instance | Result, None, None]:
        for events in lists:
            yield from events
            if queue:
                queue.step()

    return bit_by_bit()


def growing(
    answering: Answering,
    image: EncodedImage,
    requests: Sequence[Request],
    options: Mapping[str, Any],
    keep_image: bool,
    queue: DecodingQueue,
) -> Generator[list[str | Instance | Result], None, None]:
    """What `stream` yields, in lists, [] among them: what has become known each time. In between, somebody has to let
    `queue` step, which may be answering other rows too. A generator that is closed takes its rows out of it."""
    rows = answering.rows([(image, request) for request in requests], options)

    def lists() -> Generator[list[str | Instance | Result], None, None]:
        if options.get("choices") is not None:  # which are weighed, not written
            yield [joined(answering.answer([(image, request) for request in requests], options, keep_image))]
            return
        results: list[Result] = []
        for few in chunks(list(zip(requests, rows, strict=True)), AT_ONCE):
            results += yield from _together(answering, image, few, options, keep_image, queue)
        yield [joined(results)]

    return lists()


def _together(
    answering: Answering,
    image: EncodedImage,
    asked: Sequence[tuple[Request, Row]],
    options: Mapping[str, Any],
    keep_image: bool,
    queue: DecodingQueue,
) -> Generator[list[str | Instance | Result], None, list[Result]]:
    """Requests that are answered together. Returns their results."""
    tickets = [queue.submit(row) for _, row in asked]
    growing: list[_Growing | None] = [None] * len(asked)
    results: list[Result | None] = [None] * len(asked)
    try:
        while any(result is None for result in results):
            events: list[str | Instance | Result] = []
            for place, (ticket, (request, _)) in enumerate(zip(tickets, asked, strict=True)):
                if results[place] is not None:
                    continue
                decoded = ticket.answer.result() if ticket.answer.done() else None  # raises what went wrong
                if growing[place] is None and ticket.search is not None:
                    growing[place] = _Growing(answering, request, image, queue, ticket, keep_image, options)
                if growing[place] is not None:
                    events += growing[place].read()
                if decoded is not None:
                    results[place] = answering.result(request, image, decoded, keep_image, options)
                    if growing[place] is not None:
                        events += growing[place].rest(results[place])
            yield events
    finally:
        for ticket in tickets:
            queue.drop(ticket)
    return results


class _Growing:
    """What has been said of one answer."""

    def __init__(
        self,
        answering: Answering,
        request: Request,
        image: EncodedImage,
        queue: DecodingQueue,
        ticket: Ticket,
        keep_image: bool,
        options: Mapping[str, Any],
    ):
        self._vocabulary, self._tokenizer = answering.tokenizer.vocabulary, answering.tokenizer
        self._reader = answering.codec.stream(request.card.grammar, image.size_wh)
        self._has_words = grammar(request.card.grammar).prose
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._queue, self._ticket = queue, ticket
        self._scores: list[Scores] = []  # of ids up to the end of the last instance
        self._result = lambda decoded: answering.result(request, image, decoded, keep_image, options)
        self._read = 0  # ids
        self._words = ""
        self._instances = 0

    def read(self) -> Iterator[str | Instance]:
        """What the ids that are certain by now complete; the instances of a finished answer are left to `rest`."""
        certain = self._ticket.search.certain
        whole = 0  # ids up to the end of the last instance that was completed
        piece = ""
        for place in range(self._read, len(certain)):
            token_id = certain[place]
            if self._has_words and self._vocabulary.id_class(token_id) is IdClass.TEXT:
                piece += self._characters.decode(self._tokenizer.decode_bytes([token_id]))
            if self._reader.push(token_id):
                whole = place + 1
        self._read = len(certain)
        if piece:
            self._words += piece
            yield piece
        if whole and self._ticket.search.result is None:
            scored = sum(len(each.token_logprobs) for each in self._scores)
            self._scores.append(self._queue.scores_so_far(self._ticket, scored, whole))
            opening = self._ticket.begun.opening
            generated = Generated(certain[:whole], truncated=False)
            yield from self._fresh(
                self._result(Decoded(generated, joined_scores(self._scores), opening and opening.log_odds))
            )

    def rest(self, result: Result) -> Iterator[str | Instance]:
        """What is left to be said, once the answer is finished."""
        if self._has_words and result.text.startswith(self._words) and result.text != self._words:
            yield result.text[len(self._words) :]
        yield from self._fresh(result)

    def _fresh(self, result: Result) -> Iterator[Instance]:
        fresh = result.instances[self._instances :]
        self._instances = len(result.instances)
        yield from fresh
