"""The endpoints: requests are read within limits, handed to the network's thread, and answered as JSON."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, cast

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from florence_lite import __version__
from florence_lite.answers import Instance
from florence_lite.cards import tasks
from florence_lite.cards.task_card import INPUTS
from florence_lite.checks import is_positive, is_whole
from florence_lite.florence import Florence
from florence_lite.image_files import TooLarge, image_sizes, shown_size
from florence_lite.inference import EncodedImage, Prompt
from florence_lite.inference.encoded import OpenedImage
from florence_lite.inference.prompts import check_places
from florence_lite.results import Result
from florence_lite.results.result import instance_dict
from florence_lite.serve.query import SHOWN, Query, body_schemas, read_query
from florence_lite.serve.worker import Job, Worker

MAX_QUEUE = 64
MAX_UPLOAD = 20 * 2**20  # bytes
TIMEOUT = 60.0  # seconds
CACHE = 2**28  # bytes
MAX_PIXELS = 2**26  # of an image: 64 megapixels, of which `READERS` may be decoded at a time
SMALLER = "make it no larger than 64 megapixels"
READERS = 2  # threads that decode images
GONE = 499  # status of requests whose client has gone, which nobody sees
SENDING = 5.0  # seconds behind `timeout` in which clients still take their answers

ABOUT = (
    "Prompts about images. A body is a form with the image as a file, or JSON with the image in base64. What is wrong "
    'is told as {"error": …}.'
)
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body cannot be read."},
    408: {"description": "The body did not arrive in time."},
    413: {"description": "The body is too large."},
    415: {"description": "The body is neither a form with a file nor JSON."},
    422: {"description": "No such task, input that it does not take, or an image that is none."},
    429: {"description": "Too many requests are being answered: try again."},
    503: {"description": "It was not answered in time."},
}

log = logging.getLogger(__name__)


class JSONLine(Response):
    """An object as a line of JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return as_line(content)


def as_line(content: Any) -> bytes:
    """In UTF-8; half a surrogate pair, which that cannot hold, as JSON's escape."""
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def shortened(message: str) -> str:
    """A message that repeats what a client sent is no longer than this."""
    return message if len(message) <= SHOWN else f"{message[:SHOWN]}…"


def _result(job: Job) -> Result:
    """The answer to a job that is done. Raises HTTPException for what its prompt or image is refused for."""
    try:
        return job.answer.result()
    except (ValueError, OSError) as error:
        raise HTTPException(422, str(error)) from None


