"""Searches on a Markov chain instead of a network."""

import math
from itertools import product

import pytest
import torch

from florence_lite.engine import GenerationOptions
from florence_lite.engine.search import BeamSearch, SingleSearch

START, BOS, EOS, SIZE = 2, 0, 2, 5


def chain(seed: int) -> list[list[float]]:
    """Log-probability of each next id after each id."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SIZE, SIZE, generator=generator).mul(2).log_softmax(-1).tolist()


def run(search, table, width=SIZE):
    """Drive a search to its result; every id after its first candidate falls out below `width`."""
    while search.result is None:
        ranked = [sorted(range(SIZE), key=lambda i, h=h: -table[h[-1]][i])[:width] for h in search.histories]
        scores = [[table[h[-1]][i] for i in ids] for h, ids in zip(search.histories, ranked, strict=True)]
        before = [list(history) for history in search.histories]
        parents = search.advance(scores, ranked)
        assert len(parents) == len(search.histories)
        for parent, history in zip(parents, search.histories, strict=True):
            assert history[:-1] == before[parent]
    assert search.histories == []
    return search.result


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("length_penalty", [0.0, 0.5, 1.0, 2.0])
def test_wide_beams_find_the_best_of_all_answers(seed, length_penalty):
    table, limit = chain(seed), 5
    ranks = {}
    others = [i for i in range(SIZE) if i != EOS]
    for length in range(limit - 1):  # ids between the forced first and the end token
        for body in product(others, repeat=length):
            answer = [BOS, *body, EOS]
            forced_end = len(answer) == limit
            steps = list(zip(answer, answer[1:], strict=False))[: -1 if forced_end else None]
            ranks[tuple(answer)] = sum(table[a][b] for a, b in steps) / len(answer) ** length_penalty
    options = GenerationOptions(limit, num_beams=200, length_penalty=length_penalty, early_stopping="never")
    result = run(BeamSearch(START, options), table)
    assert tuple(result.ids) == max(ranks, key=ranks.get)
    assert result.truncated == (len(result.ids) == limit)


def test_greedy_follows_the_likeliest():
    table = chain(0)
    result = run(SingleSearch(START, GenerationOptions(6)), table, width=1)
    expected = [BOS]
    while len(expected) < 5 and expected[-1] != EOS:
        expected.append(max(range(SIZE), key=table[expected[-1]].__getitem__))
    assert result.ids == (expected if expected[-1] == EOS else [*expected, EOS])


@pytest.mark.parametrize("kind", [SingleSearch, BeamSearch])
@pytest.mark.parametrize(
    "max_new_tokens, forced_bos, ids", [(1, 0, [EOS]), (1, None, [EOS]), (2, 0, [BOS, EOS]), (2, None, None)]
)
def test_limits_that_need_no_network(kind, max_new_tokens, forced_bos, ids):
    search = kind(START, GenerationOptions(max_new_tokens, num_beams=2 - (kind is SingleSearch), forced_bos=forced_bos))
    if ids is None:
        assert search.result is None
    else:
        assert (search.result.ids, search.result.truncated) == (ids, True)


def offer(search, *rows):
    """Candidates of every row as {id: probability}."""
    rows = [sorted(row.items(), key=lambda item: -item[1]) for row in rows]
    scores = [[math.log(p) if p else -math.inf for _, p in row] for row in rows]
    return search.advance(scores, [[i for i, _ in row] for row in rows])


@pytest.mark.parametrize(
    "early_stopping, length_penalty, steps, ids",
    [
        (True, 1.0, 2, [3, EOS]),
        (False, 1.0, 3, [3, 3, EOS]),
        (False, 0.0, 3, [3, 3, EOS]),
        ("never", 1.0, None, None),  # log(0.0048) / 20 still beats log(0.12) / 2
        ("never", 0.0, 3, [3, 3, EOS]),
        ("never", -1.0, 3, [EOS]),  # long answers are punished: the present length is the most favourable
    ],
)
def test_when_beam_search_stops(early_stopping, length_penalty, steps, ids):
    options = GenerationOptions(
        20, num_beams=2, forced_bos=None, early_stopping=early_stopping, length_penalty=length_penalty
    )
    search = BeamSearch(START, options)
    rare = {EOS: 0.0, 3: 0.0, 4: 1e-6, 1: 1e-6, 0: 1e-6}
    offers = [
        [{3: 0.6, EOS: 0.3, 4: 0.1, 1: 0.0}],
        [{3: 0.8, EOS: 0.2, 4: 0.0, 1: 0.0}, rare],
        [{EOS: 0.99, 3: 0.01, 4: 0.0, 1: 0.0}, rare],
    ]
    taken = 0
    while search.result is None and taken < len(offers):
        offer(search, *offers[taken])
        taken += 1
    if ids is None:
        assert search.result is None
    else:
        assert (taken, search.result.ids, search.result.truncated) == (steps, ids, False)


def test_end_token_outside_the_best_does_not_finish():
    search = BeamSearch(START, GenerationOptions(20, num_beams=2, forced_bos=None))
    offer(search, {3: 0.5, 4: 0.3, EOS: 0.2, 1: 0.0})
    assert search.finished == []
    assert search.histories == [[START, 3], [START, 4]]


def test_fewer_rows_when_too_little_is_allowed():
    search = BeamSearch(START, GenerationOptions(20, num_beams=3, forced_bos=None))
    assert offer(search, {3: 0.6, EOS: 0.4, 4: 0.0, 1: 0.0, 0: 0.0}) == [0]
    assert offer(search, {EOS: 1.0, 3: 0.0, 4: 0.0, 1: 0.0, 0: 0.0}) == []
    assert search.result.ids == [3, EOS]
