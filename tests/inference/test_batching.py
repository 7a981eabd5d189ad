"""The bound on memory: how many rows follow from it, and that it holds for the longest answers."""

import sys
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import florence_lite.inference.batching as batching
import florence_lite.inference.decoding as decoding_module
from florence_lite import Prompt
from florence_lite.engine.generate import DecodingBatch
from florence_lite.inference.batching import MEMORY, room_for_rows, row_bytes, source_bytes
from florence_lite.model import FlorenceConfig
from tests.tiny import POSITIONS, SIDES, noise_image, tiny_florence

CPU = torch.device("cpu")
prefill_module = sys.modules["florence_lite.engine.prefill"]  # hidden by its function
LONGEST = {"max_new_tokens": POSITIONS, "threshold": 0.0}


class Counted(TorchDispatchMode):
    """Counts the bytes of the tensors that exist, made while it is on; `peak` is the most at a time."""

    def __init__(self):
        super().__init__()
        self.sizes, self.peak = {}, 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        made = function(*arguments, **(named or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage):
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            weakref.finalize(storage, self.sizes.pop, key, None)
            self.peak = max(self.peak, sum(self.sizes.values()))


@pytest.mark.parametrize("size", ["nano", "base", "large"])
@pytest.mark.parametrize("memory", [2**26, MEMORY, 2**33])
def test_a_gpu_reads_no_more_prefixes_together_than_are_allowed_for(size, memory):
    config, gpu = FlorenceConfig.preset(size), torch.device("cuda")
    tokens = batching.prefix_tokens(memory, config, 4, gpu)
    reading, scoring = tokens * batching.token_bytes(config, 4), 4 * batching.LOGITS_AT_ONCE * 4
    assert batching.prefix_tokens(memory, config, 4, CPU) == prefill_module.TOKENS_AT_ONCE <= tokens
    assert tokens <= prefill_module.TOKENS_ON_GPU
    assert room_for_rows(memory, config, 4, gpu) + reading + scoring == memory
    assert reading <= memory / 8 or tokens == prefill_module.TOKENS_AT_ONCE


@pytest.mark.parametrize("side", SIDES)
def test_as_many_prefixes_are_read_together_as_room_is_kept_for(toy_tokenizer, monkeypatch, side):
    florence = tiny_florence(toy_tokenizer, side)
    monkeypatch.setattr(decoding_module, "prefix_tokens", lambda *_: 2)
    model, shapes = florence.answering.decoding.model, []
    decode = model.decode
    monkeypatch.setattr(
        model, "decode", lambda ids, *given, **named: shapes.append(ids.shape) or decode(ids, *given, **named)
    )
    images = florence.encode([noise_image(seed) for seed in range(2)])
    asked = florence.answering.ask(Prompt("<OD>"), {})
    pairs = [(image, request) for image in images for request in florence.answering.requests(asked, image.size_wh)]
    florence.answering.decoding.begin(florence.answering.rows(pairs, {}))
    assert shapes and all(count == 1 for count, _ in shapes)


def searches_of_steps(monkeypatch) -> list[int]:
    """How many answers are worked on at every step from now on."""
    counts, advance = [], DecodingBatch.advance
    monkeypatch.setattr(
        DecodingBatch, "advance", lambda self, hidden: counts.append(len(self.searches)) or advance(self, hidden)
    )
    return counts


def rows_at_once(memory: int, config: FlorenceConfig, positions: int, beams: int, source: int) -> int:
    row = row_bytes(config, 4, positions, beams) + source_bytes(config, 4, source)
    return max(1, room_for_rows(memory, config, 4, CPU) // row)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("side", SIDES)
def test_the_bound_holds_for_the_longest_answers(toy_tokenizer, monkeypatch, side, beams):
    florence = tiny_florence(toy_tokenizer, side, eos_gain=None)  # no answer ends by itself
    monkeypatch.setattr(batching, "LOGITS_AT_ONCE", 2**12)
    monkeypatch.setattr(sys.modules["florence_lite.engine.score"], "LOGITS_AT_ONCE", 2**12)
    monkeypatch.setattr(batching, "TOKENS_AT_ONCE", 32)
    monkeypatch.setattr(prefill_module, "TOKENS_AT_ONCE", 32)
    bound = florence.answering.decoding.memory = 2**21
    rows = searches_of_steps(monkeypatch)
    images = [florence.encode(noise_image(seed), keep_image=False) for seed in range(3)]
    for image in images:
        florence.run(image, "<OD>", max_new_tokens=2)  # keeps keys and values of the image
    prompts = [Prompt("<OPEN_VOCABULARY_DETECTION>", phrases=["dog", "cat", "sign"]), Prompt("<OD>")] * 3
    rows.clear()
    with Counted() as counted:
        results = florence.run([image for image in images for _ in range(2)], prompts, num_beams=beams, **LONGEST)
    assert all(result.truncated for result in results)
    assert counted.peak <= bound
    assert 1 < max(rows) < 12, "neither one by one, nor without a bound"
    assert counted.peak > bound / 8, "the bound is not used"


def test_more_memory_takes_more_rows_and_the_answers_stay(toy_tokenizer, monkeypatch):
    florence = tiny_florence(toy_tokenizer, "decoder")
    config = florence.model.config
    small, large = (rows_at_once(memory, config, POSITIONS, 1, 0) for memory in (2**26, MEMORY))
    assert 1 <= small < large / 8
    phrases = [f"dog {number}" for number in range(30)]
    wide = florence.detect(noise_image(0), phrases, threshold=0.3)
    florence.answering.decoding.memory = 1  # one row at a time, however little it is
    narrow = florence.detect(noise_image(0), phrases, threshold=0.3)
    assert wide.token_ids == narrow.token_ids and wide.presence == pytest.approx(narrow.presence, abs=1e-4)
    decoding, rows = florence.answering.decoding, []
    begin = decoding.begin
    monkeypatch.setattr(decoding, "begin", lambda few, *more: rows.append(len(few)) or begin(few, *more))
    *_, last = florence.stream(noise_image(0), "<OPEN_VOCABULARY_DETECTION>", phrases=phrases[:5], threshold=0.3)
    assert rows == [1] * 5 and list(last.presence) == phrases[:5]


def test_a_list_of_encoded_images_is_one_batch(toy_tokenizer, monkeypatch):
    """As many prompts as fit are answered together, however many images they are about."""
    florence = tiny_florence(toy_tokenizer, "decoder")
    images = florence.encode([noise_image(seed) for seed in range(3)]) * 7
    prompts = [Prompt("<REGION_TO_CATEGORY>", region=(0, 0, 5 + number, 9)) for number in range(len(images))]
    rows = searches_of_steps(monkeypatch)
    results = florence.run(images, prompts)
    assert rows[0] == 21
    for image, prompt, result in zip(images, prompts, results, strict=True):
        assert result.token_ids == florence.run(image, prompt).token_ids


def test_hundreds_of_rows_of_the_nano_network_and_few_of_the_large_one():
    def rows(preset: str, beams: int) -> int:
        config = FlorenceConfig.preset(preset)
        own = config.image_tokens if config.prompt_side == "encoder" else 0
        return rows_at_once(MEMORY, config, config.text.positions, beams, own)

    assert rows("nano", 1) > 200 > 20 > rows("base", 1) >= rows("base", 3) >= rows("large", 3) >= 1


@pytest.mark.parametrize("memory", [0, 2**26 - 1, -5, 1.5, True, "1 GiB"])
def test_memory_that_is_none(toy_tokenizer, memory):
    florence = tiny_florence(toy_tokenizer, "decoder")
    with pytest.raises(ValueError, match="memory is .*; it must be a whole number of bytes, at least 67,108,864"):
        florence.memory = memory
    florence.memory = 2**28
    assert florence.memory == florence.answering.decoding.memory == 2**28
