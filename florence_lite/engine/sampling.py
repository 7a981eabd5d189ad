"""Drawing an id from a row of logits."""

from __future__ import annotations

import torch
from torch import Tensor

from florence_lite.engine.options import GenerationOptions


class Sampler:
    """Draws the ids of one row from a generator of its own, by inverting the cumulative distribution.

    The generator lives on the CPU, so that a seed means the same on every device.
    """

    def __init__(self, options: GenerationOptions):
        self.options = options
        self.generator = torch.Generator()
        if options.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(options.seed)

    def __call__(self, logits: Tensor) -> int:
        """logits: float [V]; -inf where an id is banned."""
        options = self.options
        logits = logits.cpu().double()
        logits = (logits - logits.max()) / options.temperature
        ids = None  # in the order of the vocabulary
        if options.top_k is not None:
            logits, ids = logits.topk(min(options.top_k, len(logits)))
        elif options.top_p is not None:
            logits, ids = logits.sort(descending=True)
        probabilities = logits.softmax(-1)
        cumulative = probabilities.cumsum(-1)
        if options.top_p is not None:
            # An id stays if those before it have not yet reached top_p: the likeliest always does.
            kept = int((cumulative - probabilities < options.top_p).sum())
            cumulative = cumulative[:kept]
        point = torch.rand(1, generator=self.generator, dtype=torch.float64) * cumulative[-1]
        place = min(int(torch.searchsorted(cumulative, point, right=True)), len(cumulative) - 1)
        return place if ids is None else int(ids[place])
