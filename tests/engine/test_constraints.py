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


def test_an_answer_that_must_not_be_empty_cannot_end_at_once():
    logits = torch.zeros(5, 8)
    unforced, forced = GenerationOptions(9, not_empty=True, forced_bos=None), GenerationOptions(9, not_empty=True)
    free = GenerationOptions(9, forced_bos=None)
    constrain(logits, [(0, [2], unforced), (1, [2], free), (2, [2, 5], unforced), (3, [2, 0], forced)])
    assert logits[:, 2].isfinite().tolist() == [False, True, True, False, True]
