"""A network whose answers are written by hand."""

import pytest

from florence_lite import Florence
from tests.script import Script
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
    decoding, begin = florence.answering.decoding, florence.answering.decoding.begin

    def written(rows):
        sentences = [sent[tuple(row.prompt_ids)] for row in rows]
        calls.append(sentences)
        ids = [next((known[key] for key in known if key in sentence), []) for sentence in sentences]
        rows = [
            row._replace(is_present=lambda log_odds: True, make_guide=lambda script=script: Script([0, *script, 2]))
            for row, script in zip(rows, ids, strict=True)
        ]
        return begin(rows)

    monkeypatch.setattr(decoding, "begin", written)
    return known, calls
