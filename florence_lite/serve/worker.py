"""The thread in which the network runs: it encodes images, answers prompts about them continuously, whatever their
tasks and options, and keeps encoded images for the next request.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

from florence_lite.answers import Instance
from florence_lite.florence import Florence
from florence_lite.inference import IMAGES_AT_ONCE, EncodedImage
from florence_lite.inference.answering import Asked
from florence_lite.inference.encoded import OpenedImage
from florence_lite.inference.pipeline import Pipeline, Unreadable
from florence_lite.results import Result

log = logging.getLogger(__name__)


class EncodedCache:
    """Encoded images by a digest of their bytes, as many of those that were used last as fit into `room` bytes.

    May be used by several threads. bytes: that are taken.
    """

    def __init__(self, room: int):
        self.room, self.bytes = room, 0
        self._images: OrderedDict[bytes, tuple[EncodedImage, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._images)

    def find(self, digest: bytes) -> EncodedImage | None:
        with self._lock:
            if digest not in self._images:
                return None
            self._images.move_to_end(digest)
            return self._images[digest][0]

    def add(self, digest: bytes, image: EncodedImage, size: int) -> None:
        """size: of the encoded image, in bytes. One that is larger than the room is not kept."""
        with self._lock:
            if size > self.room or digest in self._images:
                return
            self._images[digest] = image, size
            self.bytes += size
            while self.bytes > self.room:
                self.bytes -= self._images.popitem(last=False)[1][1]


@dataclass(eq=False)
class Job:
    """A prompt about an image. digest: of the image's bytes. tell: gets what becomes known of the answer, bit by bit,
    in the thread of the network; None where the answer alone is wanted.

    answer: the result, or what went wrong. It ends with CancelledError after `drop`.
    """

    digest: bytes
    image: OpenedImage | EncodedImage
    asked: Asked
    options: Mapping[str, Any]
    tell: Callable[[str | Instance], None] | None = None
    answer: Future[Result] = field(default_factory=Future)
    dropped: bool = field(default=False, init=False)
    question: Future[list[Result]] | None = field(default=None, init=False)  # in the pipeline
    events: Generator[list[str | Instance | Result], None, None] | None = field(default=None, init=False)

    def __post_init__(self):
        self.answer.set_running_or_notify_cancel()  # so that the network's thread alone ends it

    def drop(self) -> None:
        """Nobody waits for the answer any more: whatever is left of the work is not done."""
        self.dropped = True

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error.reason if isinstance(error, Unreadable) else error)


class Worker:
    """Answers the jobs that any thread submits, in a thread of its own.

    cache: of encoded images; whoever finds the image of a job there need not open it. encoded: how many images went
    through the vision tower.
    """

    def __init__(self, florence: Florence, cache_bytes: int):
        self.florence = florence
        self.cache, self.encoded = EncodedCache(cache_bytes), 0
        self._arrivals: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting: list[Job] = []  # for the vision tower, or for their rows to be made
        self._running: list[Job] = []
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="florence-lite answers", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, job: Job) -> Job:
        self._arrivals.put(job)
        return job

    def close(self) -> None:
        """Returns when everything that was submitted is answered."""
        self._arrivals.put(None)
        self._thread.join()

    def _work(self) -> None:
        while not self._closing or self._waiting or self._running:
            with Pipeline(self.florence.encoder, self.florence.answering) as pipeline:
                try:
                    while self._take(wait=not (self._waiting or self._running or pipeline)):
                        self._step(pipeline)
                except Exception as error:  # a fault of ours: those that it hit are told, and the next are answered
                    log.exception("the network's thread failed and begins anew")
                    for job in self._running:
                        job.fail(error)
                    self._running = []

    def _take(self, wait: bool) -> bool:
        """Take what has arrived; wait: for something, if nothing has. False when the worker is closed and idle."""
        while wait or not self._arrivals.empty():
            if self._closing and self._arrivals.empty():
                return False
            job = self._arrivals.get()
            if job is None:
                self._closing = True
            else:
                self._waiting.append(job)
            wait = wait and not self._waiting
        return True

    def _step(self, pipeline: Pipeline) -> None:
        """Do a piece of work: images for the vision tower where too few prompts wait to be answered, or an id."""
        self._drop(pipeline)
        if self._waiting and pipeline.is_hungry:
            few, self._waiting = self._waiting[:IMAGES_AT_ONCE], self._waiting[IMAGES_AT_ONCE:]
            self._running += few
            self._begin(few, pipeline)
        elif pipeline:
            pipeline.step()
        for job in self._running:
            if job.events is not None:
                self._tell(job)
        self._running = [job for job in self._running if not job.answer.done()]

    def _drop(self, pipeline: Pipeline) -> None:
        for job in (*self._waiting, *self._running):
            if not job.dropped:
                continue
            job.fail(CancelledError())
            if job.question is not None:
                pipeline.drop(job.question)
            if job.events is not None:
                job.events.close()
                job.events = None
        self._waiting = [job for job in self._waiting if not job.dropped]
        self._running = [job for job in self._running if not job.dropped]

    def _begin(self, jobs: list[Job], pipeline: Pipeline) -> None:
        """Encode the images of jobs, each once, and ask about them."""
        images = {job.digest: job.image for job in jobs if isinstance(job.image, EncodedImage)}
        images |= {digest: image for digest in {job.digest for job in jobs} if (image := self.cache.find(digest))}
        fresh = {job.digest: job.image for job in jobs if job.digest not in images}
        try:
            encoded = self.florence.encoder.encode(list(fresh.values()))
        except Exception as error:
            for job in jobs:
                if job.digest in fresh:
                    job.fail(error)
        else:
            self.encoded += len(encoded)
            for digest, image in zip(fresh, encoded, strict=True):
                images[digest] = image
                self.cache.add(digest, image, self._size(image))
        for job in jobs:
            if not job.answer.done():
                self._ask(job, images[job.digest], pipeline)

    def _ask(self, job: Job, image: EncodedImage, pipeline: Pipeline) -> None:
        if job.tell is None:
            job.question = pipeline.ask(image, [job.asked], job.options, keep_image=False)
            job.question.add_done_callback(lambda question: self._answer(job, question))
            return
        try:
            job.events = pipeline.stream(image, job.asked, job.options, keep_image=False)
        except Exception as error:
            job.fail(error)

    def _answer(self, job: Job, question: Future[list[Result]]) -> None:
        if question.cancelled() or question.exception() is not None:
            job.fail(CancelledError() if question.cancelled() else question.exception())
        else:
            [result] = question.result()
            job.answer.set_result(result)

    def _tell(self, job: Job) -> None:
        """Say what has become known of a stream."""
        try:
            for event in next(job.events):
                if isinstance(event, Result):
                    job.answer.set_result(event)
                else:
                    job.tell(event)
        except Exception as error:
            job.fail(error)
        if job.answer.done():
            job.events.close()
            job.events = None

    def _size(self, image: EncodedImage) -> int:
        """Bytes of an encoded image, with the keys and values that are kept beside it from its first prompt on."""
        size = image.features.nbytes
        if image.hidden_states is not None:
            text = self.florence.model.config.text
            size += image.hidden_states.nbytes * (1 + 2 * text.decoder_layers)
        return size
