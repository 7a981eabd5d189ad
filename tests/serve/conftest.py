"""Networks that are served, and gates that hold their work."""

import threading

import pytest

from florence_lite import Florence
from florence_lite.inference.continuous import DecodingQueue
from tests.serve.client import PATIENCE, serving
from tests.tiny import tiny_florence


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def both(request, toy_tokenizer) -> Florence:
    return tiny_florence(toy_tokenizer, request.param)


@pytest.fixture(scope="module")
def tiny(toy_tokenizer) -> Florence:
    return tiny_florence(toy_tokenizer, "decoder")


@pytest.fixture(scope="module")
def talkative(toy_tokenizer) -> Florence:
    """Its answers end at the limit."""
    return tiny_florence(toy_tokenizer, "encoder", eos_gain=None)


@pytest.fixture(scope="module")
def client(tiny):
    with serving(tiny) as client:
        yield client


@pytest.fixture
def gate(tiny, monkeypatch):
    """An event that the vision tower of `tiny` waits for."""
    opened, encode = threading.Event(), tiny.encoder.encode

    def held(images):
        assert opened.wait(PATIENCE)
        return encode(images)

    monkeypatch.setattr(tiny.encoder, "encode", held)
    yield opened
    opened.set()


class Steps:
    """Steps of the decoder that may be taken, and how many were. After `let_go` any number may."""

    def __init__(self):
        self.allowed, self.taken, self.free = threading.Semaphore(0), 0, False

    def take(self) -> None:
        assert self.free or self.allowed.acquire(timeout=PATIENCE)
        self.taken += 1

    def let_go(self) -> None:
        self.free = True
        self.allowed.release()


@pytest.fixture
def steps(monkeypatch):
    counted, step = Steps(), DecodingQueue.step
    monkeypatch.setattr(DecodingQueue, "step", lambda queue: (counted.take(), step(queue))[1])
    yield counted
    counted.let_go()