class Service:
    """What the endpoints share. accepted: requests that are not answered yet, `max_queue` at most."""

    def __init__(self, florence: Florence, max_queue: int, max_upload: int, timeout: float, cache: int):
        self.florence, self.max_queue, self.max_upload, self.timeout = florence, max_queue, max_upload, timeout
        self.accepted = 0
        self.worker = Worker(florence, cache)
        self._readers = ThreadPoolExecutor(READERS, "florence-lite reads")

    async def close(self) -> None:
        await asyncio.to_thread(self.worker.close)
        self._readers.shutdown()

    def enter(self) -> None:
        """Accept a request, before its body is read; 429 where there are too many. `accepted` is lowered by `leave`."""
        if self.accepted >= self.max_queue:
            raise HTTPException(
                429, f"{self.accepted} requests are being answered, no more are taken: try again", {"Retry-After": "1"}
            )
        self.accepted += 1

    def leave(self) -> None:
        self.accepted -= 1

    async def run(self, request: Request) -> Result:
        """The answer to a request. Raises HTTPException."""
        job = None
        try:
            async with asyncio.timeout(self.timeout):
                job = await self._job(request)
                answer, gone = asyncio.wrap_future(job.answer), asyncio.ensure_future(request.receive())
                try:  # behind the body, a client that has gone is all that can be received
                    await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
                    if not answer.done():
                        raise HTTPException(GONE, "the client has gone")
                    return _result(job)
                finally:
                    gone.cancel()
                    answer.cancel()
        except TimeoutError:
            raise self._too_late(job) from None
        finally:
            if job is not None:
                job.drop()

    async def stream(self, request: Request) -> AsyncIterator[bytes]:
        """The lines of an answer. Raises HTTPException for what is wrong before the first of them."""
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Any]()
        until, job = loop.time() + self.timeout, None

        def tell(event: Any) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        try:
            async with asyncio.timeout_at(until):
                job = await self._job(request, tell)
                job.answer.add_done_callback(tell)
                first = await events.get()
            if first is job.answer:
                _result(job)  # raises what is wrong
        except BaseException as error:
            if job is not None:
                job.drop()
            if isinstance(error, TimeoutError):
                raise self._too_late(job) from None
            raise

        async def lines() -> AsyncIterator[bytes]:
            event = first
            try:
                while event is not job.answer:
                    yield as_line({"text": event} if isinstance(event, str) else {"instance": instance_dict(event)})
                    async with asyncio.timeout_at(until):
                        event = await events.get()
                yield as_line({"result": _result(job).to_dict()})
            except TimeoutError:
                yield as_line({"error": self._too_late(job).detail})
            except HTTPException as error:
                yield as_line({"error": shortened(error.detail)})
            except Exception as error:
                log.exception("a stream broke off")
                yield as_line({"error": f"internal error: {type(error).__name__}"})
            finally:
                job.drop()

        return lines()

    def _too_late(self, job: Job | None) -> HTTPException:
        if job is None:
            return HTTPException(408, f"the request was not read within {self.timeout:g} seconds: send it faster")
        return HTTPException(
            503, f"not answered within {self.timeout:g} seconds, the most here: try again", {"Retry-After": "1"}
        )

    async def _job(self, request: Request, tell: Callable[[str | Instance], None] | None = None) -> Job:
        """What a request asks, on its way."""
        query = await read_query(Request(request.scope, self._limited(request)))
        loop = asyncio.get_running_loop()
        try:
            job = await loop.run_in_executor(self._readers, self._made, query, tell)
        except (ValueError, OSError) as error:
            raise HTTPException(422, str(error)) from None
        return self.worker.submit(job)

    def _limited(self, request: Request) -> Callable[[], Awaitable[Any]]:
        """The body of a request, as far as it is no larger than allowed."""
        refused = HTTPException(413, f"the body is larger than {self.max_upload} bytes, which is the most here")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.max_upload:
            raise refused
        received = 0

        async def receive() -> Any:
            nonlocal received
            message = await request.receive()
            received += len(message.get("body", b""))
            if received > self.max_upload:
                raise refused
            return message

        return receive

    def _made(self, query: Query, tell: Callable[[str | Instance], None] | None) -> Job:
        """In a thread: everything that can be refused before the network is asked. Raises ValueError."""
        prompt = Prompt(query.prompt, query.text, query.phrases, query.region)
        asked = self.florence.answering.ask(prompt, query.options)
        if query.threshold is not None:
            check_places("threshold=…", [asked.card])
        digest = hashlib.sha256(cast(bytes, query.image)).digest()  # decoded by now
        image: OpenedImage | EncodedImage | None = self.worker.cache.find(digest)
        if image is None:
            try:
                size_wh = image_sizes(query.image).stored
            except TooLarge:  # Pillow's limit, which no client can raise
                raise ValueError(f"the image has too many pixels; {SMALLER}") from None
            if size_wh[0] * size_wh[1] > MAX_PIXELS:
                raise ValueError(f"the image has {shown_size(size_wh)} pixels; {SMALLER}")
            image = self.florence.encoder.open(query.image, keep_image=False)
        return Job(digest, image, asked, query.options, tell)


