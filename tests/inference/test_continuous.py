"""A queue of prompts whose tasks and options differ: every answer equals that of a single call, whatever comes and goes
beside it."""

import random
import threading

import pytest
import torch

from florence_lite import Florence, Prompt
from florence_lite.inference.continuous import DecodingQueue, decode
from florence_lite.inference.decoding import Decoding
from tests.engine.test_steps import Breaks
from tests.tiny import SIDES, noise_image, tiny_florence

REGION = (3.0, 4.0, 30.0, 40.0)
ASKED = [
    (Prompt("<OD>"), {}),
    (Prompt("<CAPTION>"), {"num_beams": 3}),
    (Prompt("<MORE_DETAILED_CAPTION>"), {"max_new_tokens": 30}),
    (Prompt("<OPEN_VOCABULARY_DETECTION>", phrases=["dog", "sign", "cat"]), {"threshold": 0.3}),
    (Prompt("<REGION_TO_CATEGORY>", region=REGION), {}),
    (Prompt("<CAPTION_TO_PHRASE_GROUNDING>", "a dog and a sign"), {}),
    (Prompt("<OD>"), {"compat": True, "max_new_tokens": 20}),
    (Prompt("<VQA>", "What is it?"), {"do_sample": True, "seed": 4}),
    (Prompt("<OCR>"), {"num_beams": 2, "no_repeat_ngram_size": 3}),
    (Prompt("<OD>"), {"labels": ["dog", "cat"]}),
    (Prompt("<CAPTION>"), {"max_new_tokens": 1}),
]


@pytest.fixture(scope="module", params=SIDES)
def florence(request, toy_tokenizer) -> Florence:
    return tiny_florence(toy_tokenizer, request.param)


def rows_of(florence, image, prompt, options):
    answering = florence.answering
    requests = answering.requests(answering.ask(prompt, options), image.size_wh)
    return answering.rows([(image, request) for request in requests], options)


@pytest.fixture(scope="module")
def work(florence):
    """Rows about three images, and the answers to each of them alone."""
    images = florence.encode([noise_image(seed) for seed in range(3)])
    rows = [row for image in images for prompt, options in ASKED for row in rows_of(florence, image, prompt, options)]
    random.Random(0).shuffle(rows)
    return rows, [decode(florence.answering.decoding, [row])[0] for row in rows]


def same(found, expected):
    assert found.generated == expected.generated
    assert found.log_odds == (None if expected.log_odds is None else pytest.approx(expected.log_odds, abs=1e-4))
    for column in ("token_logprobs", "location_logprobs", "tolerance_logprobs", "mean_bins"):
        found_column, expected_column = getattr(found.scores, column), getattr(expected.scores, column)
        torch.testing.assert_close(found_column, expected_column, atol=1e-3, rtol=1e-4, equal_nan=True)


@pytest.fixture
def at_once(monkeypatch):
    """Lets so many rows fit into memory."""

    def set_to(count):
        for name, value in (("room", count), ("row_bytes", lambda *_: 1), ("source_bytes", lambda *_: 0)):
            monkeypatch.setattr(Decoding, name, value)

    return set_to


@pytest.mark.parametrize("count", [1, 3, 10, 1000])
def test_mixed_rows_equal_single_ones(florence, work, at_once, count):
    rows, expected = work
    assert len({len(each.generated.ids) for each in expected}) > 5
    at_once(count)
    for found, alone in zip(decode(florence.answering.decoding, rows), expected, strict=True):
        same(found, alone)


def test_rows_join_those_that_are_being_answered(florence, work, at_once):
    """Some at every step, so that hardly any begin together."""
    rows, expected = work
    at_once(9)
    queue, left, tickets = DecodingQueue(florence.answering.decoding), list(rows), []
    finished = []
    while left or queue:
        for _ in range(min(2, len(left))):
            tickets.append(queue.submit(left.pop(0)))
        finished += queue.step()
        assert len(queue._running) <= 9
    assert sorted(map(id, finished)) == sorted(map(id, tickets)), "each once"
    assert finished != tickets, "short answers do not wait for long ones"
    for ticket, alone in zip(tickets, expected, strict=True):
        same(ticket.answer.result(), alone)


@pytest.mark.parametrize(("room", "least"), [(3, 3), (9, 8), (40, 33)])
def test_places_are_filled_while_others_wait(florence, at_once, room, least):
    """Fewer than a quarter of them are free in a step, and fewer than eight."""
    at_once(room)
    image, queue = florence.encode(noise_image(0)), DecodingQueue(florence.answering.decoding)
    for number in range(3 * room):
        [row] = rows_of(florence, image, Prompt("<OD>"), {"max_new_tokens": 3 + 7 * number % 20})
        queue.submit(row._replace(make_guide=lambda: Breaks("never", 0)))
    while queue.waiting:
        finished = queue.step()
        assert least <= len(queue._running) + len(finished) <= room or not queue.waiting


