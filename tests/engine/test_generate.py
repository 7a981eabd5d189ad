"""The decoding loop: cache, batches, beams that share an image, limits and errors."""

import dataclasses
import math

import pytest
import torch

from florence_lite.engine import GenerationOptions, generate, score
from florence_lite.engine.constraints import constrain
from florence_lite.engine.generate import start_search
from florence_lite.engine.sampling import Sampler
from florence_lite.model import CrossCache, FlorenceModel
from tests.engine.models import EOS, lively_model, random_states

GREEDY = GenerationOptions(12)
MIXED = [
    GREEDY,
    GenerationOptions(9, num_beams=3),
    GenerationOptions(14, num_beams=2, no_repeat_ngram_size=2, early_stopping=False, length_penalty=2.0),
    GenerationOptions(12, do_sample=True, seed=5),
    GenerationOptions(1),
    GenerationOptions(6, forced_bos=None, no_repeat_ngram_size=3),
    GenerationOptions(10, do_sample=True, temperature=0.7, top_k=20, top_p=0.9, seed=5),
    GenerationOptions(16, num_beams=5, ban_bos_after_forced=False, early_stopping="never"),
]
PREFIXES = [[2], [0, 9, 8, 7, 2], [0, 11, 2], [2], [0, 5, 2], [0, 30, 31, 32, 33, 34, 2], [0, 9, 2], [2]]


@pytest.fixture(scope="module")
def model():
    return lively_model()


@torch.inference_mode()
def naive(model: FlorenceModel, states, mask, prefix, options) -> list[int]:
    """One answer, the whole sequence computed anew at every step and for every beam: no cache, no batch, no padding."""
    search = start_search(prefix[-1], options)
    sampler = Sampler(options) if options.do_sample else None
    while search.result is None:
        scores, ids = [], []
        for history in search.histories:
            hidden = model.decode(torch.tensor([prefix + history[1:]]), model.cross_cache(states), mask)
            row = model.logits(hidden)[:, -1].log_softmax(-1)
            constrain(row, [(0, history, options)])
            best = row[0].sort(descending=True, stable=True)
            scores.append(best.values.tolist())
            ids.append(best.indices.tolist() if sampler is None else [sampler(row[0])])
        search.advance(scores, ids)
    return search.result.ids


