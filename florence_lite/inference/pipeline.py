"""Images and prompts → results, while others are on the way: files are read and resized in threads, a few images go
through the vision tower together, and their prompts join those that are being answered.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from typing import Any, Self

from florence_lite.answers import Instance
from florence_lite.inference.answering import Answering, Asked, Request, joined
from florence_lite.inference.continuous import TOGETHER, DecodingQueue, Ticket
from florence_lite.inference.encoded import IMAGES_AT_ONCE, EncodedImage, ImageEncoder, OpenedImage
from florence_lite.inference.streaming import growing
from florence_lite.results import Result

READERS = 4  # threads that read files
READ_AHEAD = 2 * IMAGES_AT_ONCE  # images that wait, read and resized, for the vision tower


class Unreadable(Exception):
    """What ends a question about an image that cannot be read, or has no such region. reason: what is wrong."""

    def __init__(self, reason: Exception):
        super().__init__(str(reason))
        self.reason = reason


@dataclass(eq=False)
class _Question:
    """Prompts about an image. opened: the image, on its way from a file. encoded: when it has been through the vision
    tower; requests, of every prompt, and tickets belong to it then. left: tickets that are not answered."""

    asked: Sequence[Asked]
    options: Mapping[str, Any]
    keep_image: bool
    opened: Future[OpenedImage | EncodedImage] | None
    answer: Future[list[Result]] = field(default_factory=Future)
    encoded: EncodedImage | None = None
    requests: list[list[Request]] = field(default_factory=list)
    tickets: list[Ticket] = field(default_factory=list)
    left: int = 0

    @property
    def weighs(self) -> bool:
        """Whether its answers are weighed, not written."""
        return self.options.get("choices") is not None

    def pairs(self) -> list[tuple[EncodedImage, Request]]:
        return [(self.encoded, request) for requests in self.requests for request in requests]


class Pipeline:
    """Answers questions about images, of any tasks and options, each as if it were alone.

    `submit` and `step` are called by one thread. As a context it ends its own threads, and cancels
    what is not answered yet.
    """

    _program_ends = staticmethod(sys.is_finalizing)  # its own, for when it is true

    def __init__(self, encoder: ImageEncoder, answering: Answering):
        self._encoder, self._answering = encoder, answering
        self._readers: ThreadPoolExecutor | None = None
        self._opening: deque[_Question] = deque()
        self._queue = DecodingQueue(answering.decoding)
        self._question_of: dict[Ticket, _Question] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        if self._program_ends():  # when modules have lost their contents, and nobody waits any more
            return
        if self._readers is not None:
            self._readers.shutdown(wait=False, cancel_futures=True)
        for question in self._opening:
            question.answer.cancel()
            question.answer.set_running_or_notify_cancel()  # tells those that wait for it in other threads
        for question in dict.fromkeys(self._question_of.values()):
            question.answer.set_exception(CancelledError())
        self._opening.clear()
        self._question_of.clear()
        self._queue = DecodingQueue(self._answering.decoding)

    def __bool__(self) -> bool:
        """Whether there is work."""
        return bool(self._opening or self._question_of or self._queue)

    @property
    def takes_more(self) -> bool:
        """Whether another image would not have to wait long for the vision tower."""
        return len(self._opening) < READ_AHEAD

    @property
    def is_hungry(self) -> bool:
        """Whether so few prompts wait to be answered that another image should go through the vision tower."""
        return self._queue.waiting < TOGETHER

    def submit(
        self, image: Any, asked: Sequence[Asked], options: Mapping[str, Any], keep_image: bool
    ) -> Future[list[Result]]:
        """Ask prompts about an image; of its results, one for each prompt. keep_image: whether they keep the picture.
        The question may be cancelled until the image goes through the vision tower.

        A file is read by another thread; other images at once, since they may change. What is wrong with the image
        becomes an `Unreadable` of this future; ValueError is that of a prompt that is too long for the network.
        """
        if isinstance(image, str | os.PathLike):
            self._readers = self._readers or ThreadPoolExecutor(READERS, "florence-lite reads")
            opened = self._readers.submit(self._encoder.open, image, keep_image)
        else:
            opened = Future()
            try:
                opened.set_result(self._encoder.open(image, keep_image))
            except Exception as error:
                opened.set_exception(error)
        question = _Question(asked, options, keep_image, opened)
        if isinstance(image, EncodedImage):
            self._take_encoded(question)
        else:
            self._opening.append(question)
        return question.answer

    def ask(
        self, image: EncodedImage, asked: Sequence[Asked], options: Mapping[str, Any], keep_image: bool
    ) -> Future[list[Result]]:
        """As `submit`, about an image that this pipeline's encoder is known to have encoded: it is not looked at."""
        opened: Future[OpenedImage | EncodedImage] = Future()
        opened.set_result(image)
        question = _Question(asked, options, keep_image, opened)
        self._take_encoded(question)
        return question.answer

    def stream(
        self, image: EncodedImage, asked: Asked, options: Mapping[str, Any], keep_image: bool
    ) -> Generator[list[str | Instance | Result], None, None]:
        """As `ask` of one prompt, bit by bit: what `florence_lite.inference.streaming.growing` yields, whose prompts
        join those of the others. Raises ValueError, at once, for a prompt that cannot be asked about this image."""
        requests = self._answering.requests(asked, image.size_wh)
        return growing(self._answering, image, requests, options, keep_image, self._queue)

    def drop(self, answer: Future[list[Result]]) -> None:
        """Answer a question no more: what waits is left out, and what is being decoded ends with the next step. Its
        future, one of `ask`, ends with CancelledError."""
        for question in [each for each in self._opening if each.answer is answer]:
            self._opening.remove(question)
        for ticket in [ticket for ticket, each in self._question_of.items() if each.answer is answer]:
            del self._question_of[ticket]
            self._queue.drop(ticket)
        if not answer.done() and not answer.cancel():
            answer.set_exception(CancelledError())

    def _take_encoded(self, question: _Question) -> None:
        if question.weighs:  # several are weighed together
            self._opening.append(question)
        else:
            self._encode([question])

    def step(self) -> None:
        """Do a piece of work: encode a few images, where too few prompts wait to be answered, or decode an id."""
        wanted = self._opening and self.is_hungry
        if wanted and (ready := self._ready(at_once=bool(self._queue))):
            self._encode(ready)
        else:
            for ticket in self._queue.step():
                question = self._question_of.pop(ticket, None)
                if question is None:  # of a stream, or dropped
                    continue
                question.left -= 1
                if not question.left:
                    self._answer(question)

    def _ready(self, at_once: bool) -> list[_Question]:
        """Images that are read, as many as go through the vision tower together, if there are that many on their way.
        at_once: none of them, rather than wait."""
        few = [self._opening[place] for place in range(min(IMAGES_AT_ONCE, len(self._opening)))]
        if at_once and not all(question.opened.done() for question in few):
            return []
        wait_for([question.opened for question in few])
        for _ in few:
            self._opening.popleft()
        return few

    def _encode(self, questions: Sequence[_Question]) -> None:
        """Encode images and let their prompts wait for answers."""
        opened, readable = [], []
        for question in questions:
            if not question.answer.set_running_or_notify_cancel():
                continue
            try:
                picture = question.opened.result()
                question.requests = [self._answering.requests(each, picture.size_wh) for each in question.asked]
            except (ValueError, OSError) as error:
                question.answer.set_exception(Unreadable(error))
            except Exception as error:
                question.answer.set_exception(error)
            else:
                opened.append(picture)
                readable.append(question)
            question.opened = None
        try:
            encoded = self._encoder.encode(opened)
        except Exception as error:
            for question in readable:
                question.answer.set_exception(error)
            return
        alike: list[list[_Question]] = []  # those that are weighed together
        for question, image in zip(readable, encoded, strict=True):
            question.encoded = image
            if question.weighs:
                same = (each for each in alike if each[0].options == question.options)
                others = next((each for each in same if each[0].keep_image == question.keep_image), None)
                if others is None:
                    alike.append([question])
                else:
                    others.append(question)
                continue
            try:
                rows = self._answering.rows(question.pairs(), question.options)
            except Exception as error:
                question.answer.set_exception(error)
                continue
            question.tickets = [self._queue.submit(row) for row in rows]
            question.left = len(rows)
            self._question_of |= dict.fromkeys(question.tickets, question)
            if not rows:
                self._finish(question, [])
        for questions in alike:
            self._weigh(questions)

    def _weigh(self, questions: Sequence[_Question]) -> None:
        """Answer questions whose options are the same from their closed list; one by one if it goes wrong."""
        pairs = [pair for question in questions for pair in question.pairs()]
        try:
            results = iter(self._answering.answer(pairs, questions[0].options, questions[0].keep_image))
        except Exception as error:
            if len(questions) == 1:
                questions[0].answer.set_exception(error)
                return
            for question in questions:
                self._weigh([question])
            return
        for question in questions:
            self._finish(question, [next(results) for _ in question.pairs()])

    def _answer(self, question: _Question) -> None:
        try:
            results = [
                self._answering.result(request, image, ticket.answer.result(), question.keep_image, question.options)
                for (image, request), ticket in zip(question.pairs(), question.tickets, strict=True)
            ]
        except Exception as error:
            question.answer.set_exception(error)
        else:
            self._finish(question, results)

    def _finish(self, question: _Question, results: list[Result]) -> None:
        """results: of every request; those of one prompt become one."""
        remaining = iter(results)
        question.answer.set_result([joined([next(remaining) for _ in requests]) for requests in question.requests])
