"""Rows that enter and leave between steps, by the plain network and by the kernels: each as if it were alone."""

import pytest
import torch

from florence_lite.engine import GenerationOptions, generate, score
from florence_lite.engine.fast import FastModel
from florence_lite.engine.fast.steps import FastSteps
from florence_lite.engine.generate import DecodingBatch, start_search
from florence_lite.engine.prefill import prefill
from florence_lite.engine.score import by_states
from florence_lite.engine.steps import PlainSteps, Source, stacked
from tests.engine.fast.test_static_steps import StaticModel
from tests.engine.models import lively_model, random_states
from tests.engine.test_generate import MIXED, PREFIXES

KINDS = pytest.mark.parametrize(
    "kind", [lambda model: model, FastModel, StaticModel], ids=["plain", "kernels", "fixed shapes"]
)
SIZES = (None, 90)  # of the vocabulary: all ids, and those that have a token


def entries(network, images, rows):
    """Rows with what is needed to let them enter: (number of the image, prefix, options, size, read, source)."""
    states, mask = random_states(network, images)
    cross = network.cross_cache(states)
    sources = Source.all_of(cross, mask)
    found = []
    for row in range(rows):
        image, prefix, options = row * 3 % images, PREFIXES[row % 8], MIXED[row % 8]
        size = SIZES[row % 2] or network.config.text.vocab_size
        search = start_search(prefix[-1], options)
        if search.result is not None:
            continue
        [read] = prefill(network, cross, mask, [prefix + search.histories[0][1:]], [image])
        found.append((search, read, sources[image], size, (image, prefix, options)))
    alone = [
        generate(network, states[image][None], mask[image][None], [prefix], options, vocab_size=size)[0]
        for _, _, _, size, (image, prefix, options) in found
    ]
    return found, alone


@KINDS
@torch.inference_mode()
@pytest.mark.parametrize(("images", "most", "seed"), [(1, 3, 0), (3, 4, 2), (5, 2, 1), (2, 7, 3)])
def test_rows_take_the_places_of_finished_ones(kind, images, most, seed):
    """Greedy, sampled and beams, one or two whenever fewer than `most` searches run."""
    network = kind(lively_model(seed=seed, eos_gain=5.0))
    waiting, alone = entries(network, images, 20)
    batch, running = DecodingBatch(network), 0
    expected = {search: answer for (search, *_), answer in zip(waiting, alone, strict=True)}
    together = []
    while batch or waiting:
        while waiting and running < most:
            search, read, source, size, _ = waiting.pop(0)
            batch.enter(search, read, source, size)
            running += 1
        together.append(running)
        for search in batch.step():
            running -= 1
            answer = expected.pop(search)
            assert search.result == answer
            assert (search.result.states is None) == (answer.states is None)
            if answer.states is not None:
                torch.testing.assert_close(search.result.states, answer.states, atol=1e-5, rtol=1e-5)
    assert not expected and max(together) == most
    assert len(batch._states) == 0 and batch.rows == 0


class Breaks:
    """A guide without end that has an error behind so many ids."""

    start = 0

    def __init__(self, method: str, ids: int):
        self.method, self.ids = method, ids

    def advance(self, state, token_id):
        if self.method == "advance" and state == self.ids:
            raise LookupError("the guide is lost")
        return state + 1

    def allowed(self, state):
        if self.method == "allowed" and state == self.ids:
            raise LookupError("the guide is lost")
        return (range(3, 90),)


@KINDS
@torch.inference_mode()
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("method", ["advance", "allowed"])
def test_a_guide_that_breaks_ends_its_own_answer(kind, method, beams):
    network = kind(lively_model(eos_gain=None))
    waiting, alone = entries(network, 2, 4)
    batch = DecodingBatch(network)
    for search, read, source, size, _ in waiting:
        batch.enter(search, read, source, size)
    broken = start_search(2, GenerationOptions(20, num_beams=beams, guide=Breaks(method, 3)))
    batch.enter(broken, waiting[0][1], waiting[0][2], 90)
    finished = []
    while batch:
        finished += batch.step()
    assert isinstance(broken.fault, LookupError) and broken.result is None
    assert len(finished) == len(waiting) + 1 and batch.rows == 0
    assert [search.result for search, *_ in waiting] == alone


