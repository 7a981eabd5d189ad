"""Whether what a phrase names is in the image: the log-odds of an answer against none.

z = log P(the phrase, then any coordinate or `<poly>`) − log P(end at once), both right behind the forced first id. All
coordinates count together, because a network that is sure of an object spreads its first coordinate over neighbouring
bins. Where the prompt goes to the decoder, an answer does not repeat the phrase, and its probability is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from florence_lite.engine import Scores, score
from florence_lite.engine.prefill import Prefix
from florence_lite.engine.score import LOGITS_AT_ONCE
from florence_lite.inference.chunks import chunks
from florence_lite.model import CrossCache, FlorenceModel
from florence_lite.model.device import inference_mode
from florence_lite.tokens import Vocabulary


class Opening(NamedTuple):
    """How a network would begin its answer. log_odds: z, as above. empty: scores of the answer that ends at once."""

    log_odds: float
    empty: Scores


@inference_mode()
def openings(
    model: FlorenceModel, vocabulary: Vocabulary, read: Sequence[Prefix], first: list[int], size: int
) -> list[Opening]:
    """Of answers that do not repeat their phrase, from prefixes that are read.

    first: the forced first id, read with each prefix, or []. size: how many ids take part.
    """
    found: list[Opening] = []
    written = torch.tensor([*first, vocabulary.eos])
    for few in chunks(read, max(1, LOGITS_AT_ONCE // (model.config.text.vocab_size * len(written)))):
        states = torch.stack([prefix.hidden[-len(written) :] for prefix in few])  # [R, 1 or 2, D]
        logprobs = model.logits(states).float()[..., :size].log_softmax(-1).cpu()
        last = logprobs[:, -1]
        of_bins = last[:, vocabulary.loc_first : vocabulary.loc_first + vocabulary.bins].logsumexp(-1)
        log_odds = torch.logaddexp(of_bins, last[:, vocabulary.poly_open]) - last[:, vocabulary.eos]
        of_empty = logprobs.gather(-1, written.expand(len(few), -1)[..., None])[..., 0]
        found += [Opening(each, _of_empty(row)) for each, row in zip(log_odds.double().tolist(), of_empty, strict=True)]
    return found


def openings_with_labels(
    model: FlorenceModel,
    vocabulary: Vocabulary,
    mask: Tensor | None,
    cross: CrossCache,
    labels: Sequence[list[int]],
    prefix: list[int],
    first: list[int],
    size: int,
) -> list[Opening]:
    """Of answers that begin with the ids of their phrase, one for each of the images in `mask`, `cross`.

    labels: these ids, [] for answers that name nothing. prefix: what every answer stands behind.
    """
    answers = [ids for label in labels for ids in ([*first, *label, vocabulary.poly_open], [*first, vocabulary.eos])]
    locations = range(vocabulary.loc_first, vocabulary.loc_first + vocabulary.bins)
    scores = score(model, None, mask, [prefix] * len(answers), answers, locations, 0, cross, size)
    found = []
    for named, empty in zip(scores[0::2], scores[1::2], strict=True):
        opened = torch.logaddexp(named.location_logprobs[-1], named.token_logprobs[-1])
        label = named.token_logprobs[len(first) : -1].double().sum()
        log_odds = label + opened.double() - empty.token_logprobs[-1].double()
        found.append(Opening(float(log_odds), _of_empty(empty.token_logprobs)))
    return found


def _of_empty(token_logprobs: Tensor) -> Scores:
    """Scores of an answer that places nothing."""
    nowhere = torch.full_like(token_logprobs, float("nan"))
    return Scores(token_logprobs, nowhere, nowhere, nowhere)
