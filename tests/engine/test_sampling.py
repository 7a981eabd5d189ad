import math

import pytest
import torch

from florence_lite.engine import GenerationOptions
from florence_lite.engine.sampling import Sampler

PROBABILITIES = torch.tensor([0.05, 0.4, 0.0, 0.25, 0.3])  # likeliest first: 1, 4, 3, 0
DRAWS = 4000


def frequencies(**values):
    sampler = Sampler(GenerationOptions(9, do_sample=True, seed=3, **values))
    logits = PROBABILITIES.log()
    drawn = torch.tensor([sampler(logits) for _ in range(DRAWS)])
    return torch.bincount(drawn, minlength=5) / DRAWS


def normalised(weights):
    weights = torch.tensor(weights)
    return weights / weights.sum()


@pytest.mark.parametrize(
    "values, expected",
    [
        ({}, [0.05, 0.4, 0.0, 0.25, 0.3]),
        ({"temperature": 0.5}, [0.05**2, 0.4**2, 0.0, 0.25**2, 0.3**2]),
        ({"temperature": 1e-300}, [0.0, 1.0, 0.0, 0.0, 0.0]),
        ({"top_k": 1}, [0.0, 1.0, 0.0, 0.0, 0.0]),
        ({"top_k": 2}, [0.0, 0.4, 0.0, 0.0, 0.3]),
        ({"top_k": 99}, [0.05, 0.4, 0.0, 0.25, 0.3]),
        ({"top_p": 1.0}, [0.05, 0.4, 0.0, 0.25, 0.3]),
        ({"top_p": 0.01}, [0.0, 1.0, 0.0, 0.0, 0.0]),
        ({"top_p": 0.6}, [0.0, 0.4, 0.0, 0.0, 0.3]),
        ({"top_p": 0.8}, [0.0, 0.4, 0.0, 0.25, 0.3]),
        # top_p looks at what top_k left: 0.4 / 0.7 < 0.6, so both stay.
        ({"top_k": 2, "top_p": 0.6}, [0.0, 0.4, 0.0, 0.0, 0.3]),
        ({"top_k": 2, "top_p": 0.5}, [0.0, 1.0, 0.0, 0.0, 0.0]),
    ],
)
def test_distribution(values, expected):
    expected = normalised(expected)
    drawn = frequencies(**values)
    assert (drawn - expected).abs().max() < 4 * math.sqrt(0.25 / DRAWS)
    assert (drawn[expected == 0] == 0).all()


def test_seed_repeats_and_none_does_not():
    logits = torch.zeros(1000)
    draw = {}
    for seed in (1, 2, None):
        for attempt in range(2):
            sampler = Sampler(GenerationOptions(9, do_sample=True, seed=seed))
            draw[seed, attempt] = [sampler(logits) for _ in range(8)]
    assert draw[1, 0] == draw[1, 1] != draw[2, 0]
    assert draw[None, 0] != draw[None, 1]


def test_global_generator_is_left_alone():
    state = torch.get_rng_state()
    Sampler(GenerationOptions(9, do_sample=True))(torch.zeros(5))
    assert torch.equal(state, torch.get_rng_state())
