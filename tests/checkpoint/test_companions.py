"""The files beside the weights, as we read and write them, and as transformers reads what we wrote."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from florence_lite.cards import task
from florence_lite.checkpoint.companions import (
    COMPANIONS,
    decoding_to_settings,
    read_decoding,
    read_preprocessor,
    write_companions,
)
from florence_lite.engine import GenerationOptions
from florence_lite.florence import Florence
from florence_lite.inference.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessor
from florence_lite.model import FlorenceConfig, FlorenceModel
from florence_lite.tokens import Tokenizer, added_tokens
from tests.tiny import noise_image, tiny_config

PUBLISHED = ("florence-2-large", "florence-2-base-ft-tuned")
FLORENCE_2 = {"num_beams": 3, "early_stopping": True, "no_repeat_ngram_size": 3, "forced_bos": 0}
SETTINGS = {"height": 48, "width": 64}
LAYOUTS = ("native", "original")


def write_json(folder: Path, **files: dict) -> Path:
    """One JSON file per keyword, named after it."""
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


# ---- image processor -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_pixel_values_equal_the_reference_on_photos(shared_data, published, name):
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    reference = clip.CLIPImageProcessorPil.from_pretrained(published / name)
    preprocessor = read_preprocessor(published / name)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    for file in sorted((shared_data / "coco_permissive" / "val2017").iterdir())[::150]:
        photo = Image.open(file).convert("RGB")
        expected = reference(photo, return_tensors="pt").pixel_values
        got = preprocessor([photo])
        assert got.shape == expected.shape == (1, 3, 768, 768)
        assert ((got - expected) * std).abs().max() <= 1 / 255, file.name


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_folders_have_florence_2s_settings(published, name):
    assert read_preprocessor(published / name, (1, 1)) == Preprocessor((768, 768))


@pytest.mark.parametrize(
    ("files", "size_wh"),
    [
        ({}, (768, 768)),
        ({"preprocessor_config": {"size": SETTINGS}}, (64, 48)),
        ({"processor_config": {"image_processor": {"size": SETTINGS}}}, (64, 48)),
        ({"processor_config": {"image_processor": {"size": SETTINGS}}, "preprocessor_config": {"size": 7}}, (64, 48)),
        ({"processor_config": {"processor_class": "Florence2Processor"}, "preprocessor_config": {"size": 7}}, (7, 7)),
        ({"processor_config": {"image_processor": None}}, (768, 768)),
    ],
)
def test_where_the_image_processor_stands(tmp_path, files, size_wh):
    assert read_preprocessor(write_json(tmp_path, **files)) == Preprocessor(size_wh)


def test_without_files_the_callers_size_holds(tmp_path):
    assert read_preprocessor(tmp_path, (224, 112)) == Preprocessor((224, 112))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("preprocessor_config.json", '{"size": {"shortest_edge": 1}}', "preprocessor_config.json: size = "),
        ("preprocessor_config.json", '{"size": {"height"', "preprocessor_config.json is no JSON file or is cut short"),
        ("preprocessor_config.json", "[]", "preprocessor_config.json holds a JSON list"),
        ("processor_config.json", '{"image_processor": 7}', "processor_config.json: image_processor = 7 must"),
        ("processor_config.json", '{"image_processor": {"image_std": 1}}', "processor_config.json: image_std = 1 must"),
        ("processor_config.json", '{"image_pro', "processor_config.json is no JSON file or is cut short"),
    ],
)
def test_a_damaged_image_processor_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_preprocessor(tmp_path)


# ---- decoding settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("florence-2-large", FLORENCE_2),
        ("florence-2-base-ft-tuned", FLORENCE_2 | {"length_penalty": 1.0, "do_sample": False}),
    ],
)
def test_decoding_of_the_published_folders(published, name, expected):
    assert read_decoding(published / name) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, {}),
        ({"generation_config": FLORENCE_2 | {"forced_bos": 7, "forced_bos_token_id": 0}}, FLORENCE_2),
        ({"generation_config": {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}}, {}),
        ({"generation_config": {"num_beams": 5}, "config": {"text_config": {"num_beams": 3}}}, {"num_beams": 5}),
        ({"generation_config": {"num_beams": None}, "config": {"text_config": {"num_beams": 3}}}, {"num_beams": 3}),
        ({"config": {"num_beams": 2, "text_config": {"num_beams": 3}}}, {"num_beams": 3}),
        ({"config": {"num_beams": 2}}, {"num_beams": 2}),
        ({"config": {"vision_config": {"num_beams": 2}}}, {}),
        (  # the original layout, of which Microsoft's code reads one section
            {
                "generation_config": {"early_stopping": False, "num_beams": 5, "length_penalty": 2.0},
                "config": {
                    "vision_config": {"dim_embed": [8]},
                    "text_config": {"early_stopping": True, "num_beams": 3},
                    "no_repeat_ngram_size": 2,
                },
            },
            {"early_stopping": True, "num_beams": 3},
        ),
        ({"generation_config": {"max_length": 20}}, {}),
        ({"generation_config": {"max_length": 1025}}, {"max_new_tokens": 1024}),
        ({"generation_config": {"max_length": 1025, "max_new_tokens": 99}}, {"max_new_tokens": 99}),
        ({"generation_config": {"max_length": 9}, "config": {"max_new_tokens": 99}}, {"max_new_tokens": 8}),
        ({"generation_config": {"max_length": 20}, "config": {"max_length": 9}}, {"max_new_tokens": 8}),
        (
            {"generation_config": {"forced_bos_token_id": None}, "config": {"forced_bos_token_id": 0}},
            {"forced_bos": None},
        ),
        ({"config": {"forced_bos_token_id": None}}, {}),
        ({"generation_config": {"early_stopping": "never", "unheard_of": [1]}}, {"early_stopping": "never"}),
        ({"generation_config": {"temperature": 0, "top_k": 50, "top_p": 1.0}}, {}),
        ({"generation_config": {"do_sample": False, "temperature": 0.5}}, {"do_sample": False}),
        (
            {"generation_config": {"do_sample": True, "temperature": 0.5, "top_k": 0, "top_p": 0.9}},
            {"do_sample": True, "temperature": 0.5, "top_p": 0.9},
        ),
        (
            {"generation_config": {"do_sample": False}, "config": {"do_sample": True, "temperature": 0.5}},
            {"do_sample": False},
        ),
    ],
)
def test_decoding_settings_are_read(tmp_path, files, expected):
    decoding = read_decoding(write_json(tmp_path, **files))
    assert decoding == expected
    GenerationOptions(**{"max_new_tokens": 1} | decoding)  # they are its fields


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": "3"}, "num_beams = '3' must be a whole number from 1 to"),
        ({"num_beams": 0}, "num_beams = 0 must be"),
        ({"num_beams": True}, "num_beams = True must be"),
        ({"early_stopping": "soon"}, "early_stopping = 'soon' must be true, false or"),
        ({"early_stopping": 1.5}, "early_stopping = 1.5 must be"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size = -1 must be"),
        ({"length_penalty": [1]}, r"length_penalty = \[1\] must be a number"),
        ({"length_penalty": float("inf")}, "length_penalty = inf must be a number"),
        ({"max_new_tokens": 1.5}, "max_new_tokens = 1.5 must be"),
        ({"max_length": 1}, "max_length = 1 must be"),
        ({"max_length": "long"}, "max_length = 'long' must be"),
        ({"forced_bos_token_id": "<s>"}, "forced_bos_token_id = '<s>' must be a token id or null"),
        ({"do_sample": 1}, "do_sample = 1 must be true or false"),
        ({"do_sample": True, "temperature": 0}, "temperature = 0 must be a number above 0"),
        ({"do_sample": True, "top_p": 2}, "top_p = 2 must be"),
        ({"do_sample": True, "top_k": "all"}, "top_k = 'all' must be"),
    ],
)
@pytest.mark.parametrize("name", ["generation_config", "config"])
def test_settings_of_a_wrong_type_are_named(tmp_path, name, settings, message):
    write_json(tmp_path, **{name: settings if name == "generation_config" else {"text_config": settings}})
    with pytest.raises(ValueError, match=f"/{name}.json: {message}"):
        read_decoding(tmp_path)


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_a_damaged_file_of_settings_is_named(tmp_path, name):
    (tmp_path / name).write_text('{"num_beams"', encoding="utf-8")
    with pytest.raises(ValueError, match=f"/{name} is no JSON file or is cut short"):
        read_decoding(tmp_path)


@pytest.mark.parametrize(
    ("decoding", "message"),
    [
        ({"seed": 1}, "'seed', which cannot be saved: known are max_new_tokens"),
        ({"temperature": 0.5}, "'temperature', which cannot be saved: set do_sample"),
        ({"num_beams": 0}, "num_beams = 0; it must be a whole number"),
    ],
)
def test_decoding_that_cannot_be_saved_is_refused(decoding, message):
    with pytest.raises(ValueError, match=message):
        decoding_to_settings(decoding)


# ---- saving ----------------------------------------------------------------------------------------------------------

DECODINGS = [
    FLORENCE_2,
    {"forced_bos": None, "max_new_tokens": 77, "length_penalty": 1.5, "num_beams": 2, "early_stopping": "never"},
    {"forced_bos": 0, "do_sample": True, "temperature": 0.5, "top_k": 9, "top_p": 0.9},
]


def save(folder: Path, tokenizer: Tokenizer, layout: str, decoding: dict = FLORENCE_2) -> Preprocessor:
    """Write the companions of a tiny network, and return its preprocessor."""
    config = tiny_config(vocab_size=tokenizer.image_id + 1)
    preprocessor = Preprocessor(config.image_size_wh)
    write_companions(folder, tokenizer, preprocessor, config, decoding, layout)
    return preprocessor


@pytest.fixture(scope="module")
def real_tokenizer(published) -> Tokenizer:
    return Tokenizer.from_file(published / "florence-2-large")


@pytest.fixture(params=["toy", "real"])
def tokenizer(request) -> Tokenizer:
    return request.getfixturevalue(f"{request.param}_tokenizer")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("decoding", DECODINGS)
def test_what_was_written_is_read(toy_tokenizer, tmp_path, layout, decoding):
    preprocessor = Preprocessor((64, 48), (0.1, 0.2, 0.3), (0.7, 0.8, 0.9), Image.Resampling.BILINEAR)
    write_companions(tmp_path, toy_tokenizer, preprocessor, tiny_config(), decoding, layout)
    assert Tokenizer.from_file(tmp_path).to_json() == toy_tokenizer.to_json()
    assert read_preprocessor(tmp_path) == preprocessor
    assert read_decoding(tmp_path) == decoding


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_first_id_is_forced_where_it_was(toy_tokenizer, tmp_path, layout):
    """A checkpoint made here forces `<s>`; one whose files name nothing is saved with files that name nothing."""
    Florence(FlorenceModel(tiny_config()), toy_tokenizer).save_pretrained(tmp_path / "made", layout)
    assert read_decoding(tmp_path / "made") == {"forced_bos": 0}
    Florence(FlorenceModel(tiny_config()), toy_tokenizer, decoding={}).save_pretrained(tmp_path / "found", layout)
    for folder in ("found", "again"):
        assert read_decoding(tmp_path / folder if folder == "found" else tmp_path / "again") == {}
        for name in ("config.json", "generation_config.json"):
            assert "forced_bos" not in (tmp_path / folder / name).read_text()
        if folder == "found":
            Florence.from_pretrained(tmp_path / "found").save_pretrained(tmp_path / "again", layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_arguments_write_the_same_bytes(toy_tokenizer, tmp_path, layout):
    for name in ("one", "two"):
        save(tmp_path / name, toy_tokenizer, layout)
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / n).iterdir()} for n in ("one", "two"))
    assert one == two
    assert one.keys() <= set(COMPANIONS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_of_an_earlier_save_contradicts(toy_tokenizer, tmp_path, layout):
    """Over a folder of another layout and another tokenizer: its files go, what is no companion stays."""
    other = Tokenizer.train(["a cat"], vocab_size=1300)
    for name in COMPANIONS:
        (tmp_path / name).write_text('{"<od>": 5}', encoding="utf-8")
    save(tmp_path, other, "original" if layout == "native" else "native")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    save(tmp_path, toy_tokenizer, layout)
    save(tmp_path / "fresh", toy_tokenizer, layout)
    names = {file.name for file in (tmp_path / "fresh").iterdir()}
    assert {file.name for file in tmp_path.iterdir()} == {*names, "fresh", "config.json"}
    assert Tokenizer.from_file(tmp_path).to_json() == toy_tokenizer.to_json()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "onnx"}, "layout is 'onnx'; it must be one of native, original"),
        ({"preprocessor": Preprocessor((32, 32))}, r"images of \(32, 32\), the network takes \(64, 48\)"),
        ({"config": tiny_config(bins=100)}, "1000 location tokens, the network 100 bins"),
        ({"decoding": {"seed": 1}}, "'seed', which cannot be saved"),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_anything_is_written(toy_tokenizer, tmp_path, changes, message):
    arguments = {"preprocessor": Preprocessor((64, 48)), "config": tiny_config(), "decoding": {}, "layout": "native"}
    with pytest.raises(ValueError, match=message):
        write_companions(tmp_path / "new", toy_tokenizer, **arguments | changes)
    assert not (tmp_path / "new").exists()


def test_microsofts_code_has_1000_bins(tmp_path):
    small = Tokenizer.train(["a cat"], vocab_size=400, bins=100)
    arguments = (small, Preprocessor((64, 48)), tiny_config(bins=100, vocab_size=401), {})
    with pytest.raises(ValueError, match="bins = 100: .*native layout"):
        write_companions(tmp_path, *arguments, layout="original")
    write_companions(tmp_path, *arguments, layout="native")
    assert Tokenizer.from_file(tmp_path).to_json() == small.to_json()


# ---- what transformers makes of it -----------------------------------------------------------------------------------

PROMPTS = {
    "<OD>": {},
    "<OCR_WITH_REGION>": {},
    "<OPEN_VOCABULARY_DETECTION>": {"phrases": ["red car", "dog"]},
    "<REGION_TO_CATEGORY>": {"region": (1.0, 2.0, 33.0, 44.0)},
}


def test_transformers_processor_loads_the_native_layout(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    preprocessor = save(tmp_path, tokenizer, "native")
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    assert type(processor).__name__ == "Florence2Processor"
    assert processor.image_token_id == tokenizer.image_id
    image_tokens = [tokenizer.image_id] * tiny_config().image_tokens
    image = noise_image(1)
    for marker, given in PROMPTS.items():
        sentence = task(marker).prompt(**given, size_wh=image.size)
        inputs = processor(text=sentence, images=image, return_tensors="pt")
        assert inputs.input_ids[0].tolist() == image_tokens + tokenizer.encode_prompt(sentence)
        assert (inputs.pixel_values - preprocessor([image])).abs().max() <= 1e-5
    by_marker = processor(text="<OD>", images=image).input_ids[0]
    assert list(by_marker) == image_tokens + tokenizer.encode_prompt(task("<OD>").prompt())


def test_transformers_processor_parses_answers(toy_tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    save(tmp_path, toy_tokenizer, "native")
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)

    def parse(text: str, marker: str) -> dict:
        return processor.post_process_generation(text, task=marker, image_size=(1000, 1000))[marker]

    box = "<loc_1><loc_2><loc_3><loc_4>"
    for marker in processor.tasks_answer_post_processing_type:
        parse(f"</s><s>dog{box}</s>", marker)
    assert parse(f"</s><s>dog{box}</s>", "<OD>")["labels"] == ["dog"]
    grounding = parse(f"</s><s>the image{box}dog{box}it{box}</s>", "<CAPTION_TO_PHRASE_GROUNDING>")
    assert grounding == {"bboxes": [[1, 2, 3, 4]], "labels": ["dog"]}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_transformers_tokenizer_encodes_and_decodes(tokenizer, tmp_path, layout):
    transformers = pytest.importorskip("transformers")
    save(tmp_path, tokenizer, layout)
    config = {"model_type": "florence2"}
    theirs = transformers.AutoTokenizer.from_pretrained(write_json(tmp_path, config=config))
    ids = tokenizer.encode_prompt("a red café 猫<and><loc_5>")
    assert theirs("a red café 猫<and><loc_5>").input_ids == ids
    assert theirs.decode(ids) == "<s>a red café 猫<and><loc_5></s>"
    assert theirs.decode(ids, skip_special_tokens=True) == "a red café 猫"
    assert (theirs.bos_token_id, theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id) == (0, 1, 2, 3)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("decoding", DECODINGS)
def test_transformers_reads_the_decoding_settings(toy_tokenizer, tmp_path, layout, decoding):
    transformers = pytest.importorskip("transformers")
    save(tmp_path, toy_tokenizer, layout, decoding)
    theirs = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert {
        ours: getattr(theirs, {"forced_bos": "forced_bos_token_id"}.get(ours, ours)) for ours in decoding
    } == decoding
    assert (theirs.bos_token_id, theirs.pad_token_id, theirs.eos_token_id) == (0, 1, 2)
    assert (theirs.decoder_start_token_id, theirs.forced_eos_token_id) == (2, 2)


@pytest.mark.parametrize("files", [COMPANIONS, ("vocab.json", "merges.txt", "tokenizer_config.json")])
def test_microsofts_processor_finds_what_it_needs(tokenizer, tmp_path, files):
    """What its code does when it starts: a BART tokenizer that gets the 1,024 tokens, and a CLIP image processor that
    knows the number of image tokens."""
    transformers = pytest.importorskip("transformers")
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    preprocessor = save(tmp_path, tokenizer, "original")
    images = clip.CLIPImageProcessorPil.from_pretrained(tmp_path)
    assert images.image_seq_length == tiny_config().image_tokens
    image = noise_image(2)
    assert (images(image, return_tensors="pt").pixel_values - preprocessor([image])).abs().max() <= 1e-5
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert settings["auto_map"]["AutoProcessor"].endswith("--processing_florence2.Florence2Processor")

    for name in set(COMPANIONS) - set(files):
        (tmp_path / name).unlink(missing_ok=True)
    theirs = transformers.BartTokenizerFast.from_pretrained(tmp_path)
    assert theirs.add_tokens(added_tokens(), special_tokens=True) == 0
    assert len(theirs) == tokenizer.vocabulary.size
    for text in ("Locate red car<and>dog in the image.", "What is the region <loc_1><loc_2><loc_3><loc_999>?"):
        assert theirs(text).input_ids == tokenizer.encode_prompt(text)


def test_image_tokens_of_the_base_size(toy_tokenizer, tmp_path):
    config = FlorenceConfig.preset("base")
    for layout in LAYOUTS:
        write_companions(tmp_path, toy_tokenizer, Preprocessor((768, 768)), config, FLORENCE_2, layout)
        settings = json.loads((tmp_path / "preprocessor_config.json").read_text(encoding="utf-8"))
        assert settings["image_seq_length"] == 577


def test_no_forced_first_id_survives_the_round_trip(toy_tokenizer, tmp_path):
    florence = Florence(FlorenceModel(tiny_config()), toy_tokenizer, decoding={"forced_bos": None})
    florence.save_pretrained(tmp_path / "first", "original")
    Florence.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second", "original")
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("first", "second")]
    assert configs[0] == configs[1] and configs[0]["text_config"]["forced_bos_token_id"] is None


@pytest.mark.parametrize("early_stopping", [True, False, None])
def test_a_round_trip_keeps_what_microsofts_code_reads(toy_tokenizer, tmp_path, early_stopping):
    """`early_stopping` of `text_config`, whatever the file says that its `generate` never reads."""
    first, second = tmp_path / "first", tmp_path / "second"
    told = {} if early_stopping is None else {"early_stopping": early_stopping}
    Florence(FlorenceModel(tiny_config()), toy_tokenizer, decoding=told).save_pretrained(first, "original")
    write_json(first, generation_config={"early_stopping": not early_stopping, "num_beams": 7})
    Florence.from_pretrained(first).save_pretrained(second, "original")
    configs = [json.loads((folder / "config.json").read_text()) for folder in (first, second)]
    assert configs[0] == configs[1]
    assert configs[1]["text_config"].get("early_stopping") is early_stopping
    assert "num_beams" not in configs[1]["text_config"]