def test_another_thread_asks_while_one_works(florence, work):
    rows, expected = work
    queue, over, arrived = DecodingQueue(florence.answering.decoding), threading.Event(), threading.Event()

    def serve():
        while not over.is_set():
            if queue:
                queue.step()
            else:
                arrived.wait(0.01)

    worker = threading.Thread(target=serve, daemon=True)
    worker.start()
    tickets = []
    for row in rows:
        tickets.append(queue.submit(row))
        arrived.set()
    found = [ticket.answer.result(timeout=60) for ticket in tickets]
    over.set()
    worker.join()
    for each, alone in zip(found, expected, strict=True):
        same(each, alone)


def test_a_row_that_fails_is_alone_with_it(florence):
    image = florence.encode(noise_image(0))
    [row] = rows_of(florence, image, Prompt("<OD>"), {})
    [alone] = decode(florence.answering.decoding, [row])

    def no_guide():
        raise ValueError("these labels cannot be")

    queue = DecodingQueue(florence.answering.decoding)
    bad, good = queue.submit(row._replace(make_guide=no_guide)), queue.submit(row)
    while queue:
        queue.step()
    assert isinstance(bad.answer.exception(), ValueError)
    same(good.answer.result(), alone)


def test_a_prompt_that_cannot_be_read_or_a_guide_that_breaks_is_alone_with_it(florence):
    image = florence.encode(noise_image(0))
    [row] = rows_of(florence, image, Prompt("<OD>"), {"max_new_tokens": 12})
    [alone] = decode(florence.answering.decoding, [row])
    queue = DecodingQueue(florence.answering.decoding)
    unreadable = row._replace(prompt_ids=[0, 10**6, 2])
    broken = [row._replace(make_guide=lambda each=each: Breaks(each, 3)) for each in ("advance", "allowed")]
    tickets = [queue.submit(each) for each in (row, unreadable, row, *broken, row)]
    while queue:
        queue.step()
    for place in (0, 2, 5):
        same(tickets[place].answer.result(timeout=0), alone)
    for place in (1, 3, 4):
        assert tickets[place].answer.exception(timeout=0) is not None


def test_an_error_of_scores_or_of_a_threshold_is_an_answer(florence, monkeypatch):
    image = florence.encode(noise_image(0))
    [row] = rows_of(florence, image, Prompt("<OD>"), {"max_new_tokens": 4})
    [phrase] = rows_of(florence, image, Prompt("<OPEN_VOCABULARY_DETECTION>", phrases=["dog"]), {})

    def fail(*_):
        raise RuntimeError("no memory is left")

    queue = DecodingQueue(florence.answering.decoding)
    bad, good = queue.submit(phrase._replace(is_present=fail)), queue.submit(row)
    while queue:
        queue.step()
    assert good.answer.result().generated.ids
    with monkeypatch.context() as patched:
        patched.setattr(Decoding, "scores", fail)
        unscored = [queue.submit(row) for _ in range(2)]
        finished = []
        while queue:
            finished += queue.step()
    assert set(finished) == set(unscored)
    for ticket in (bad, *unscored):
        with pytest.raises(RuntimeError, match="no memory"):
            ticket.answer.result(timeout=0)
    again = queue.submit(row)
    while queue:
        queue.step()
    same(again.answer.result(), good.answer.result())


def test_weights_that_are_nan_end_every_row(toy_tokenizer):
    florence = tiny_florence(toy_tokenizer, "decoder")
    image = florence.encode(noise_image(0))
    rows = rows_of(florence, image, Prompt("<OD>"), {}) * 3
    with torch.no_grad():
        florence.model.decoder.layers[0].ffn.fc1.weight[0, 0] = float("nan")
    queue = DecodingQueue(florence.answering.decoding)
    tickets = [queue.submit(row) for row in rows]
    while queue:
        queue.step()
    for ticket in tickets:
        with pytest.raises(ValueError, match="NaN"):
            ticket.answer.result()


def test_what_is_cancelled_while_it_waits_is_not_begun(florence, at_once):
    at_once(1)
    image = florence.encode(noise_image(0))
    [row] = rows_of(florence, image, Prompt("<OD>"), {})
    queue = DecodingQueue(florence.answering.decoding)
    first, second, third = (queue.submit(row) for _ in range(3))
    queue.step()
    assert second.answer.cancel() and not first.answer.cancel()
    while queue:
        queue.step()
    assert second.begun is None and third.answer.result().generated == first.answer.result().generated
