"""How likely the network finds many texts behind one prefix, and whether one id or another comes next.

Nothing of the size of the vocabulary, nor anything of the size of all rows, is kept: texts go through the network a few
at a time, and one number of each remains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from florence_lite.engine.limits import check_length
from florence_lite.engine.score import probabilities
from florence_lite.model import CrossCache, FlorenceModel, SelfCache
from florence_lite.model.device import inference_mode


@inference_mode()
def likelihoods(
    model: FlorenceModel,
    cross: CrossCache,
    encoder_mask: Tensor | None,
    prefix: list[int],
    texts: Sequence[list[int]],
    tokens_at_once: int,
    vocab_size: int | None = None,
) -> Tensor:
    """log P(text | prefix, image), the sum over the text's ids, float64 [B, T] on the CPU, of T texts and B images.

    cross: keys and values of the images; encoder_mask: bool [B, S] or None. The prefix is read once for each image, and
        the texts share it.
    texts: lists of at least one id, the end included if it is to count.
    tokens_at_once: ids that go through the network together; one text about every image, however long, always does.
    vocab_size: as in `generate`.

    Raises ValueError for an empty text and for a prefix and a text that need more positions than the model has.
    """
    for text in texts:
        check_length(len(prefix), len(text), model.config.text.positions, "the length of the text")
        if not text:
            raise ValueError("a text is empty: it needs at least one id")
    images, device = cross.keys[0].shape[0], cross.keys[0].device
    found = torch.empty(images, len(texts), dtype=torch.float64)
    read = model.self_cache(images, len(prefix))
    last = model.decode(torch.tensor([prefix] * images, device=device), cross, encoder_mask, read)[:, -1]  # [B, D]
    for numbers in _alike([len(prefix) + len(text) for text in texts], max(1, tokens_at_once // images)):
        few = [texts[number] for number in numbers]
        lengths = torch.tensor([len(text) for text in few] * images, device=device)
        longest = int(lengths.max())
        ids = torch.tensor([text + [0] * (longest - len(text)) for text in few] * images, device=device)  # [B·n, L]
        hidden = last.repeat_interleave(len(few), 0)[:, None]
        if longest > 1:
            cache = _repeated(model, read, len(few), longest - 1)
            hidden = torch.cat([hidden, model.decode(ids[:, :-1], cross, encoder_mask, cache)], 1)  # [B·n, L, D]
        written = torch.arange(longest, device=device) < lengths[:, None]
        logprobs = probabilities(model, hidden[written], ids[written], range(0), 0, vocab_size).token_logprobs
        of_texts = torch.zeros(written.shape, dtype=torch.float64).masked_scatter(written.cpu(), logprobs.double())
        found[:, numbers] = of_texts.sum(1).view(images, -1)
    return found


@inference_mode()
def log_odds(
    model: FlorenceModel,
    cross: CrossCache,
    encoder_mask: Tensor | None,
    prefixes: Sequence[list[int]],
    one: int,
    other: int,
    tokens_at_once: int,
) -> Tensor:
    """log P(one | prefix, image) − log P(other | prefix, image) of the id that comes next, of T prefixes and B images,
    float64 [B, T] on the CPU.

    cross, encoder_mask, tokens_at_once: as in `likelihoods`. Raises ValueError for a prefix that is too long.
    """
    for prefix in prefixes:
        check_length(len(prefix), 1, model.config.text.positions, "the answer")
    images, device = cross.keys[0].shape[0], cross.keys[0].device
    found = torch.empty(images, len(prefixes), dtype=torch.float64)
    for numbers in _alike([len(prefix) for prefix in prefixes], max(1, tokens_at_once // images)):
        few = [prefixes[number] for number in numbers]
        longest = max(map(len, few))
        # Attention is causal: padding on the right changes nothing before it, and any id may stand there.
        ids = torch.tensor([prefix + [0] * (longest - len(prefix)) for prefix in few] * images, device=device)
        ends = torch.tensor([len(prefix) - 1 for prefix in few] * images, device=device)
        hidden = model.decode(ids, cross, encoder_mask)[torch.arange(len(ids), device=device), ends]
        logits = model.logits(hidden).double()
        found[:, numbers] = (logits[:, one] - logits[:, other]).view(images, -1).cpu()
    return found


def _alike(lengths: Sequence[int], tokens_at_once: int) -> Iterator[list[int]]:
    """Places in batches, the longest first, so that little is padded."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    while order:
        count = max(1, tokens_at_once // lengths[order[0]])
        yield order[:count]
        order = order[count:]


def _repeated(model: FlorenceModel, read: SelfCache, times: int, room: int) -> SelfCache:
    """A cache in which every row of `read` stands `times` times, with room for further ids."""
    filled = slice(0, read.length)
    cache = model.self_cache(read.keys[0].shape[0] * times, read.length + room)
    for layer, pair in enumerate(zip(read.keys, read.values, strict=True)):
        cache.append(layer, *(each[:, :, filled].repeat_interleave(times, 0) for each in pair))
    cache.length = read.length
    return cache
