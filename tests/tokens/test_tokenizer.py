import json
import shutil
from pathlib import Path

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


LARGE, TUNED = "florence-2-large", "florence-2-base-ft-tuned"

# Kinds of file sets in the wild: which folder's tokenizer.json it is made of, and its files.
FILE_SETS = {
    "original": (LARGE, ["tokenizer.json", "tokenizer_config.json"]),
    "fine-tune": (TUNED, ["tokenizer.json", "tokenizer_config.json", "added_tokens.json"]),
    "native": (TUNED, ["tokenizer.json with <image>"]),
    "slow": (LARGE, ["vocab.json", "merges.txt"]),
    "slow with added tokens": (LARGE, ["vocab.json", "merges.txt", f"{TUNED}/added_tokens.json"]),
    "slow with config": (LARGE, ["vocab.json", "merges.txt", f"{TUNED}/tokenizer_config.json"]),
    "original with added tokens": (LARGE, ["tokenizer.json", f"{TUNED}/added_tokens.json"]),
}


def write_json(file: Path, values: dict) -> None:
    file.write_text(json.dumps(values), encoding="utf-8")


def write_bpe(folder: Path, values: dict) -> None:
    """`vocab.json` and `merges.txt` of the `tokenizer.json` that holds `values`."""
    write_json(folder / "vocab.json", values["model"]["vocab"])
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in values["model"]["merges"])
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


