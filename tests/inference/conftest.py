"""A network whose answers are written by hand."""

from types import SimpleNamespace

import pytest
import torch

import florence_lite.inference.decoding as decoding_module
from florence_lite import Florence
from florence_lite.engine import Generated, Scores
from florence_lite.inference.presence import Opening
from tests.tiny import SIDES, tiny_florence


@pytest.fixture(params=SIDES)
def florence(request, toy_tokenizer) -> Florence:
    """A tiny network with prompts on either side."""
    return tiny_florence(toy_tokenizer, request.param)


@pytest.fixture
def scripted(florence, monkeypatch):
    """A mapping, to be filled, from a part of a prompt's sentence to the ids that answer it, nothing for others (such a
    phrase is absent); and a list that gets the sentences of each call of the decoder."""
    known, calls, sent = {}, [], {}
    encode = florence.tokenizer.encode_prompt
    monkeypatch.setattr(
        florence.tokenizer, "encode_prompt", lambda text: sent.setdefault(tuple(encode(text)), text) and encode(text)
    )
    decoding = florence.answering.decoding
    steps, written_by = decoding.steps, decoding._answers

    def ids_of(row):
        sentence = sent[tuple(row.prompt_ids)]
        return next((known[key] for key in known if key in sentence), [])

    def opened(rows, *_):
        nothing = Scores(*(torch.full((2,), float("nan")) for _ in range(3)))
        asked = ((place, row) for place, row in enumerate(rows) if row.label_ids is not None)
        return {place: Opening(2.0 if ids_of(row) else -2.0, nothing) for place, row in asked}

    def answers(rows, *rest):
        written = [SimpleNamespace(result=Generated([0, *ids_of(row), 2], False)) for row in rows]
        monkeypatch.setattr(decoding_module, "decoding_steps", lambda *_: iter([written]))
        return written_by(rows, *rest)

    def called(rows, *rest):
        calls.append([sent[tuple(row.prompt_ids)] for row in rows])
        return steps(rows, *rest)

    for name, function in (("_opened", opened), ("_answers", answers), ("steps", called)):
        monkeypatch.setattr(decoding, name, function)
    return known, calls
