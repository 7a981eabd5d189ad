"""What a server answers is what `Florence.run` answers, whoever else asks."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from florence_lite import Florence
from tests.serve.client import png, serving
from tests.tiny import noise_image

EXAMPLES = Path(__file__).parents[2] / "examples"
ASKED = [
    ("<OD>", {}),
    ("<CAPTION>", {}),
    ("<OPEN_VOCABULARY_DETECTION>", {"phrases": ["dog", "a red apple", "猫"]}),
    ("<OD>", {"threshold": 0.2, "num_beams": 2}),
    ("<REGION_TO_DESCRIPTION>", {"region": [10, 10, 60, 50]}),
    ("<VQA>", {"text": "what is it?", "choices": ["a dog", "an apple"]}),
    ("what is it?", {"max_new_tokens": 7}),
    ("<OD>", {"labels": ["dog", "door handle"]}),
    ("<OCR_WITH_REGION>", {}),
]


def alike(told, expected) -> bool:
    """The same, but for the rounding of float32 that depends on the batch."""
    if isinstance(expected, dict):
        return told.keys() == expected.keys() and all(alike(told[name], expected[name]) for name in expected)
    if isinstance(expected, list | tuple):
        return len(told) == len(expected) and all(map(alike, told, expected))
    return told == (pytest.approx(expected, abs=1e-3) if isinstance(expected, float) else expected)


def in_form(fields: dict) -> dict:
    return {name: ",".join(map(str, value)) if name == "region" else value for name, value in fields.items()}


def test_mixed_prompts_at_the_same_time(both):
    images = [noise_image(seed) for seed in range(3)]
    expected = [both.run(image, prompt, **fields).to_dict() for image in images for prompt, fields in ASKED]
    assert sum(len(each["instances"]) for each in expected) > 5
    with serving(both) as client, ThreadPoolExecutor(9) as threads:
        asked = [(png(image), prompt, in_form(fields)) for image in images for prompt, fields in ASKED]
        told = list(threads.map(lambda each: client.run(each[0], each[1], **each[2]), asked))
        assert client.get("/health")["images_encoded"] == len(images)
    assert all(map(alike, told, expected))


def test_streams_beside_each_other_and_beside_answers(both):
    images = [noise_image(seed) for seed in range(2)]
    asked = [(image, prompt, fields) for image in images for prompt, fields in ASKED]
    expected = [both.run(image, prompt, **fields).to_dict() for image, prompt, fields in asked]
    with serving(both) as client, ThreadPoolExecutor(12) as threads:
        streams = [threads.submit(client.stream, png(i), p, **in_form(f)) for i, p, f in asked]
        answers = [threads.submit(client.run, png(i), p, **in_form(f)) for i, p, f in asked]
        for stream, answer, right in zip(streams, answers, expected, strict=True):
            *events, last = stream.result()
            assert alike(answer.result(), right) and alike(last, {"result": right})
            words = "".join(event["text"] for event in events if "text" in event)
            instances = [event["instance"] for event in events if "instance" in event]
            assert len(instances) == (0 if "choices" in right else len(right["instances"]))
            assert words in ("", right["text"])


def test_a_network_that_sees():
    florence, picture = Florence.from_pretrained("scenes-nano"), EXAMPLES / "meadow.png"
    with serving(florence) as client:
        told = client.run(picture.read_bytes(), "<OD>")
        *instances, last = client.stream(picture.read_bytes(), "<OD>")
    expected = florence.run(picture, "<OD>").to_dict()
    assert len(expected["instances"]) > 2 and alike(told, expected) and alike(last["result"], expected)
    assert alike([each["instance"] for each in instances], expected["instances"])


def test_json_and_forms_are_the_same(client):
    image = png(noise_image(1))
    text = base64.b64encode(image).decode()
    expected = client.run(image, "<REGION_TO_DESCRIPTION>", region="10,10,60,50", max_new_tokens=5)
    for written in (text, f"data:image/png;base64,{text}"):
        body = {"image": written, "prompt": "<REGION_TO_DESCRIPTION>", "region": [10, 10, 60, 50], "max_new_tokens": 5}
        told = client.post("/run", json.dumps(body).encode(), {"content-type": "application/json; charset=utf-8"})
        assert told == (200, expected)


def test_letters_of_all_kinds_come_back(client):
    assert client.run(png(noise_image(0)), "<VQA>", text="猫?", choices=["猫 café", "🙂"])["choices"].keys() == {
        "猫 café",
        "🙂",
    }


def test_images_are_encoded_once(tiny):
    first, second = png(noise_image(1)), png(noise_image(2))
    with serving(tiny) as client:
        for _ in range(3):
            for image in (first, second):
                for prompt in ("<OD>", "<CAPTION>"):
                    client.run(image, prompt)
        client.stream(first, "<OD>")
        told = client.get("/health")
    assert (told["images_encoded"], told["images_kept"]) == (2, 2)
    assert 0 < told["bytes_kept"] < 2**20


def test_the_same_image_in_many_requests_at_once(tiny, gate):
    with serving(tiny) as client, ThreadPoolExecutor(6) as threads:
        answers = [threads.submit(client.run, png(noise_image(1)), "<OD>") for _ in range(6)]
        client.until(accepted=6)
        gate.set()
        assert all(answer.result() == answers[0].result() for answer in answers)
        assert client.get("/health")["images_encoded"] == 1


def test_images_that_were_used_last_stay(tiny):
    one, two, three = (png(noise_image(seed)) for seed in range(3))
    with serving(tiny) as client:
        client.run(one, "<OD>")
        size = client.get("/health")["bytes_kept"]
    with serving(tiny, cache=2 * size) as client:
        for image in (one, two, one, three, one):  # `two` has to go
            client.run(image, "<OD>")
        assert client.get("/health")["images_encoded"] == 3
        client.run(two, "<OD>")
        told = client.get("/health")
    assert (told["images_encoded"], told["images_kept"], told["bytes_kept"]) == (4, 2, 2 * size)


def test_without_a_cache(tiny):
    with serving(tiny, cache=0) as client:
        answers = [client.run(png(noise_image(1)), "<OD>") for _ in range(2)]
        told = client.get("/health")
    assert answers[0] == answers[1]
    assert (told["images_encoded"], told["images_kept"], told["bytes_kept"]) == (2, 0, 0)


def test_what_a_cache_has_room_for():
    from florence_lite.serve.worker import EncodedCache

    cache = EncodedCache(10)
    cache.add(b"a", "A", 6)
    cache.add(b"b", "B", 4)
    cache.add(b"b", "another", 4)
    cache.add(b"too large", "C", 11)
    assert (len(cache), cache.bytes, cache.find(b"a"), cache.find(b"b")) == (2, 10, "A", "B")
    assert cache.find(b"too large") is None
    cache.add(b"d", "D", 1)
    assert (len(cache), cache.bytes, cache.find(b"a"), cache.find(b"b")) == (2, 5, None, "B")


def test_tasks_and_description(client):
    prompts = {task["prompt"]: task["takes"] for task in client.get("/tasks")}
    assert prompts["<OD>"] == [] and prompts["<VQA>"] == ["text"] and prompts["<REGION_TO_OCR>"] == ["region"]
    described = client.get("/openapi.json")
    assert set(described["paths"]) == {"/run", "/stream", "/tasks", "/health"}
    body = described["paths"]["/run"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/json"}
    assert {"image", "prompt", "phrases", "region"} <= set(body["application/json"]["schema"]["properties"])
    assert {"413", "422", "429"} <= set(described["paths"]["/stream"]["post"]["responses"])
