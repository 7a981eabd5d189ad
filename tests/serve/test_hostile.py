"""A thousand requests that mean no good: each gets a refusal or nothing; then the server answers as before."""

import json
import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.serve.client import BOUNDARY, FORM, form, png, serving
from tests.tiny import noise_image

PHOTO = png(noise_image(0, (20, 20)))
BODY = form(PHOTO, prompt="<OD>", max_new_tokens=2)
COUNT = 1000


def request(
    body: bytes = BODY, path: str = "/run", method: str = "POST", length: object = None, **headers: str
) -> bytes:
    """As it goes over the wire; a header's name has _ for -."""
    lines = {"host": "a", "content_type": FORM["content-type"], "connection": "close"} | headers
    lines |= {} if length == "" else {"content_length": str(len(body) if length is None else length)}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape") + body


def truncated(dice: random.Random) -> bytes:
    whole = request()
    return whole[: dice.randrange(len(whole))]


def mutated(dice: random.Random) -> bytes:
    body = bytearray(BODY)
    for _ in range(dice.randint(1, 30)):
        body[dice.randrange(len(body))] = dice.randrange(256)
    return request(bytes(body), dice.choice(["/run", "/stream"]))


def damaged_picture(dice: random.Random) -> bytes:
    photo = bytearray(PHOTO)
    for _ in range(dice.randint(1, 10)):
        photo[dice.randrange(len(photo))] = dice.randrange(256)
    return request(form(bytes(photo[: dice.randint(0, len(photo))]), prompt="<OD>", max_new_tokens=2))


def random_bytes(dice: random.Random) -> bytes:
    return dice.randbytes(dice.randint(1, 3000))


def random_body(dice: random.Random) -> bytes:
    kind = dice.choice(
        [FORM["content-type"], "application/json", "image/png", "multipart/form-data", "", "a/b; c=\udcff"]
    )
    return request(dice.randbytes(dice.randint(0, 3000)), content_type=kind)


def boundaries(dice: random.Random) -> bytes:
    boundary = dice.choice(["", "x" * 300, '"', BOUNDARY[:-1], "-", "\udcff", f"{BOUNDARY}; boundary=b", "b" * 70])
    return request(content_type=f"multipart/form-data; boundary={boundary}")


