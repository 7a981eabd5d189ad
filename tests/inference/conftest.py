"""A network whose answers are written by hand."""

import pytest

import florence_lite.inference.answering as answering_module
from florence_lite import Florence
from florence_lite.engine import Generated
from tests.tiny import SIDES, tiny_florence


@pytest.fixture(params=SIDES)
def florence(request, toy_tokenizer) -> Florence:
    """A tiny network with prompts on either side."""
    return tiny_florence(toy_tokenizer, request.param)


@pytest.fixture
def scripted(florence, monkeypatch):
    """A mapping, to be filled, from a part of a prompt's sentence to the ids that answer it, nothing for others; and a
    list that gets the sentences of each call of the decoder."""
    known, calls, sent = {}, [], {}
    encode = florence.tokenizer.encode_prompt
    monkeypatch.setattr(
        florence.tokenizer, "encode_prompt", lambda text: sent.setdefault(tuple(encode(text)), text) and encode(text)
    )
    decode = florence.answering._decode

    def answer(requests, *rest):
        sentences = [sent[tuple(request.prompt_ids)] for request in requests]
        calls.append(sentences)
        ids = [next((known[key] for key in known if key in sentence), []) for sentence in sentences]
        monkeypatch.setattr(
            answering_module, "generate", lambda *_, **__: [Generated([0, *each, 2], False) for each in ids]
        )
        return decode(requests, *rest)

    monkeypatch.setattr(florence.answering, "_decode", answer)
    return known, calls
