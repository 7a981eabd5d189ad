"""What is refused, with which status and in whose words; what holds a server up, and what does not."""

import json
import logging
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.serve.client import FORM, form, png, serving, wait_until
from tests.tiny import noise_image

PHOTO = png(noise_image(0))
JSON = {"content-type": "application/json"}
REFUSED = {
    "unknown task": (form(PHOTO, prompt="<OB>"), 422, "unknown task '<OB>'; did you mean"),
    "a known task otherwise": (form(PHOTO, prompt="od"), 422, "'<OD>'"),
    "input that is missing": (form(PHOTO, prompt="<VQA>"), 422, 'task <VQA> needs text="…", but nothing was given'),
    "input that is superfluous": (form(PHOTO, prompt="<OD>", text="dog"), 422, "task <OD> takes no input"),
    "a region outside": (
        form(PHOTO, prompt="<REGION_TO_OCR>", region="0,0,900,10"),
        422,
        "must lie in the image",
    ),
    "a region of words": (form(PHOTO, prompt="<REGION_TO_OCR>", region="a,b,c,d"), 422, "region.0: Input should be"),
    "half a region": (form(PHOTO, prompt="<REGION_TO_OCR>", region="1,2"), 422, "region: List should have at least 4"),
    "a region of nothing": (form(PHOTO, prompt="<REGION_TO_OCR>", region="nan,0,9,9"), 422, "must have 0 <= x0 < x1"),
    "too long a prompt": (form(PHOTO, prompt="<VQA>", text="dog " * 900), 422, "tokens; the network takes"),
    "far too long a prompt": (form(PHOTO, prompt="dog " * 9000), 422, "prompt: String should have at most 10000"),
    "too many phrases": (
        form(PHOTO, prompt="<OPEN_VOCABULARY_DETECTION>", phrases=["a"] * 1001),
        422,
        "phrases: List should have at most 1000",
    ),
    "a threshold": (form(PHOTO, prompt="<OD>", threshold=2), 422, "threshold is 2.0; it must be a number from 0 to 1"),
    "a threshold of words": (form(PHOTO, prompt="<CAPTION>", threshold=0.5), 422, "threshold=… has no part in task"),
    "beams": (form(PHOTO, prompt="<OD>", num_beams=9), 422, "num_beams: Input should be less than or equal to 8"),
    "an unknown field": (form(PHOTO, prompt="<OD>", beams=1), 422, "unknown field 'beams'; fields are image, prompt"),
    "a field twice": (form(PHOTO, prompt=["<OD>", "<OD>"]), 422, "prompt was given 2 times; give it once"),
    "no prompt": (form(PHOTO), 422, "prompt: Field required"),
    "no image": (form(prompt="<OD>"), 422, "image: Field required"),
    "a name of a file": (form(prompt="<OD>", mask="x").replace(b'"mask"', b'"image"'), 422, "image is no file"),
    "no picture": (form(b"no picture", prompt="<OD>"), 422, "image of 10 bytes holds no image of a known format"),
    "an empty picture": (form(b"", prompt="<OD>"), 422, "image of 0 bytes is empty"),
    "half a picture": (form(PHOTO[: len(PHOTO) // 2], prompt="<OD>"), 422, "is damaged or cut short"),
    "a file elsewhere": (
        form(PHOTO, prompt="<OD>").replace(b'name="image"', b'name="mask"'),
        422,
        "'mask' is a file; one file is taken, called image",
    ),
    "no form": (b"nonsense", 400, ""),
    "half a form": (form(PHOTO, prompt="<OD>")[:200], 422, "Field required"),
}
BAD_JSON = {
    "none": (b"{", 400, "the body is no JSON"),
    "a list": (b"[1]", 400, "the body is a JSON list; it must be an object"),
    "deep": (b"[" * 100_000, 400, "the JSON is nested too deeply"),
    "no text": (b"\xff\xfe\xff", 400, "the body is no JSON"),
    "no base64": (b'{"image": "***", "prompt": "<OD>"}', 422, "image: not base64"),
    "an address": (b'{"image": "http://127.0.0.1/a.png", "prompt": "<OD>"}', 422, "image: not base64"),
    "half a letter": (b'{"image": "", "prompt": "\\ud800"}', 422, "prompt: Input should be a valid string"),
    "numbers": (b'{"image": "", "prompt": 5}', 422, "prompt: Input should be a valid string"),
    "nothing": (b"{}", 422, "image: Field required; prompt: Field required"),
}


@pytest.mark.parametrize("path", ["/run", "/stream"])
@pytest.mark.parametrize("what", REFUSED)
def test_bad_forms(client, what, path):
    body, status, message = REFUSED[what]
    told = client.post(path, body)
    assert told[0] == status and message in told[1]["error"]


@pytest.mark.parametrize("what", BAD_JSON)
def test_bad_json(client, what):
    body, status, message = BAD_JSON[what]
    told = client.post("/run", body, JSON)
    assert told[0] == status and message in told[1]["error"]


def test_other_types_and_places(client):
    for kind in ("text/plain", "image/png", "application/x-www-form-urlencoded", ""):
        status, told = client.post("/run", b"{}", {"content-type": kind})
        assert status == 415 and "must be multipart/form-data, with the image as a file" in told["error"]
    status, told = client.post("/elsewhere", b"")
    assert status == 404 and "there is no /elsewhere: POST /run" in told["error"]
    assert client.send("GET", "/run").status == 405


def test_messages_are_no_longer_than_people_read(client):
    status, told = client.post("/run", form(PHOTO, prompt="<" + "X" * 5000 + ">"))
    assert status == 422 and len(told["error"]) == 1001


def test_bodies_that_are_too_large(tiny):
    with serving(tiny, max_upload=1000 + len(PHOTO)) as client:
        assert client.run(PHOTO, "<OD>")
        status, told = client.post("/run", form(PHOTO + b"x" * 1000, prompt="<OD>"))
        assert status == 413 and "the body is larger than" in told["error"]
        with client.connect() as connection:  # nothing says how much will come
            head = f"POST /run HTTP/1.1\r\nhost: a\r\ncontent-type: {FORM['content-type']}\r\n"
            connection.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
            connection.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            assert b" 413 " in connection.recv(4096)
        client.until(accepted=0)


def test_pictures_of_too_many_pixels(client):
    """A few bytes of black: refused by what the header says."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    for side, said in ((9000, "9000×9000 pixels"), (60_000, "too many pixels")):
        header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
        pixels = zlib.compress(bytes(1 + side // 8))
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
        status, told = client.post("/run", form(bomb, prompt="<OD>"))
        assert (status, told) == (422, {"error": f"the image has {said}; make it no larger than 64 megapixels"})


def test_too_many_requests(tiny, gate):
    with serving(tiny, max_queue=2) as client, ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(client.run, png(noise_image(seed)), "<OD>") for seed in range(2)]
        client.until(accepted=2)
        for path in ("/run", "/stream"):
            response = client.send("POST", path, form(PHOTO, prompt="<OD>"), FORM)
            assert (response.status, response.headers["retry-after"]) == (429, "1")
            assert json.load(response) == {"error": "2 requests are being answered, no more are taken: try again"}
        assert client.get("/health")["accepted"] == 2
        gate.set()
        assert all(answer.result()["task"] == "<OD>" for answer in answers)
        assert client.run(PHOTO, "<OD>") and client.get("/health")["accepted"] == 0


@pytest.mark.parametrize("path", ["/run", "/stream"])
def test_answers_that_take_too_long(tiny, gate, path):
    with serving(tiny, timeout=0.3) as client:
        response = client.send("POST", path, form(PHOTO, prompt="<OD>"), FORM)
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert json.load(response) == {"error": "not answered within 0.3 seconds, the most here: try again"}
        client.until(accepted=0)
        gate.set()
    with serving(tiny) as client:
        assert client.run(PHOTO, "<OD>")


def test_a_stream_that_takes_too_long_says_so(talkative, steps):
    with serving(talkative, timeout=1.0) as client:
        for _ in range(15):
            steps.allowed.release()
        *events, last = client.stream(PHOTO, "<REGION_PROPOSAL>")
        assert "error" in last and "not answered within 1 seconds" in last["error"]
        assert events and all("instance" in event for event in events)
        steps.let_go()


def test_uploads_that_take_too_long(tiny):
    body = form(PHOTO, prompt="<OD>")
    with serving(tiny, timeout=0.3) as client, client.raw_post("/run", body[:100], len(body)) as connection:
        answer = connection.recv(4096)
        while b"}" not in answer and (more := connection.recv(4096)):  # the body may come by itself
            answer += more
        assert b" 408 " in answer and b"the request was not read within 0.3 seconds" in answer
        client.until(accepted=0)


def test_instances_come_before_the_answer_is_whole(talkative, steps):
    with serving(talkative) as client:
        for _ in range(12):
            steps.allowed.release()
        body = form(PHOTO, prompt="<REGION_PROPOSAL>", max_new_tokens=60)
        response = client.send("POST", "/stream", body, FORM)
        first = json.loads(response.readline())
        assert first["instance"]["box"] and steps.taken <= 12
        steps.let_go()
        *others, last = [json.loads(line) for line in response]
        assert len(others) + 1 == len(last["result"]["instances"]) > 1


@pytest.mark.parametrize("path", ["/run", "/stream"])
def test_nobody_works_for_clients_that_have_gone(talkative, steps, path):
    body = form(PHOTO, prompt="<REGION_PROPOSAL>", max_new_tokens=60)
    with serving(talkative) as client:
        connection = client.raw_post(path, body)
        for _ in range(12):
            steps.allowed.release()
        wait_until(lambda: steps.taken == 12)
        connection.close()
        client.until(accepted=0)
        steps.let_go()
        client.run(PHOTO, "<OD>", max_new_tokens=1)
        assert steps.taken < 30


def test_what_waits_for_clients_that_have_gone_is_not_begun(tiny, gate):
    with serving(tiny) as client, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(client.run, PHOTO, "<OD>")
        wait_until(lambda: client.service.worker._running)
        body = form(png(noise_image(1)), prompt="<OD>")
        with client.raw_post("/run", body):
            client.until(accepted=2)
        client.until(accepted=1)
        gate.set()
        assert answer.result()["task"] == "<OD>"
    assert client.service.worker.encoded == 1


def test_stopping_answers_what_was_accepted(tiny, gate):
    with serving(tiny) as client, ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(client.run, png(noise_image(seed)), "<OD>") for seed in range(6)]
        streams = [threads.submit(client.stream, png(noise_image(seed)), "<CAPTION>") for seed in range(2)]
        client.until(accepted=8)
        client.stop()
        threading.Timer(0.3, gate.set).start()
        client.join()
        expected = [tiny.run(noise_image(seed), "<OD>").to_dict()["text"] for seed in range(6)]
        assert [answer.result()["text"] for answer in answers] == expected
        assert all("result" in stream.result()[-1] for stream in streams)
        assert not client.service.worker.alive
        with pytest.raises(OSError):
            client.connect().sendall(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n") or client.get("/health")


@pytest.mark.parametrize("path", ["/run", "/stream"])
def test_clients_that_do_not_read_hold_nothing_up(tiny, monkeypatch, path):
    from florence_lite.serve import app

    as_line = app.as_line
    monkeypatch.setattr(app, "as_line", lambda content: as_line(content) + b" " * 10**7)  # more than buffers hold
    monkeypatch.setattr(app, "SENDING", 0.2)
    with serving(tiny, timeout=0.8) as client, client.raw_post(path, form(PHOTO, prompt="<OD>")):
        wait_until(lambda: client.service.worker.encoded)
        client.until(accepted=0)
        client.stop()
        client.join()
    assert not client.service.worker.alive


def test_a_fault_of_the_network_hits_those_that_it_hits(tiny, monkeypatch, caplog):
    from florence_lite.inference.pipeline import Pipeline

    step = Pipeline.step

    def faulty(pipeline):
        monkeypatch.setattr(Pipeline, "step", step)
        raise RuntimeError("out of memory")

    with serving(tiny) as client, caplog.at_level(logging.CRITICAL):
        for path in ("/run", "/stream"):
            monkeypatch.setattr(Pipeline, "step", faulty)
            assert client.post(path, form(PHOTO, prompt="<OD>")) == (500, {"error": "internal error: RuntimeError"})
        assert client.run(PHOTO, "<OD>") and client.get("/health")["accepted"] == 0


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_queue": 0}, "max_queue is 0; it must be a whole number of at least 1"),
        ({"max_upload": 2.5}, "max_upload is 2.5"),
        ({"cache": -1}, "cache is -1; it must be a whole number of at least 0"),
        ({"timeout": 0}, "timeout is 0; it must be a number of seconds above 0"),
    ],
)
def test_limits_that_make_no_sense(tiny, limits, message):
    from florence_lite.serve import create_app

    with pytest.raises(ValueError, match=message):
        create_app(tiny, **limits)