@KINDS
@torch.inference_mode()
@pytest.mark.parametrize("most", [1, 5])
def test_the_end_token_of_a_truncated_answer_has_a_state(kind, most):
    """Others come and go meanwhile; the scores are those of reading the whole answer again."""
    network = kind(lively_model(seed=1, eos_gain=3.0))
    states, mask = random_states(network, 3)
    waiting, alone = entries(network, 3, 16)
    images = {search: image for search, _, _, _, (image, _, _) in waiting}
    prefixes = {search: prefix for search, _, _, _, (_, prefix, _) in waiting}
    batch, running, truncated = DecodingBatch(network, with_last=True), 0, 0
    expected = {search: answer for (search, *_), answer in zip(waiting, alone, strict=True)}
    while batch or waiting:
        while waiting and running < most:
            search, read, source, size, _ = waiting.pop(0)
            batch.enter(search, read, source, size)
            running += 1
        for search in batch.step():
            running -= 1
            answer, part = search.result, slice(images[search], images[search] + 1)
            assert answer == expected.pop(search)
            truncated += answer.truncated
            again = score(network, states[part], mask[part], [prefixes[search]], [answer.ids], vocab_size=search.size)
            found = by_states(network, answer.states, [answer.ids], range(0), 0, search.size)
            torch.testing.assert_close(found[0].token_logprobs, again[0].token_logprobs, atol=1e-4, rtol=1e-4)
    assert not expected and 3 < truncated < 14


@KINDS
@torch.inference_mode()
def test_a_long_row_enters_behind_a_short_one_and_outlives_it(kind):
    """Positions reach the end of the table, and padding in front comes and goes."""
    network = kind(lively_model(eos_gain=None))
    positions = network.config.text.positions
    states, mask = random_states(network, 2)
    cross = network.cross_cache(states)
    long = [0, *[5, 6, 7] * 20]
    asked = [([2], positions), (long, positions + 1 - len(long)), ([2], 9), ([4, 2], positions - 1), (long, 30)]
    batch, running, waiting = DecodingBatch(network), {}, list(enumerate(asked))
    step = 0
    while waiting or batch:
        if waiting and step % 50 == 0:
            number, (prefix, length) = waiting.pop(0)
            search = start_search(prefix[-1], GenerationOptions(length))
            [read] = prefill(network, cross, mask, [[*prefix, 0]], [number % 2])
            source = Source.all_of(cross, mask)[number % 2]
            batch.enter(search, read, source, network.config.text.vocab_size)
            running[search] = number
        step += 1
        for search in batch.step() if batch else ():
            number = running.pop(search)
            prefix, length = asked[number]
            image = slice(number % 2, number % 2 + 1)
            [expected] = generate(network, states[image], mask[image], [prefix], GenerationOptions(length))
            assert search.result == expected and len(expected.ids) == length


@torch.inference_mode()
def test_kernels_take_part():
    model = lively_model()
    assert isinstance(DecodingBatch(FastModel(model)).network, FastSteps)
    assert isinstance(DecodingBatch(model).network, PlainSteps)


@torch.inference_mode()
def test_slots_of_finished_rows_are_used_again():
    network = FastModel(lively_model(eos_gain=None))
    states, _ = random_states(network, 1)
    cross = network.cross_cache(states)
    batch = DecodingBatch(network)
    held = []
    for _ in range(12):
        search = start_search(2, GenerationOptions(40, num_beams=3))
        [read] = prefill(network, cross, None, [[2, 0]], [0])
        batch.enter(search, read, Source(cross), 90)
        while batch:
            batch.step()
        held.append(len(batch.network._keys[0]))
    assert held[-1] == held[0] < 12 * 40


@torch.inference_mode()
def test_images_of_different_lengths_in_one_batch():
    model = lively_model()
    states, _ = random_states(model, 3)
    mask = torch.arange(states.shape[1]) < torch.tensor([[2], [5], [4]])
    cross = model.cross_cache(states)
    padded = Source.all_of(cross, mask)
    alone = Source(model.cross_cache(states[:1, :3]))
    assert stacked(padded) == padded
    for sources in ([padded[2], padded[0]], [padded[1], alone, padded[0]], [alone]):
        together = stacked(sources)
        assert [source.number for source in together] == list(range(len(sources)))
        for source, one in zip(sources, together, strict=True):
            for kept in ("keys", "values"):
                for part, expected in zip(getattr(one.unpadded, kept), getattr(source.unpadded, kept), strict=True):
                    assert torch.equal(part, expected)
