"""A checkpoint that was fine-tuned loads wherever it is wanted: elsewhere, from the Hub, and in transformers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from florence_lite.florence import Florence
from florence_lite.train.finetuning import finetune
from tests.checkpoint.test_hub import NAME, cache, no_proxy, server  # noqa: F401
from tests.train.squares import settings, write_base, write_squares

PROGRAM = """
import json, sys
from florence_lite import Florence
result = Florence.from_pretrained(sys.argv[1]).run(sys.argv[2], "<OD>", max_new_tokens=20)
print(json.dumps(result.token_ids))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def base(toy_tokenizer, tmp_path_factory) -> Path:
    return write_base(toy_tokenizer, "encoder", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trained(base, data, tmp_path_factory) -> Path:
    return finetune(settings(base, data, tmp_path_factory.mktemp("run"), steps=20))


@pytest.fixture(scope="module")
def answer(trained, data) -> tuple[int, ...]:
    return Florence.from_pretrained(trained).run(data / "0.png", "<OD>", max_new_tokens=20).token_ids


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_in_a_fresh_process(base, data, tmp_path, lora_rank):
    """From another folder; an adapter brings its base."""
    pytest.importorskip("peft")
    folder = finetune(settings(base, data, tmp_path / "run", steps=20, lora_rank=lora_rank))
    expected = Florence.from_pretrained(folder).run(data / "0.png", "<OD>", max_new_tokens=20).token_ids
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, data / "0.png"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert tuple(json.loads(done.stdout)) == expected


def test_from_a_hub(trained, answer, data, server, cache):  # noqa: F811
    server.push("me/mine", {path.name: path.read_bytes() for path in trained.iterdir()})
    assert Florence.from_pretrained("me/mine").run(data / "0.png", "<OD>", max_new_tokens=20).token_ids == answer


def test_in_transformers(trained, data):
    transformers = pytest.importorskip("transformers")
    native = transformers.Florence2ForConditionalGeneration.from_pretrained(trained).eval()
    processor = transformers.AutoProcessor.from_pretrained(trained, backend="pil")
    ours = Florence.from_pretrained(trained)
    for name in ("0.png", "3.png"):
        result = ours.run(data / name, "<OD>", max_new_tokens=20, compat=True)
        inputs = processor(text="<OD>", images=result.image, return_tensors="pt")
        expected = native.generate(**inputs, max_new_tokens=20)[0, 1:].tolist()
        assert list(result.token_ids) == expected[: len(result.token_ids)]
        assert 2 in result.token_ids or len(expected) == 20