def huge_headers(dice: random.Random) -> bytes:
    size = dice.choice([10_000, 100_000, 300_000])
    return dice.choice(
        [
            request(x=("y" * size)),
            request(**{"x" * size: "y"}),
            request(**{f"x{n}": "y" * 50 for n in range(size // 50)}),
        ]
    )


def odd_headers(dice: random.Random) -> bytes:
    name, value = dice.choice(
        [
            ("content_encoding", "gzip"),
            ("transfer_encoding", "chunked"),
            ("transfer_encoding", "gzip, chunked"),
            ("expect", "100-continue"),
            ("upgrade", "websocket"),
            ("host", "a\x00b"),
            ("x", "a\rb"),
            ("content_type", "application/json\r\ncontent-type: text/plain"),
            ("range", "bytes=0-,0-,0-"),
            ("cookie", "\udcff" * 100),
        ]
    )
    return request(**{name: value})


def lengths(dice: random.Random) -> bytes:
    length = dice.choice(
        [-1, 0, 1, len(BODY) - 1, 10**9, 10**30, "1, 2", "0x10", "٣", "+5", "5\r\ncontent-length: 6", ""]
    )
    return request(length=length)


def paths(dice: random.Random) -> bytes:
    path = dice.choice(
        [
            "/../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "//run",
            "/run/../run",
            "/run%00",
            "/run?" + "a=b&" * 5000,
            "/" + "a" * 30_000,
            "http://elsewhere/run",
            "*",
            "",
            "/run#stream",
            "/\udcff\udcfe",
            "/docs/../../app.py",
            "/openapi.json/x",
            "/run;x",
            "/%",
        ]
    )
    return request(path=path, method=dice.choice(["GET", "POST"]))


def methods(dice: random.Random) -> bytes:
    method = dice.choice(
        ["GET", "PUT", "DELETE", "TRACE", "CONNECT", "OPTIONS", "PATCH", "HEAD", "post", "PRI", "X" * 500]
    )
    return request(method=method, path=dice.choice(["/run", "/stream", "/tasks", "/health", "*"]))


def odd_json(dice: random.Random) -> bytes:
    body = dice.choice(
        [
            b"[" * 50_000,
            b'{"a":' * 50_000,
            b'{"image": {"image": []}, "prompt": "<OD>"}',
            b'{"image": "", "prompt": ' + b"9" * 5000 + b"}",
            b'{"image": "' + b"A" * 50_000 + b'", "prompt": "<OD>"}',
            b'{"image": "data:,", "prompt": "<OD>"}',
            b'{"image": "/etc/passwd", "prompt": "<OD>"}',
            b'{"image": "file:///etc/passwd", "prompt": "<OD>"}',
            b'{"image": "", "prompt": "\\u0000\\ud800", "region": [NaN, Infinity, -Infinity, 1e999]}',
            b'{"image": "", "prompt": "<OD>", "__class__": 1, "prompt": null}',
            json.dumps({"image": "", "prompt": "<OD>", "phrases": ["x"] * 2000}).encode(),
            json.dumps({f"field {n}": n for n in range(3000)}).encode(),
            '{"image": "", "prompt": "<OD>"}'.encode("utf-16"),
            b"null",
            b"",
        ]
    )
    return request(body, dice.choice(["/run", "/stream"]), content_type="application/json")


def odd_forms(dice: random.Random) -> bytes:
    odd = dice.choice(
        [
            {"prompt": ["<OD>"] * 500},
            {"prompt": "<OPEN_VOCABULARY_DETECTION>", "phrases": ["x"] * 3500},
            {"prompt": "<OD>" * 5000},
            {"prompt": "\x00\x1b[2J"},
            {"prompt": "<OD>", "region": "," * 5000},
            {"prompt": "<OD>", "threshold": "9" * 5000},
            {"prompt": "<OD>", "num_beams": "1e9"},
            {"prompt": "<OD>", "max_new_tokens": "-1"},
            {"prompt": "<OD>", "guide": "x", "seed": "1"},
            {"prompt": "<INFILLING>", "text": "<mask>" * 1500},
            {"prompt": "<VQA>", "text": "<loc_0></s><s><od>" * 100},
            {"prompt": "<OD>", "labels": ["<loc_1>", ""]},
            {"prompt": "x" * 70_000},
        ]
    )
    body = form(PHOTO, **odd)
    names = [b"photo.png", b"../../x.png", b"a" * 5000, b'"; name="prompt', b"\xff\x00", b"con"]
    return request(body.replace(b"photo.png", dice.choice(names)), dice.choice(["/run", "/stream"]))


KINDS = [truncated, mutated, damaged_picture, random_bytes, random_body, boundaries, huge_headers, odd_headers, lengths]
KINDS += [paths, methods, odd_json, odd_forms]
ENDLESS = (truncated, random_bytes, lengths)  # a server waits for more, until the client ends the connection


def status_of(port: int, message: bytes, ends: bool) -> int:
    """Of the answer; 0 where the connection ends without one, as it may where the client `ends` it."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(message)
            if ends:
                connection.shutdown(socket.SHUT_WR)
            begin = connection.recv(64)
            while connection.recv(2**16):
                pass
        except (ConnectionError, BrokenPipeError):
            return 0
    return int(begin.split()[1]) if begin.startswith(b"HTTP/1.1 ") else 0


def test_a_thousand_hostile_requests(tiny, capsys):
    dice = random.Random(0)
    kinds = [KINDS[number % len(KINDS)] for number in range(COUNT)]
    messages = [(kind(dice), kind in ENDLESS) for kind in kinds]
    with serving(tiny, max_upload=10**6, timeout=20) as client, ThreadPoolExecutor(8) as threads:
        expected = client.run(PHOTO, "<OD>")
        statuses = Counter(threads.map(lambda message: status_of(client.port, *message), messages))
        client.until(accepted=0)
        assert client.get("/health")["status"] == "ok"
        assert client.run(PHOTO, "<OD>") == expected
    assert statuses[422] > 100 and statuses[400] > 100 and statuses[0] < 350, statuses
    assert max(statuses) < 500, statuses
    assert "Traceback" not in capsys.readouterr().err  # nothing that was not thought of