class Lines(StreamingResponse):
    """Lines of JSON as they come. seconds: in which the client has to take them, else it is left. ended: is called when
    it has them all, has gone, or is left."""

    media_type = "application/x-ndjson"

    def __init__(self, lines: AsyncIterator[bytes], seconds: float, ended: Callable[[], None]):
        super().__init__(lines, headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"})
        self._seconds, self._ended = seconds, ended

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await super().__call__(scope, receive, send)
        except TimeoutError:  # it asked, and does not read
            pass
        finally:
            self._ended()


def create_app(
    florence: Florence,
    max_queue: int = MAX_QUEUE,
    max_upload: int = MAX_UPLOAD,
    timeout: float = TIMEOUT,
    cache: int = CACHE,
) -> FastAPI:
    """An ASGI application that answers with one network, for uvicorn or another server with one worker process.

    max_queue: requests that are accepted and not answered yet; more are refused with 429.
    max_upload: bytes of a request's body. timeout: seconds from the first byte of a request to its answer.
    cache: bytes of encoded images that are kept, on the network's device; those used last stay.

    Raises ValueError for limits that are not above 0 (cache may be 0).
    """
    for name, limit, least in (("max_queue", max_queue, 1), ("max_upload", max_upload, 1), ("cache", cache, 0)):
        if not is_whole(limit, least):
            raise ValueError(f"{name} is {limit!r}; it must be a whole number of at least {least}")
    if not is_positive(timeout):
        raise ValueError(f"timeout is {timeout!r}; it must be a number of seconds above 0")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.service = service = Service(florence, max_queue, max_upload, timeout, cache)
        yield
        await service.close()

    app = FastAPI(title="florence-lite", version=__version__, description=ABOUT, lifespan=lifespan)
    body = {"requestBody": {"required": True, "content": body_schemas()}}

    @app.post("/run", status_code=200, response_class=JSONLine, responses=REFUSALS, openapi_extra=body)
    async def run(request: Request) -> Response:
        """Answer a prompt about an image: the JSON of `Result.to_dict()`."""
        service: Service = app.state.service
        service.enter()
        try:
            return JSONLine((await service.run(request)).to_dict())
        finally:
            service.leave()

    @app.post("/stream", status_code=200, response_class=Lines, responses=REFUSALS, openapi_extra=body)
    async def stream(request: Request) -> Response:
        """The same, a line of JSON for each piece: {"text": …} and {"instance": …} as soon as they are known, then
        {"result": …}, or {"error": …} where it broke off."""
        service: Service = app.state.service
        service.enter()
        try:
            return Lines(await service.stream(request), timeout + SENDING, service.leave)
        except BaseException:
            service.leave()
            raise

    @app.get("/tasks")
    async def list_tasks() -> list[dict[str, Any]]:
        """The prompts with a marker: what each takes, and what its answer holds."""
        return [{"prompt": card.name, "takes": INPUTS[card.input][:1], "summary": card.summary} for card in tasks()]

    @app.get("/health")
    async def health() -> Response:
        """Whether it answers, with how much to do and how many images are kept."""
        service: Service = app.state.service
        worker = service.worker
        told = {
            "status": "ok" if worker.alive else "the network's thread has ended",
            "checkpoint": florence.name,
            "device": str(florence.device),
            "version": __version__,
            "accepted": service.accepted,
            "max_queue": max_queue,
            "images_encoded": worker.encoded,
            "images_kept": len(worker.cache),
            "bytes_kept": worker.cache.bytes,
        }
        return JSONLine(told, 200 if worker.alive else 503)

    @app.exception_handler(AnyHTTPException)
    async def refused(request: Request, error: AnyHTTPException) -> Response:
        detail = str(error.detail)
        if error.status_code == 404:
            detail = f"there is no {shortened(request.url.path)}: POST /run or /stream; GET /tasks, /health, /docs"
        return JSONLine({"error": shortened(detail)}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return JSONLine({"error": f"internal error: {type(error).__name__}"}, 500)

    return app
