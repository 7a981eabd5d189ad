import json

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st

from florence_lite.tokens import IdClass, Tokenizer, added_tokens

# Prompts of the tasks whose ids are known: sentence templates as in the public processors.
SENTENCES = {
    "<REGION_PROPOSAL>": "Locate the region proposals in the image.",
    "<OPEN_VOCABULARY_DETECTION>wheels": "Locate wheels in the image.",
    "<OPEN_VOCABULARY_DETECTION>car": "Locate car in the image.",
    "<REFERRING_EXPRESSION_SEGMENTATION>a car": "Locate a car in the image with mask",
    "<OCR>": "What is the text in the image?",
    "<OD>": "Locate the objects with category name in the image.",
    "<OCR_WITH_REGION>": "What is the text in the image, with regions?",
    "<CAPTION>": "What does the image describe?",
}


@pytest.fixture(scope="module", params=["florence-2-large", "florence-2-base-ft-tuned"])
def florence_tokenizer(request, shared_data) -> Tokenizer:
    return Tokenizer.from_file(shared_data / request.param)


@pytest.fixture(scope="module")
def golden(shared_data) -> dict:
    return json.loads((shared_data / "florence2_golden.json").read_text(encoding="utf-8"))


def test_prompts_have_the_ids_of_florence_2(florence_tokenizer, golden):
    assert SENTENCES.keys() == golden["prompt_ids"].keys()
    for task, sentence in SENTENCES.items():
        assert florence_tokenizer.encode_prompt(sentence) == golden["prompt_ids"][task], task


def test_captions_decode(florence_tokenizer, golden):
    captions = [case for case in golden["cases"] if "ids" in case]
    assert len(captions) == 2
    for case in captions:
        assert florence_tokenizer.decode(case["ids"]) == case["expect"]


def test_missing_added_tokens_are_supplied_where_florence_2_has_them(florence_tokenizer, shared_data):
    known = json.loads((shared_data / "florence-2-base-ft-tuned" / "added_tokens.json").read_text(encoding="utf-8"))
    for token, id in known.items():
        assert florence_tokenizer.encode_prompt(token) == [0, id, 2], token
    assert florence_tokenizer.vocabulary.size == 51289


def test_the_order_of_a_trained_vocabulary(toy_tokenizer, tmp_path):
    saved = json.loads(toy_tokenizer.save(tmp_path).read_text(encoding="utf-8"))
    entries = saved["model"]["vocab"]
    assert [entries[token] for token in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3]
    added = {token["content"]: token["id"] for token in saved["added_tokens"]}
    assert added["<mask>"] == len(entries)
    assert [added[token] for token in added_tokens()] == list(range(len(entries) + 1, len(entries) + 1025))
    assert toy_tokenizer.vocabulary.text_ids == range(4, len(entries))


def test_vocab_size_counts_all_ids():
    tokenizer = Tokenizer.train(["to be or not to be, that is the question"], vocab_size=420, bins=100)
    assert tokenizer.vocabulary.size <= 420
    assert tokenizer.vocabulary.bins == 100
    assert len(tokenizer.encode_plain("be")) == 1
    with pytest.raises(ValueError, match="at least 385"):
        Tokenizer.train(["to be"], vocab_size=384, bins=100)


def test_training_gives_the_same_ids_twice():
    texts = ["the dog sits", "the cat sits", "a dog and a cat"]
    first, second = (Tokenizer.train(texts, vocab_size=1320).encode_plain("the dog and the cat") for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", ["tokenizer.json", "mine.json", "folder"])
def test_saved_and_read_again(toy_tokenizer, tmp_path, name):
    file = toy_tokenizer.save(tmp_path / name)
    assert file.is_file()
    again = Tokenizer.from_file(tmp_path / name)
    assert again.vocabulary == toy_tokenizer.vocabulary
    text = "a red café <loc_5>"
    assert again.encode_plain(text) == toy_tokenizer.encode_plain(text)
    assert again.encode_prompt(text) == toy_tokenizer.encode_prompt(text)


def test_the_number_of_bins_survives_saving(tmp_path):
    Tokenizer.train(["a cat"], vocab_size=400, bins=100).save(tmp_path)
    assert Tokenizer.from_file(tmp_path).vocabulary.bins == 100


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="tokenizer.json"):
        Tokenizer.from_file(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Tokenizer.from_file(tmp_path / "nowhere")


def test_files_that_hold_no_florence_vocabulary_are_refused(tmp_path):
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(ValueError, match="text.json is not a tokenizer"):
        Tokenizer.from_file(tmp_path / "text.json")
    vocabulary = {"<unk>": 0, "a": 1, "<s>": 2, "<pad>": 3, "</s>": 4}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")).save(str(tmp_path / "words.json"))
    with pytest.raises(ValueError, match=r"words.json: .*<pad>"):
        Tokenizer.from_file(tmp_path / "words.json")
    words = {token: id for id, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "日本"])}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>")).save(str(tmp_path / "words.json"))
    with pytest.raises(ValueError, match="byte-level"):
        Tokenizer.from_file(tmp_path / "words.json")


def test_prompts_read_added_tokens(toy_tokenizer):
    vocabulary = toy_tokenizer.vocabulary
    ids = toy_tokenizer.encode_prompt("the cat<and>the dog <loc_0><loc_999>")
    assert ids[0] == vocabulary.bos and ids[-1] == vocabulary.eos
    assert ids[-3:-1] == [vocabulary.loc(0), vocabulary.loc(999)]
    assert vocabulary.and_ in ids
    assert not any(vocabulary.is_loc(id) for id in toy_tokenizer.encode_prompt("<loc_1000>"))


@given(text=st.text())
@example(text="<s>a</s><pad><unk><mask>")
@example(text="<loc_5><loc_1000><sep><poly></poly><and><od>")
@example(text="  two  spaces \n and lines\r\n\t")
@example(text="café 猫 🧑‍🚀 \u0000 \ufffd")
def test_plain_text_comes_back_and_is_only_text(toy_tokenizer, text):
    ids = toy_tokenizer.encode_plain(text)
    assert all(toy_tokenizer.vocabulary.id_class(id) is IdClass.TEXT for id in ids)
    assert toy_tokenizer.decode(ids) == text


def test_text_that_is_no_unicode_is_a_value_error(toy_tokenizer):
    with pytest.raises(ValueError, match="surrogates"):
        toy_tokenizer.encode_plain("\ud800")


def test_characters_are_put_together_from_the_bytes_of_several_ids(toy_tokenizer):
    ids = toy_tokenizer.encode_plain("中")
    assert len(ids) == 3  # unknown to the toy vocabulary: one id per byte
    assert toy_tokenizer.decode(ids) == "中"
    assert toy_tokenizer.decode(ids[:2]) == "\ufffd"
    assert toy_tokenizer.decode([ids[0], toy_tokenizer.vocabulary.pad, *ids[1:]]) == "中"


def test_ids_without_text_are_skipped(toy_tokenizer):
    vocabulary = toy_tokenizer.vocabulary
    dog = toy_tokenizer.encode_plain("dog")
    structure = [vocabulary.bos, vocabulary.unk, vocabulary.loc(7), vocabulary.sep, vocabulary.size, -1, vocabulary.eos]
    assert toy_tokenizer.decode([*structure, *dog, *structure]) == "dog"
