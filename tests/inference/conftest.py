"""A network whose answers are written by hand."""

import pytest

import florence_lite.inference.decoding as decoding_module
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
    decoding = florence.answering.decoding
    together = decoding._together

    def answer(rows, is_present, size):
        sentences = [sent[tuple(row.prompt_ids)] for row in rows]
        calls.append(sentences)

        def generate(model, states, mask, prefixes, *_):
            asked = [sent.get(tuple(prefix)) for prefix in prefixes]  # to the encoder's side the prefixes say nothing
            asked = asked if all(asked) else sentences
            ids = [next((known[key] for key in known if key in sentence), []) for sentence in asked]
            return [Generated([0, *each, 2], False) for each in ids]

        monkeypatch.setattr(decoding_module, "generate", generate)
        return together(rows, lambda log_odds: True, size)

    monkeypatch.setattr(decoding, "_together", answer)
    return known, calls
