"""A server on a free port of this machine, and a client made of the standard library."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from PIL import Image

from florence_lite import Florence

BOUNDARY = "a-boundary-that-no-picture-holds"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
for package in ("fastapi", "uvicorn", "python_multipart"):
    pytest.importorskip(package, reason=f"the package {package} is not installed (extra serve)")

PATIENCE = 60.0  # seconds until a test gives up


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def form(image: bytes | None = None, **fields: Any) -> bytes:
    """A form; a field that is a list comes several times."""
    parts = []
    for name, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            parts.append(f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    if image is not None:
        head = 'content-disposition: form-data; name="image"; filename="photo.png"\r\ncontent-type: image/png'
        parts.append(f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + image + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


class Client:
    """Asks a server. service: what its endpoints share. stop: asks it to end, as SIGTERM does; join: waits for that."""

    def __init__(self, port: int, app: Any, stop: Callable[[], None], join: Callable[[], None]):
        self.port, self._app, self.stop, self.join = port, app, stop, join

    @property
    def service(self) -> Any:
        return self._app.state.service

    def send(self, method: str, path: str, body: bytes | None = None, headers: dict | None = None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request(method, path, body, headers or {})
        return connection.getresponse()

    def get(self, path: str) -> Any:
        response = self.send("GET", path)
        assert response.status == 200
        return json.load(response)

    def post(self, path: str, body: bytes, headers: dict = FORM) -> tuple[int, Any]:
        """Status and JSON."""
        response = self.send("POST", path, body, headers)
        return response.status, json.load(response)

    def run(self, image: bytes, prompt: str, **fields: Any) -> dict:
        """The answer, which there must be."""
        status, answer = self.post("/run", form(image, prompt=prompt, **fields))
        assert status == 200, answer
        return answer

    def stream(self, image: bytes, prompt: str, **fields: Any) -> list[dict]:
        response = self.send("POST", "/stream", form(image, prompt=prompt, **fields), FORM)
        assert response.status == 200 and response.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in response]

    def raw_post(self, path: str, body: bytes, length: int | None = None) -> socket.socket:
        """The connection over which a form was sent, `length` bytes of it having been announced."""
        connection = self.connect()
        head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: {FORM['content-type']}\r\n"
        connection.sendall(f"{head}content-length: {length or len(body)}\r\n\r\n".encode() + body)
        return connection

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def until(self, accepted: int) -> None:
        """Wait until so many requests are on their way."""
        wait_until(lambda: self.service.accepted == accepted)


def wait_until(true: Callable[[], bool]) -> None:
    begin = time.monotonic()
    while not true():
        assert time.monotonic() - begin < PATIENCE
        time.sleep(0.005)


@contextmanager
def serving(florence: Florence, **limits: Any) -> Iterator[Client]:
    from florence_lite.cli.serving import server_of
    from florence_lite.serve import create_app

    server = server_of(app := create_app(florence, **limits), limits.get("timeout", 60))
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started)

        def stop() -> None:
            server.should_exit = True

        def join() -> None:
            thread.join(PATIENCE)
            assert not thread.is_alive()

        try:
            yield Client(listening.getsockname()[1], app, stop, join)
        finally:
            stop()
            join()
