"""Tokenizers from elsewhere that would hang, fill the memory or abort: a ValueError, before a text is split."""

import json

import pytest

from florence_lite.tokens import Tokenizer


def sequence(kind, parts, part):
    return {"type": "Sequence", parts: [part] * kind}


REPLACE = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
SPLIT = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}

HOSTILE = {
    "normaliser that grows": ({"normalizer": sequence(5, "normalizers", REPLACE)}, "normalizer = {'type': 'Sequence'"),
    "normaliser with a pattern": ({"normalizer": {**REPLACE, "pattern": {"Regex": "(a*)*b"}}}, "normalizer = "),
    "normaliser that prepends": ({"normalizer": {"type": "Prepend", "prepend": "x" * 10**6}}, "normalizer = "),
    "a panic": (
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        "normalizer = ",
    ),
    "a pattern in a list": (
        {"pre_tokenizer": sequence(1, "pretokenizers", SPLIT)},
        "pre_tokenizer.type = 'Sequence'",
    ),
    "pattern alone": ({"pre_tokenizer": SPLIT}, "pre_tokenizer.type = 'Split'"),
    "bytes without a pattern": ({"pre_tokenizer": {**BYTES, "use_regex": False}}, "pre_tokenizer.use_regex = False"),
    "no bytes": ({"pre_tokenizer": None}, "its pre_tokenizer is None"),
    "another model": ({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}, "model.type = 'Unigram'"),
    "chance": ({"model": {"dropout": 0.5}}, "model.dropout = 0.5"),
    "bytes of its own": ({"model": {"byte_fallback": True}}, "model.byte_fallback = True"),
    "suffixes": ({"model": {"end_of_word_suffix": "</w>"}}, "model.end_of_word_suffix = '</w>'"),
    "tokens as a list": ({"model": {"vocab": []}}, "its vocabulary must give"),
    "ids with gaps": ({"model": {"vocab": {"<s>": 0, "a": 10**12}}}, "from 0 on without gaps"),
    "ids that are none": ({"model": {"vocab": {"<s>": None, "a": [0]}}}, "from 0 on without gaps"),
    "a long token": (
        {"model": {"vocab": {"a" * 10**6: 0}}},
        "the token 'a.{,90} of 1000000 characters; 512 may be",
    ),
    "merges of nothing": ({"model": {"merges": ["q q"]}}, "its tokens and merges do not fit together"),
    "merges of three": ({"model": {"merges": [["a", "b", "c"]]}}, "merges must be pairs of tokens"),
    "merges of numbers": ({"model": {"merges": [1, 2]}}, "merges must be texts or lists"),
    "merges as a text": ({"model": {"merges": "a b"}}, "merges must be a list"),
    "many added tokens": (
        {"added_tokens": [{"id": 3000 + n, "content": f"<t{n}>"} for n in range(20_000)]},
        "has 20,000 added tokens; 16,384 may be",
    ),
    "a long added token": (
        {"added_tokens": [{"id": 3000, "content": "a" * 10**6}]},
        "no added token; .* short text",
    ),
    "an added token that is none": ({"added_tokens": [{"id": 0, "content": None}]}, "is no added token"),
    "an id out of range": ({"added_tokens": [{"id": 10**18, "content": "<t>"}]}, "'<t>' has the id 10{18}, its place"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_tokenizer_is_refused(toy_tokenizer, tmp_path, kind):
    change, message = HOSTILE[kind]
    values = json.loads(toy_tokenizer.to_json())
    for part, value in change.items():
        values[part] = {**values[part], **value} if part == "model" and value.get("type", "BPE") == "BPE" else value
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message) as caught:
        Tokenizer.from_file(tmp_path)
    assert "tokenizer.json" in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("content", ["[" * 10**6, '{"model": ' * 10**5, '"' + "a" * 2**24 + '"'])
def test_a_file_that_is_too_large_or_deep(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match="nested too deeply|more than 16,777,216 bytes"):
        Tokenizer.from_file(tmp_path)


def test_what_does_not_matter_is_not_taken(toy_tokenizer, tmp_path):
    """How texts are cut, filled up, wrapped and put together is not asked of the file."""
    values = json.loads(toy_tokenizer.to_json())
    values["truncation"] = {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 10**9}
    values["padding"] = {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_id": 1, "pad_type_id": 0}
    values["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 1000,
    }
    values["decoder"] = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "a" * 1000}
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    read = Tokenizer.from_file(tmp_path)
    assert read.encode_prompt("a cat<loc_5>") == toy_tokenizer.encode_prompt("a cat<loc_5>")
    assert read.to_json() == toy_tokenizer.to_json()


def test_texts_have_a_bound(toy_tokenizer):
    for encode in (toy_tokenizer.encode_prompt, toy_tokenizer.encode_plain):
        assert encode("a" * 2**17)
        with pytest.raises(ValueError, match="text 'aaa.*'… has 131,073 characters; 131,072 may be: shorten it"):
            encode("a" * (2**17 + 1))
