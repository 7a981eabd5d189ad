"""Answers while they are written: words as they grow, and instances as soon as they are whole."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from florence_lite.answers import Instance
from florence_lite.engine import Generated, score
from florence_lite.engine.generate import decoding_steps
from florence_lite.engine.running_score import RunningScore
from florence_lite.inference.answering import PROMPTS_AT_ONCE, Answering, Request, joined
from florence_lite.inference.chunks import chunks
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
    if options.get("choices") is not None:  # which are weighed, not written
        yield joined(answering.answer([(image, request) for request in requests], options, keep_image))
        return
    results: list[Result] = []
    for few in chunks(requests, PROMPTS_AT_ONCE):
        results += yield from _grow(answering, image, few, options, keep_image)
    yield joined(results)


def _grow(
    answering: Answering,
    image: EncodedImage,
    requests: Sequence[Request],
    options: Mapping[str, Any],
    keep_image: bool,
) -> Iterator[str | Instance]:
    """Requests that are answered together. Returns their results."""
    model = answering.model
    with torch.inference_mode():
        if model.config.prompt_side == "encoder":
            states, mask = answering.encode_prompts([image] * len(requests), requests)
            cross = model.cross_cache(states)
        else:
            states, mask, cross = image.hidden_states[None], None, image.cross_cache(model)
    prefixes, chosen = answering.prefixes(requests), answering.options_of(requests, options)
    size, (locations, tolerance) = answering.ids(options), answering.located

    def result(place: int, generated: Generated, scores: Any) -> Result:
        return answering.result(requests[place], image, generated, scores, keep_image, options)

    growing = []
    for place, request in enumerate(requests):
        own = slice(place, place + 1) if len(states) > 1 else slice(None)
        running = RunningScore(
            model,
            cross if len(states) == 1 else cross.select(torch.tensor([place], device=states.device)),
            mask if mask is None else mask[own],
            prefixes[place],
            chosen[place].max_new_tokens,
            locations,
            tolerance,
            size,
        )
        growing.append(_Growing(answering, request, image.size_wh, running, place, result))
    searches: list = []
    for searches in decoding_steps(model, states, mask, prefixes, chosen, cross, size):
        for each, search in zip(growing, searches, strict=True):
            yield from each.read(search.certain)
    answers = [search.result for search in searches]
    scores = score(model, states, mask, prefixes, [a.ids for a in answers], locations, tolerance, cross, size)
    results = [result(place, *of_one) for place, of_one in enumerate(zip(answers, scores, strict=True))]
    for each, whole in zip(growing, results, strict=True):
        yield from each.rest(whole)
    return results


class _Growing:
    """What has been said of one answer. result: from its ids so far and their scores to a `Result`."""

    def __init__(self, answering: Answering, request: Request, size_wh: tuple[int, int], running, place: int, result):
        self._vocabulary, self._tokenizer = answering.tokenizer.vocabulary, answering.tokenizer
        self._reader = answering.codec.stream(request.card.grammar, size_wh)
        self._has_words = grammar(request.card.grammar).prose
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._running, self._place, self._result = running, place, result
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
            yield from self._fresh(self._result(self._place, Generated(ids, truncated=False), scores))

    def rest(self, result: Result) -> Iterator[str | Instance]:
        """What is left to be said, once the answer is finished."""
        if self._has_words and result.text.startswith(self._words) and result.text != self._words:
            yield result.text[len(self._words) :]
        yield from self._fresh(result)

    def _fresh(self, result: Result) -> Iterator[Instance]:
        fresh = result.instances[self._instances :]
        self._instances = len(result.instances)
        yield from fresh
