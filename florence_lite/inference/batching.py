"""How many rows go through the decoder together, from a bound on the memory that their work may take."""

from __future__ import annotations

import torch

from florence_lite.checks import is_whole
from florence_lite.engine.prefill import TOKENS_AT_ONCE, suitable
from florence_lite.engine.score import LOGITS_AT_ONCE
from florence_lite.model import FlorenceConfig

MEMORY = 2**30  # bytes, where a caller does not say
LEAST = 2**26  # bytes: below that, a single row of a usual network does not fit
COPIES = 4  # of vocabulary-wide scores: as they come, in float32, their logarithms, and what is picked from them
FLOAT32 = 4  # bytes
PART_FOR_PREFIXES = 8  # one in so many bytes; the rest is for answers, which take longer


def check_memory(memory: int) -> int:
    """`memory` itself; ValueError where it is no number of bytes that anything could be answered with."""
    if not is_whole(memory, LEAST):
        raise ValueError(f"memory is {memory!r}; it must be a whole number of bytes, at least {LEAST:,} (64 MiB)")
    return memory


def token_bytes(config: FlorenceConfig, bytes_each: int) -> int:
    """What the decoder holds of a token that goes through it: what a layer makes of it, its keys and values in all
    layers, and those of a layer again, which are copied while a cache grows or changes its order."""
    text = config.text
    return ((8 + 2 * (text.decoder_layers + 1)) * text.d_model + text.ffn_dim) * bytes_each


def row_bytes(config: FlorenceConfig, bytes_each: int, positions: int, beams: int) -> int:
    """The most that decoding one answer takes, beside its `source_bytes`.

    positions: ids of prompt and answer in the decoder. beams: hypotheses of an answer.
    """
    text = config.text
    kept = 2 * (text.decoder_layers + 1) * text.d_model * positions * bytes_each  # as in `token_bytes`
    scores = COPIES * text.vocab_size * FLOAT32
    return beams * (kept + scores)


def source_bytes(config: FlorenceConfig, bytes_each: int, tokens: int) -> int:
    """The most that image and prompt tokens take that an answer attends to.

    Keys and values twice: images that are finished are dropped by copying the others. The encoder works on a few times
    its states.
    """
    text = config.text
    return tokens * (4 * text.decoder_layers * text.d_model + 8 * text.d_model + text.ffn_dim) * bytes_each


def prefix_tokens(memory: int, config: FlorenceConfig, bytes_each: int, device: torch.device) -> int:
    """Tokens of prefixes that are read together: as many as suit the device, if they fit into a part of `memory`; but
    as many as suit a processor in any case."""
    fitting = memory // PART_FOR_PREFIXES // token_bytes(config, bytes_each)
    return min(suitable(device), max(TOKENS_AT_ONCE, fitting))


def room_for_rows(memory: int, config: FlorenceConfig, bytes_each: int, device: torch.device) -> int:
    """Bytes of `memory` that are left for rows beside what reading prefixes and scoring take; may be less than none."""
    reading = prefix_tokens(memory, config, bytes_each, device) * token_bytes(config, bytes_each)
    return memory - reading - COPIES * LOGITS_AT_ONCE * FLOAT32


def tokens_at_once(memory: int, config: FlorenceConfig, bytes_each: int) -> int:
    """Tokens of answers that can be scored together, padding counted."""
    return max(1, (memory - COPIES * LOGITS_AT_ONCE * FLOAT32) // token_bytes(config, bytes_each))
