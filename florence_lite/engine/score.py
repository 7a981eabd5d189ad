"""How likely the network finds given answers: by the states that decoding left, or by one teacher-forced pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from florence_lite.engine.limits import check_batch, check_length
from florence_lite.engine.prefill import Prefix, start_cache
from florence_lite.model import CrossCache, FlorenceModel
from florence_lite.model.device import inference_mode

LOGITS_AT_ONCE = 2**21  # Vocabulary-wide scores held at a time: 8 MiB of float32 for each copy.


@dataclass(frozen=True)
class Scores:
    """Natural logarithms of probabilities under the network, float32 on the CPU.

    token_logprobs: [T], of every id of the answer given the prefix and the ids before it.
    location_logprobs: [T], of the next id being any location, in place of each id of the answer.
    tolerance_logprobs: [T], of the next id being a location within `tolerance` bins of the one that was written, given
        that it is a location; NaN for ids that are none.
    mean_bins: [T], mean bin of the locations within `tolerance` of the one that was written; NaN for ids that are none.
    """

    token_logprobs: Tensor
    location_logprobs: Tensor
    tolerance_logprobs: Tensor
    mean_bins: Tensor


def joined(parts: Sequence[Scores]) -> Scores:
    """The scores of ids that follow each other."""
    return Scores(*(torch.cat([getattr(part, column.name) for part in parts]) for column in fields(Scores)))


@inference_mode()
def score(
    model: FlorenceModel,
    encoder_hidden_states: Tensor | None,
    encoder_mask: Tensor | None,
    prefixes: Sequence[list[int]],
    answers: Sequence[list[int]],
    locations: range = range(0),
    tolerance: int = 0,
    cross: CrossCache | None = None,
    vocab_size: int | None = None,
    read: Sequence[Prefix] | None = None,
    states: Sequence[Tensor | None] | None = None,
) -> list[Scores]:
    """Probabilities of the ids of `answers`, each read behind its prefix.

    encoder_hidden_states, encoder_mask, prefixes, cross: as in `generate`; the rows of an image stand together. The
        states may be None where there is `cross`.
    vocab_size: as in `generate`; what has no token has no share in the probabilities.
    answers: one list of ids per prefix, such as `Generated.ids`; may be empty.
    locations: ids of the coordinates, in order.
    tolerance: how many bins another location may lie from the written one and still count with it.
    read: `prefill` of the prefixes, each with the first id of its answer behind it, for a caller who has it.
    states: float [T, D] by which `generate` predicted an answer, None where it has none. Where there are all, none of
        them is read again.

    The probabilities are those of the bare network: no forced, banned or sharpened ids.
    Raises ValueError if the counts do not match, or if a prefix and its answer need more positions than the model has.
    """
    cross = cross or model.cross_cache(encoder_hidden_states)
    check_batch(len(cross.keys[0]), prefixes, answers, "answers")
    for prefix, answer in zip(prefixes, answers, strict=True):
        check_length(len(prefix), len(answer), model.config.text.positions, "the length of the answer")
    if not prefixes:
        return []

    if states and all(each is not None for each in states):
        hidden = torch.cat(list(states))
    elif read is None:
        hidden = _states(model, cross, encoder_mask, prefixes, answers)
    else:
        hidden = _states_behind(model, cross, encoder_mask, read, answers)
    return by_states(model, hidden, answers, locations, tolerance, vocab_size)


@inference_mode()
def by_states(
    model: FlorenceModel,
    hidden: Tensor,
    answers: Sequence[list[int]],
    locations: range,
    tolerance: int,
    vocab_size: int | None,
) -> list[Scores]:
    """`score` of answers by the states [N, D] that predict their N ids, one after the other."""
    targets = torch.tensor([token for answer in answers for token in answer], dtype=torch.int64, device=hidden.device)
    lengths = [len(answer) for answer in answers]
    scores = probabilities(model, hidden, targets, locations, tolerance, vocab_size)
    of_answers = (getattr(scores, column.name).split(lengths) for column in fields(Scores))
    return [Scores(*row) for row in zip(*of_answers, strict=True)]


def probabilities(
    model: FlorenceModel,
    hidden: Tensor,
    targets: Tensor,
    locations: range,
    tolerance: int,
    vocab_size: int | None,
) -> Scores:
    """The scores of ids `targets` (int64 [N]), each predicted by a row of `hidden` [N, D]; the others as in `score`."""
    parts = []
    chunk = max(1, LOGITS_AT_ONCE // model.config.text.vocab_size)
    for states, ids in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        logprobs = model.logits(states).float()[:, :vocab_size].log_softmax(-1)
        of_bins = logprobs[:, locations.start : locations.stop]
        written = picked(logprobs, ids)
        parts.append((written, of_bins.logsumexp(-1), *_within(of_bins, ids - locations.start, tolerance)))
    return Scores(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def picked(numbers: Tensor, ids: Tensor) -> Tensor:
    """numbers[n, ids[n]] for every n, [N]; on Apple's GPUs without gathering from rows as long as a vocabulary."""
    if numbers.device.type == "mps":
        every = torch.arange(numbers.shape[1], device=ids.device)
        return numbers.masked_fill(every != ids[:, None], 0).sum(1)
    return numbers.gather(1, ids[:, None])[:, 0]