def added(content: str, id: int) -> dict:
    """An entry of the added tokens in `tokenizer.json`."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": content, **flags, "special": True}


@pytest.fixture(scope="module", params=FILE_SETS)
def florence_tokenizer(request, published, tmp_path_factory) -> Tokenizer:
    base, names = FILE_SETS[request.param]
    folder = tmp_path_factory.mktemp("tokenizer")
    values = json.loads((published / base / "tokenizer.json").read_text(encoding="utf-8"))
    for name in names:
        if name == "tokenizer.json with <image>":
            values["added_tokens"].append(added("<image>", 51289))
            write_json(folder / "tokenizer.json", values)
        elif name in ("vocab.json", "merges.txt"):
            write_bpe(folder, values)
        else:
            file = published / (name if "/" in name else f"{base}/{name}")
            shutil.copyfile(file, folder / file.name)
    return Tokenizer.from_file(folder)


@pytest.fixture(scope="module")
def large_json(published) -> str:
    return Tokenizer.from_file(published / LARGE).to_json()


@pytest.fixture(scope="module")
def golden(published) -> dict:
    return json.loads((published / "florence2_golden.json").read_text(encoding="utf-8"))


def test_prompts_have_the_ids_of_florence_2(florence_tokenizer, golden):
    assert SENTENCES.keys() == golden["prompt_ids"].keys()
    for task, sentence in SENTENCES.items():
        assert florence_tokenizer.encode_prompt(sentence) == golden["prompt_ids"][task], task


def test_captions_decode(florence_tokenizer, golden):
    captions = [case for case in golden["cases"] if "ids" in case]
    assert len(captions) == 2
    for case in captions:
        assert florence_tokenizer.decode(case["ids"]) == case["expect"]


def test_missing_added_tokens_are_supplied_where_florence_2_has_them(florence_tokenizer, published):
    known = json.loads((published / "florence-2-base-ft-tuned" / "added_tokens.json").read_text(encoding="utf-8"))
    for token, id in known.items():
        assert florence_tokenizer.encode_prompt(token) == [0, id, 2], token
    assert florence_tokenizer.vocabulary.size == florence_tokenizer.image_id == 51289


def test_all_kinds_of_files_give_the_same_tokenizer(florence_tokenizer, large_json):
    assert florence_tokenizer.to_json() == large_json


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
    with pytest.raises(ValueError, match="text.json is no JSON"):
        Tokenizer.from_file(tmp_path / "text.json")
    (tmp_path / "text.json").write_text("{}")
    with pytest.raises(ValueError, match="text.json is not a tokenizer"):
        Tokenizer.from_file(tmp_path / "text.json")
    words = {token: id for id, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "日本"])}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>")).save(str(tmp_path / "words.json"))
    with pytest.raises(ValueError, match="words.json is not a tokenizer.json of Florence-2: its pre_tokenizer is None"):
        Tokenizer.from_file(tmp_path / "words.json")
    for vocabulary, message in (
        ({"<unk>": 0, "a": 1, "<s>": 2, "<pad>": 3, "</s>": 4}, "words.json: <s> .* have the ids .2, 3, 4, 0."),
        (words, "byte-level"),
    ):
        backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
        backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.save(str(tmp_path / "words.json"))
        with pytest.raises(ValueError, match=message):
            Tokenizer.from_file(tmp_path / "words.json")


# ---- sets of files, at toy size --------------------------------------------------------------------------------------


@pytest.fixture
def toy(toy_tokenizer, tmp_path) -> Path:
    """A folder with every file that a tokenizer may come in."""
    values = json.loads(toy_tokenizer.to_json())
    write_json(tmp_path / "tokenizer.json", values)
    write_bpe(tmp_path, values)
    write_json(tmp_path / "added_tokens.json", {token["content"]: token["id"] for token in values["added_tokens"]})
    decoder = {str(token["id"]): {"content": token["content"]} for token in values["added_tokens"]}
    write_json(tmp_path / "tokenizer_config.json", {"added_tokens_decoder": decoder})
    return tmp_path


def edit(file: Path, change) -> None:
    """Apply `change` to the JSON in a file."""
    values = json.loads(file.read_text(encoding="utf-8"))
    change(values)
    write_json(file, values)


def test_a_file_of_a_pair_alone_is_no_tokenizer(toy):
    (toy / "tokenizer.json").unlink()
    (toy / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match="merges.txt is missing"):
        Tokenizer.from_file(toy)
    (toy / "vocab.json").unlink()
    with pytest.raises(FileNotFoundError, match="tokenizer.json, or vocab.json with merges.txt$"):
        Tokenizer.from_file(toy)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("tokenizer.json", lambda data: data[: len(data) // 2], "tokenizer.json is no JSON file or is cut short"),
        ("tokenizer.json", lambda data: b"[1, 2]", "tokenizer.json holds a JSON list"),
        ("tokenizer.json", lambda data: data.replace(b'"BPE"', b'"??"'), "tokenizer.json is not a tokenizer"),
        ("tokenizer.json", lambda data: data.replace(b'"id": 0', b'"id": "x"', 1), "tokenizer.json: .*no added token"),
        ("tokenizer.json", lambda data: b'{"added_tokens": 7}', "tokenizer.json: 7 is no added token"),
        ("tokenizer_config.json", lambda data: data[:50], "tokenizer_config.json is no JSON file or is cut short"),
        ("tokenizer_config.json", lambda data: b'{"added_tokens_decoder": []}', "added_tokens_decoder must map ids"),
        ("tokenizer_config.json", lambda data: b'{"added_tokens_decoder": {"0": {}}}', "is no added token"),
        ("added_tokens.json", lambda data: data[:50], "added_tokens.json is no JSON file or is cut short"),
        ("added_tokens.json", lambda data: b'{"<od>": null}', "added_tokens.json: .*<od>.* is no added token"),
        ("vocab.json", lambda data: data[: len(data) // 2], "vocab.json is no JSON file or is cut short"),
        ("vocab.json", lambda data: b'{"<s>": 0, "a": 2}', "vocab.json must give every token an id"),
        ("vocab.json", lambda data: b'{"<s>": "0"}', "vocab.json must give every token an id"),
        ("merges.txt", lambda data: data[: data.rindex(b" ")], "merges.txt: line .* merges no two tokens"),
        ("merges.txt", lambda data: data[: data.rindex(b"\n", 0, len(data) // 2)], "merges.txt is cut short: its"),
        ("merges.txt", lambda data: data + b"q \xc4\xa0qq\n", "merges.txt: line .*'q Ġqq', merges no two tokens"),
        ("merges.txt", lambda data: b"\xff" + data, "merges.txt is no UTF-8 text"),
    ],
)
def test_a_damaged_file_is_named(toy, name, damage, message):
    if name in ("vocab.json", "merges.txt"):
        (toy / "tokenizer.json").unlink()
    (toy / name).write_bytes(damage((toy / name).read_bytes()))
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_file(toy)


def swap(values: dict, first, second) -> None:
    values[first], values[second] = values[second], values[first]


def swap_ids(values: dict) -> None:
    od, end = (token for token in values["added_tokens"] if token["content"] in ("<od>", "</od>"))
    od["id"], end["id"] = end["id"], od["id"]


def put_behind_mask(content: str):
    """A token of a fine-tune's own in front of Florence-2's, as when its author added it too early."""

    def change(values: dict) -> None:
        mask = next(n for n, token in enumerate(values["added_tokens"]) if token["content"] == "<mask>")
        first = values["added_tokens"][mask]["id"] + 1
        values["added_tokens"][mask + 1 :] = [added(content, first)]

    return change


OTHER_IDS = [
    (
        "added_tokens.json",
        lambda v: swap(v, "<od>", "<sep>"),
        r"'<sep>' has the id \d+, its place .* Save the tokenizer",
    ),
    ("added_tokens.json", lambda v: v.update({"<DocVQA>": 5000}), "'<DocVQA>' has the id 5000, its place .* is"),
    ("added_tokens.json", lambda v: v.update({"<DocVQA>": 5}), "'<DocVQA>' has the id 5, its place .* is"),
    ("added_tokens.json", lambda v: v.update({"<image>": 5000}), "'<image>' has the id 5000, its place .* is"),
    ("tokenizer.json", swap_ids, "tokenizer.json: '</od>' has the id"),
    ("tokenizer.json", put_behind_mask("<DocVQA>"), "tokenizer.json: <od> has the id .* instead of"),
    ("tokenizer.json", put_behind_mask("<image>"), "'<image>' has the id"),
    (
        "tokenizer_config.json",
        lambda v: swap(v["added_tokens_decoder"], *list(v["added_tokens_decoder"])[-2:]),
        "tokenizer_config.json: '<and>' has the id",
    ),
]


@pytest.mark.parametrize(
    ("name", "change", "message", "slow"),
    [(*row, slow) for row in OTHER_IDS for slow in (False, True) if not (slow and row[0] == "tokenizer.json")],
)
def test_other_ids_than_florence_2s_are_refused(toy, name, change, message, slow):
    edit(toy / name, change)
    others = {"tokenizer_config.json", "added_tokens.json", *(["tokenizer.json"] if slow else [])} - {name}
    for other in others:
        (toy / other).unlink()
    if name != "tokenizer.json" and not slow:  # as the original repositories have it, without Florence-2's tokens
        edit(toy / "tokenizer.json", lambda values: values.update(added_tokens=values["added_tokens"][:5]))
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_file(toy)


def test_files_that_contradict_each_other_are_named(toy):
    edit(toy / "added_tokens.json", lambda values: swap(values, "<od>", "<sep>"))
    with pytest.raises(ValueError, match=r"added_tokens.json: '<od>' has the id \d+, in tokenizer.json it has \d+"):
        Tokenizer.from_file(toy)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "added_tokens.json"])
@pytest.mark.parametrize("slow", [False, True])
def test_tokens_of_a_fine_tunes_own_follow_behind(toy_tokenizer, toy, name, slow):
    own = toy_tokenizer.vocabulary.size
    if slow:
        (toy / "tokenizer.json").unlink()
        name = "added_tokens.json" if name == "tokenizer.json" else name
    changes = {
        "tokenizer.json": lambda v: v["added_tokens"].append(added("<DocVQA>", own)),
        "tokenizer_config.json": lambda v: v["added_tokens_decoder"].update({str(own): {"content": "<DocVQA>"}}),
        "added_tokens.json": lambda v: v.update({"<DocVQA>": own}),
    }
    edit(toy / name, changes[name])
    tokenizer = Tokenizer.from_file(toy)
    assert tokenizer.vocabulary.size == own + 1 == tokenizer.image_id
    assert tokenizer.encode_prompt("<DocVQA>") == [0, own, 2]
    assert tokenizer.vocabulary.id_class(own) is IdClass.OTHER
    assert all(toy_tokenizer.encode_plain(text) == tokenizer.encode_plain(text) for text in ("<DocVQA>", "a cat"))
    assert tokenizer.decode([own]) == ""


def test_the_image_token_comes_and_goes(toy_tokenizer, tmp_path):
    first_free = toy_tokenizer.vocabulary.size
    assert toy_tokenizer.image_id == first_free
    (tmp_path / "tokenizer.json").write_text(toy_tokenizer.to_json(image_token=True), encoding="utf-8")
    tokens = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    assert (tokens[-1]["content"], tokens[-1]["id"]) == ("<image>", first_free)
    again = Tokenizer.from_file(tmp_path)
    assert again.to_json() == toy_tokenizer.to_json()
    assert first_free not in again.encode_prompt("<image>")


def test_the_image_token_stays_where_others_stand_behind_it(toy_tokenizer, tmp_path):
    image = toy_tokenizer.vocabulary.size
    values = json.loads(toy_tokenizer.to_json())
    values["added_tokens"] += [added("<image>", image), added("<DocVQA>", image + 1)]
    write_json(tmp_path / "tokenizer.json", values)
    tokenizer = Tokenizer.from_file(tmp_path)
    assert (tokenizer.image_id, tokenizer.vocabulary.size) == (image, image + 2)
    assert tokenizer.vocabulary.id_class(image) is IdClass.OTHER
    assert tokenizer.to_json(image_token=True) == tokenizer.to_json()


def test_added_tokens_that_are_ordinary_entries_are_read_as_such(toy_tokenizer, tmp_path):
    """Some put the added tokens into vocab.json itself; they must be found in prompts all the same."""
    values = json.loads(toy_tokenizer.to_json())
    values["model"]["vocab"].update({token["content"]: token["id"] for token in values["added_tokens"]})
    write_bpe(tmp_path, values)
    text = "the dog<and>the cat <loc_0><loc_999>"
    assert Tokenizer.from_file(tmp_path).encode_prompt(text) == toy_tokenizer.encode_prompt(text)


def test_recorded_tokens_tell_the_number_of_bins(tmp_path):
    small = Tokenizer.train(["a cat"], vocab_size=400, bins=100)
    values = json.loads(small.to_json())
    write_bpe(tmp_path, values)
    write_json(tmp_path / "added_tokens.json", {token["content"]: token["id"] for token in values["added_tokens"]})
    assert Tokenizer.from_file(tmp_path).vocabulary == small.vocabulary


def test_saving_leaves_no_half_written_file(toy_tokenizer, tmp_path):
    toy_tokenizer.save(tmp_path)
    toy_tokenizer.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


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
