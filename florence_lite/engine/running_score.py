"""`score` of an answer that is still being written."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from florence_lite.engine.score import Scores, probabilities
from florence_lite.model import CrossCache, FlorenceModel


class RunningScore:
    """Scores the ids of one answer bit by bit; all of them together cost about as much as one `score` of the whole."""

    def __init__(
        self,
        model: FlorenceModel,
        cross: CrossCache,
        encoder_mask: Tensor | None,
        prefix: list[int],
        most_ids: int,
        locations: range = range(0),
        tolerance: int = 0,
        vocab_size: int | None = None,
    ):
        """cross, encoder_mask: of one image. most_ids: that the answer may have. The others as in `score`."""
        self._model, self._cross, self._mask = model, cross, encoder_mask
        self._locations, self._tolerance, self._vocab_size = locations, tolerance, vocab_size
        self._unread = list(prefix)
        self._cache = model.self_cache(1, len(prefix) + most_ids)
        empty = torch.zeros(0)
        self.scores = Scores(empty, empty, empty, empty)

    @torch.inference_mode()
    def extend(self, ids: list[int]) -> Scores:
        """The scores of all ids so far, to which `ids` are added."""
        if ids:
            device = self._cross.keys[0].device
            read = torch.tensor([[*self._unread, *ids[:-1]]], device=device)
            hidden = self._model.decode(read, self._cross, self._mask, self._cache)[0, -len(ids) :]
            targets = torch.tensor(ids, device=device)
            more = probabilities(self._model, hidden, targets, self._locations, self._tolerance, self._vocab_size)
            self._unread = ids[-1:]
            columns = ((getattr(each, column.name) for each in (self.scores, more)) for column in fields(Scores))
            self.scores = Scores(*(torch.cat(list(column)) for column in columns))
        return self.scores
