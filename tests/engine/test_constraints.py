import math

import pytest
import torch

from florence_lite.engine import GenerationOptions
from florence_lite.engine.constraints import constrain, repeated_ngrams


@pytest.mark.parametrize(
    "history, size, banned",
    [
        ([2, 0, 5, 6, 5], 0, []),
        ([2, 0, 5, 6, 5], 2, [6]),
        ([2, 0, 5, 6, 5], 3, []),
        ([2, 0, 5, 6, 7, 5, 6], 3, [7]),
        ([2, 0, 5, 6, 7, 5, 6, 8, 5, 6], 3, [7, 8]),
        ([2, 0, 5, 5], 2, [5]),
        ([2, 0, 5, 5], 3, []),
        ([2, 0], 3, []),
        ([2], 2, []),
        ([2, 0, 5], 1, [0, 5]),  # the end token in front stays possible
    ],
)
def test_repeated_ngrams(history, size, banned):
    assert repeated_ngrams(history, GenerationOptions(9, no_repeat_ngram_size=size)) == banned


def test_constrain_bans_per_row():
    logits = torch.zeros(4, 8)
    strict = GenerationOptions(9, no_repeat_ngram_size=2)
    free = GenerationOptions(9, ban_bos_after_forced=False)
    unforced = GenerationOptions(9, forced_bos=None)
    constrain(logits, [(0, [2, 0, 5, 6, 5], strict), (1, [2, 0, 5, 6, 5], free), (3, [2, 5], unforced)])
    assert (logits == -math.inf).nonzero().tolist() == [[0, 0], [0, 6]]
    constrain(logits, [])


@pytest.mark.parametrize(
    ("end", "spread", "ends"),
    [
        (0.5, [0.1] * 4, True),  # 0.4 in sum
        (0.3, [0.1] * 4, False),  # less than the sum, more than each
        (0.3, [0.4, 0, 0, 0], False),
        (0.9, [0] * 4, True),
    ],
)
def test_coordinates_compete_with_an_empty_answer_together(end, spread, ends):
    rest = 1 - end - sum(spread)
    logits = torch.tensor([[rest / 3, rest / 3, end, rest / 3, *spread]] * 6).log()
    together = GenerationOptions(9, coordinates=range(4, 8), forced_bos=None)
    apart = GenerationOptions(9, forced_bos=None)
    sampled = GenerationOptions(9, coordinates=range(4, 8), forced_bos=None, do_sample=True)
    forced = GenerationOptions(9, coordinates=range(4, 8), ban_bos_after_forced=False)
    rows = [(0, [2], together), (1, [2], apart), (3, [2], sampled), (4, [2, 5], together), (5, [2, 0], forced)]
    constrain(logits, rows)
    assert logits[:, 2].isfinite().tolist() == [ends, True, True, True, True, ends]