def each_alone(model, states, mask, prefixes, options):
    """The answers of separate calls; rows of one image stand together."""
    per_image = len(prefixes) // len(states)
    answers = []
    for row, (prefix, option) in enumerate(zip(prefixes, options, strict=True)):
        image = slice(row // per_image, row // per_image + 1)
        answers += generate(model, states[image], mask[image], [prefix], option)
    return answers


@pytest.mark.parametrize("row", range(len(MIXED)))
def test_cache_equals_no_cache(model, row):
    states, mask = random_states(model, 1)
    (answer,) = generate(model, states, mask, [PREFIXES[row]], MIXED[row])
    assert answer.ids == naive(model, states, mask, PREFIXES[row], MIXED[row])


@pytest.mark.parametrize("images", [1, 2, 4, 8])
@pytest.mark.parametrize("seed, eos_gain", [(0, 4.0), (2, 7.0)])
def test_batch_equals_single(images, seed, eos_gain):
    """Mixed options and prefix lengths; rows end at different steps, so that rows and images are dropped on the way."""
    model = lively_model(seed=seed, eos_gain=eos_gain)
    states, mask = random_states(model, images)
    together = generate(model, states, mask, PREFIXES, MIXED)
    assert together == each_alone(model, states, mask, PREFIXES, MIXED)
    assert len({len(answer.ids) for answer in together}) > 3


def test_one_prefix_length_and_no_mask(model):
    states, _ = random_states(model, 2)
    together = generate(model, states, None, [[2]] * 6, MIXED[:6])
    assert together == [generate(model, states[r // 3 : r // 3 + 1], None, [[2]], MIXED[r])[0] for r in range(6)]


def test_a_row_does_not_notice_its_neighbours_randomness(model):
    states, mask = random_states(model, 1)
    sampled = GenerationOptions(10, do_sample=True, seed=7)
    (alone,) = generate(model, states, mask, [[2]], sampled)
    others = [dataclasses.replace(sampled, seed=seed) for seed in (1, 2)]
    batch = generate(model, states, mask, [[2]] * 4, [others[0], sampled, others[1], sampled])
    assert batch[1] == batch[3] == alone
    assert alone not in (batch[0], batch[2])


class Spy:
    """Records the rows, images and storage of the cross keys of every decoder call."""

    def __init__(self, model, monkeypatch):
        self.rows, self.images, self.pointers = [], [], []
        decode = model.decode

        def recorded(input_ids, cross: CrossCache, *rest, **more):
            self.rows.append(len(input_ids))
            self.images.append(len(cross.keys[0]))
            self.pointers.append(cross.keys[0].data_ptr())
            return decode(input_ids, cross, *rest, **more)

        monkeypatch.setattr(model, "decode", recorded)


def test_beams_share_cross_keys(monkeypatch):
    model = lively_model(eos_gain=None)
    states, mask = random_states(model, 2)
    spy = Spy(model, monkeypatch)
    cross = model.cross_cache(states)
    monkeypatch.setattr(model, "cross_cache", lambda states: pytest.fail("cross keys and values computed again"))
    generate(model, states, mask, [[2], [0, 4, 2]] * 2, GenerationOptions(8, num_beams=3), cross)
    assert set(spy.pointers) == {cross.keys[0].data_ptr()}
    # Prefixes of two lengths are read apart, the forced first id with each; the forced end needs no network.
    assert spy.rows == [2, 2] + [12] * 5
    assert spy.images == [2] * 7


def test_finished_rows_cost_nothing(monkeypatch):
    model = lively_model(eos_gain=None)
    states, mask = random_states(model, 4)
    spy = Spy(model, monkeypatch)
    generate(model, states, mask, [[2]] * 4, [GenerationOptions(n) for n in (3, 5, 1, 9)])
    assert spy.rows == [3, 2, 2, 1, 1, 1, 1]
    assert spy.images == spy.rows


def test_forced_and_banned_ids():
    """With a network that loves <s>: forced first, banned after, and repeated where the ban is off."""
    model = lively_model(eos_gain=0.0)
    states, mask = random_states(model, 1)
    usual = torch.linalg.vector_norm(model.embed_tokens.weight, dim=1).mean()
    with torch.no_grad():
        hidden = model.decode(torch.tensor([[2, 0]]), model.cross_cache(states), mask)[0, -1]
        model.embed_tokens.weight[0] = 4 * usual * hidden / hidden.norm()

    def decode(**values):
        return generate(model, states, mask, [[2]], GenerationOptions(6, **values))[0].ids

    banned = decode()
    assert banned[0] == 0 and 0 not in banned[1:]
    assert decode(ban_bos_after_forced=False)[:3] == [0, 0, 0]
    assert decode(num_beams=2, ban_bos_after_forced=False)[:2] == [0, 0]
    assert decode(num_beams=2)[1] != 0
    assert decode(forced_bos=7)[0] == 7


def test_truncated_says_who_ended_the_answer():
    model = lively_model(eos_gain=7.0)
    states, mask = random_states(model, 2)
    for answer in generate(model, states, mask, [[2]] * 2, GenerationOptions(40)):
        assert answer.ids[-1] == EOS and EOS not in answer.ids[:-1]
        assert not answer.truncated
        length = len(answer.ids)
    (cut,) = generate(model, states[1:], mask[1:], [[2]], GenerationOptions(length - 1))
    assert (cut.ids, cut.truncated) == ([*answer.ids[: length - 2], EOS], True)


def test_positions_reach_the_end_of_the_table():
    """Also while rows that finished early, with a longer prefix, are still carried along."""
    model = lively_model(eos_gain=None)
    positions = model.config.text.positions
    states, mask = random_states(model, 5)
    prefixes = [[0, *range(4, 34), 2]] + [[2]] * 4
    options = [GenerationOptions(4)] + [GenerationOptions(positions)] * 4
    together = generate(model, states, mask, prefixes, options)
    assert [len(answer.ids) for answer in together] == [4] + [positions] * 4
    assert together == each_alone(model, states, mask, prefixes, options)
    with pytest.raises(ValueError, match=rf"prefix of 32 ids and max_new_tokens = {positions} .* lower .* to 97"):
        generate(model, states, mask, prefixes, options[1])


@pytest.mark.parametrize(
    "prefixes, options, message",
    [
        ([[2]] * 3, GREEDY, "3 prefixes and 3 options for 2 images"),
        ([[2]] * 2, [GREEDY], "2 prefixes and 1 options for 2 images"),
        ([[2], []], GREEDY, "a prefix is empty"),
    ],
)
def test_rows_that_do_not_fit(model, prefixes, options, message):
    states, mask = random_states(model, 2)
    with pytest.raises(ValueError, match=message):
        generate(model, states, mask, prefixes, options)


def test_no_prefixes_no_answers(model):
    states, mask = random_states(model, 2)
    assert generate(model, states, mask, [], GREEDY) == []


@pytest.mark.parametrize("options", [GREEDY, GenerationOptions(12, num_beams=2), GenerationOptions(12, do_sample=True)])
def test_broken_weights_are_reported(options):
    model = lively_model()
    states, mask = random_states(model, 1)
    with torch.no_grad():
        model.decoder.layers[0].ffn.fc1.weight[0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        generate(model, states, mask, [[2]], options)


@pytest.mark.parametrize("row", range(len(MIXED)))
def test_rows_without_a_token_are_as_good_as_absent(model, row):
    """Of a table longer than the vocabulary, as published checkpoints have it."""
    states, mask = random_states(model, 1)
    exact = shortened(model, 60)
    options, prefix = MIXED[row], PREFIXES[row]
    (answer,) = generate(model, states, mask, [prefix], options, vocab_size=60)
    (expected,) = generate(exact, states, mask, [prefix], options)
    assert answer == expected
    (ours,) = score(model, states, mask, [prefix], [answer.ids], vocab_size=60)
    (theirs,) = score(exact, states, mask, [prefix], [answer.ids])
    torch.testing.assert_close(ours.token_logprobs, theirs.token_logprobs)
    assert max(token for answer in generate(model, states, mask, [prefix], GREEDY) for token in answer.ids) >= 60


def shortened(model: FlorenceModel, vocab_size: int) -> FlorenceModel:
    """The same network with a shorter table of ids."""
    config = dataclasses.replace(model.config, text=dataclasses.replace(model.config.text, vocab_size=vocab_size))
    short = FlorenceModel(config).eval()
    state = model.state_dict()
    short.load_state_dict(state | {"embed_tokens.weight": state["embed_tokens.weight"][:vocab_size]})
    return short