def _states(
    model: FlorenceModel,
    cross: CrossCache,
    encoder_mask: Tensor | None,
    prefixes: Sequence[list[int]],
    answers: Sequence[list[int]],
) -> Tensor:
    """[N, D], the states that predict the N ids of all answers."""
    inputs = [[*prefix, *answer[:-1]] for prefix, answer in zip(prefixes, answers, strict=True)]
    hidden = model.decode(_padded(inputs, cross), cross, encoder_mask)  # [R, T, D]
    return torch.cat(
        [row[len(p) - 1 : len(p) - 1 + len(a)] for row, p, a in zip(hidden, prefixes, answers, strict=True)]
    )


def _states_behind(
    model: FlorenceModel,
    cross: CrossCache,
    encoder_mask: Tensor | None,
    read: Sequence[Prefix],
    answers: Sequence[list[int]],
) -> Tensor:
    """The same where each prefix is read, with the first id of its answer behind it."""
    inputs = [answer[1:-1] for answer in answers]
    longest = max(map(len, inputs))
    of_rows: Sequence[Tensor] = [prefix.hidden[:0] for prefix in read]
    if longest:
        cache, padding = start_cache(model, read, max(prefix.length for prefix in read) + longest)
        place = torch.arange(cache.length + longest, device=cross.keys[0].device)
        left = torch.tensor(padding, device=place.device)[:, None]
        # Outside the table lie only ids that stand behind an answer.
        positions = (place[cache.length :] - left).clamp(0, model.config.text.positions - 1)
        mask = place >= left if any(padding) else None
        of_rows = model.decode(_padded(inputs, cross), cross, encoder_mask, cache, positions, mask)
    rows = zip(read, of_rows, inputs, answers, strict=True)
    return torch.cat([torch.cat([p.hidden, row[: len(ids)]])[: len(answer)] for p, row, ids, answer in rows])


def _padded(inputs: list[list[int]], cross: CrossCache) -> Tensor:
    """int64 [R, T]. Attention is causal: padding on the right changes nothing before it, and any id may stand there."""
    longest = max(map(len, inputs))
    return torch.tensor([ids + [0] * (longest - len(ids)) for ids in inputs], device=cross.keys[0].device)


def _within(of_bins: Tensor, chosen: Tensor, tolerance: int) -> tuple[Tensor, Tensor]:
    """Of the bins at most `tolerance` from the chosen one: their log-probability among all bins [N], and their mean
    [N]; NaN where none was chosen.

    of_bins: log-probabilities [N, bins]; chosen: int64 [N], outside of 0 … bins - 1 where none was chosen.
    """
    bins = of_bins.shape[1]
    every = torch.arange(bins, device=chosen.device)
    near = of_bins.masked_fill((every - chosen[:, None]).abs() > tolerance, float("-inf"))
    logprobs = near.logsumexp(-1) - of_bins.logsumexp(-1)
    means = near.softmax(-1) @ every.float()
    none = (chosen < 0) | (chosen >= bins)
    return logprobs.masked_fill(none, float("nan")), means.masked_fill(none, float("nan"))
