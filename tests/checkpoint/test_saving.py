"""Whole checkpoints written by `Florence`: read again here and by transformers, with all that belongs to them."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from florence_lite import Florence
from florence_lite.cards import task
from florence_lite.checkpoint import LAYOUTS, load_checkpoint, read_decoding, save_checkpoint
from florence_lite.checkpoint.saving import lengthened
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.model import FlorenceConfig, FlorenceModel
from tests.tiny import noise_image, tiny_florence

DECODING = {"num_beams": 3, "early_stopping": True, "no_repeat_ngram_size": 3, "length_penalty": 1.5}
IMAGE = noise_image(5)
PROMPTS = ["<CAPTION>", "<OD>", "<OCR_WITH_REGION>", "What is this?"]


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def florence(request, toy_tokenizer):
    plain = tiny_florence(toy_tokenizer, request.param)
    config = plain.model.config
    grey = Preprocessor(config.image_size_wh, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    return Florence(plain.model, toy_tokenizer, preprocessor=grey, decoding=DECODING)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_saved_and_loaded_is_the_same(florence, tmp_path, layout):
    florence.save_pretrained(tmp_path, layout)
    loaded = Florence.from_pretrained(tmp_path)
    assert loaded.preprocessor == florence.preprocessor
    assert loaded.tokenizer.to_json() == florence.tokenizer.to_json()
    assert {name: loaded.decoding[name] for name in DECODING} == DECODING
    for prompt in PROMPTS:
        ours, theirs = (each.run(IMAGE, prompt, max_new_tokens=20) for each in (florence, loaded))
        assert theirs.token_ids == ours.token_ids
        assert theirs.token_logprobs == pytest.approx(ours.token_logprobs, abs=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_saved_again_the_files_are_the_same(florence, tmp_path, layout):
    florence.save_pretrained(tmp_path / "one", layout)
    Florence.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two", layout)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_others_may_read_what_others_may_read_here(florence, tmp_path):
    (tmp_path / "any").touch()
    florence.save_pretrained(tmp_path / "saved")
    assert {file.stat().st_mode for file in (tmp_path / "saved").iterdir()} == {(tmp_path / "any").stat().st_mode}


def test_from_layout_to_layout_nothing_is_lost(florence, tmp_path):
    florence.save_pretrained(tmp_path / "original", "original")
    Florence.from_pretrained(tmp_path / "original").save_pretrained(tmp_path / "native", "native")
    ours, theirs = florence.model.state_dict(), load_checkpoint(tmp_path / "native").state_dict()
    rows = len(ours["embed_tokens.weight"])
    assert len(theirs["embed_tokens.weight"]) > rows
    theirs["embed_tokens.weight"] = theirs["embed_tokens.weight"][:rows]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_table_that_lacks_the_row_of_the_image_token():
    table = torch.randn(70, 4)
    assert lengthened(table, 70) is table
    longer = lengthened(table, 71)
    assert longer.shape == (128, 4)
    assert torch.equal(longer[:70], table)
    states = torch.randn(50, 4)
    scores = states @ longer.T
    assert (scores[:, 70:].amax(1) < scores[:, :70].amax(1)).all()
    assert lengthened(table.half(), 129).shape == (192, 4)


@pytest.mark.parametrize("first", [{"forced_bos": 0}, {"forced_bos": None}, {}])
def test_transformers_gives_the_same_ids(toy_tokenizer, tmp_path, first):
    """With its own processor, class and generation settings, all out of the saved folder.

    first: what the files say of a forced first id; of nothing, both make nothing.
    """
    transformers = pytest.importorskip("transformers")
    plain = tiny_florence(toy_tokenizer, "encoder")
    Florence(plain.model, toy_tokenizer, decoding=DECODING | first).save_pretrained(tmp_path)
    ours = Florence.from_pretrained(tmp_path)
    native = transformers.Florence2ForConditionalGeneration.from_pretrained(tmp_path).eval()
    processor = transformers.AutoProcessor.from_pretrained(tmp_path, backend="pil")
    assert native.generation_config.num_beams == 3
    lengths = set()
    for prompt in PROMPTS:
        inputs = processor(text=prompt, images=IMAGE, return_tensors="pt")
        expected = native.generate(**inputs, max_new_tokens=20)[0, 1:].tolist()
        got = ours.run(IMAGE, prompt, max_new_tokens=20, compat=True)
        assert list(got.token_ids) == expected[: expected.index(2) + 1]
        lengths.add(len(expected))
    assert max(lengths) > 3


def test_decoding_defaults(toy_tokenizer):
    """The checkpoint's, but for lengths and, outside of prose, the n-gram rule; all of them with compat."""
    florence = Florence(tiny_florence(toy_tokenizer, "encoder").model, toy_tokenizer, decoding=DECODING)
    expected = {
        ("<OD>", False): (3, 0, True, 1.5),
        ("<CAPTION>", False): (3, 3, True, 1.5),
        ("<OD>", True): (3, 3, False, 1.5),
    }
    for (name, compat), values in expected.items():
        options = florence.answering.generation_options(task(name), 1, {"compat": compat})
        assert (
            options.num_beams,
            options.no_repeat_ngram_size,
            options.ban_bos_after_forced,
            options.length_penalty,
        ) == values
    assert florence.answering.generation_options(task("<OD>"), 1, {"do_sample": True}).num_beams == 1
    assert florence.answering.generation_options(task("<OD>"), 1, {"num_beams": 2}).num_beams == 2


@pytest.mark.parametrize("compat", [False, True])
def test_a_checkpoint_that_wants_to_be_sampled(toy_tokenizer, compat):
    """What its settings say of sampling holds only where an answer is sampled, and of beams only where it is not."""
    own = {"do_sample": True, "temperature": 0.7, "top_k": 5, "num_beams": 3}
    florence = Florence(tiny_florence(toy_tokenizer, "encoder").model, toy_tokenizer, decoding=own)

    def found(**asked):
        options = florence.answering.generation_options(task("<OD>"), 1, {"compat": compat, **asked})
        return options.do_sample, options.num_beams, options.temperature, options.top_k

    assert found() == (True, 1, 0.7, 5)
    assert found(do_sample=False) == (False, 3, 1.0, None)
    assert found(do_sample=False, num_beams=2) == (False, 2, 1.0, None)


def test_microsofts_code_finds_the_decoding_settings(florence, tmp_path):
    florence.save_pretrained(tmp_path, "original")
    text = json.loads((tmp_path / "config.json").read_text())["text_config"]
    assert {name: text[name] for name in DECODING} == DECODING
    (tmp_path / "generation_config.json").unlink()
    assert {name: read_decoding(tmp_path)[name] for name in DECODING} == DECODING


def test_image_size_of_a_config_that_does_not_tell_it(florence, tmp_path):
    florence.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["florence_lite"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_checkpoint(tmp_path).config
    assert loaded.image_size_wh == florence.model.config.image_size_wh != (768, 768)
    assert loaded.prompt_side == "encoder"


def test_parts_that_do_not_belong_together(florence, toy_tokenizer):
    with pytest.raises(ValueError, match=r"makes images of \(32, 32\), the network takes \(64, 48\)"):
        Florence(florence.model, toy_tokenizer, preprocessor=Preprocessor((32, 32)))


def test_adapters_are_merged_into_their_base(toy_tokenizer, tmp_path):
    """Named by itself, and beside its base."""
    peft = pytest.importorskip("peft")
    florence = tiny_florence(toy_tokenizer, "encoder")
    florence.save_pretrained(tmp_path / "base")
    base = load_checkpoint(tmp_path / "base")
    adapted = peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj", "fc1"], init_lora_weights=False))
    adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    adapted.save_pretrained(tmp_path / "adapter")
    expected = adapted.merge_and_unload().state_dict()
    for arguments in ({"name": tmp_path / "adapter"}, {"name": tmp_path / "base", "adapter": tmp_path / "adapter"}):
        loaded = Florence.from_pretrained(**arguments)
        state = loaded.model.state_dict()
        assert all(torch.allclose(state[name], tensor, atol=1e-6) for name, tensor in expected.items())
        assert loaded.run(IMAGE, "<OD>", max_new_tokens=8).token_ids
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = None
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"adapter '.*adapter' names no base: call from_pretrained\(BASE, adapter="):
        Florence.from_pretrained(tmp_path / "adapter")


MEASURE = """
import sys, resource, torch
import florence_lite.florence
from florence_lite.checkpoint import load_checkpoint
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
model = load_checkpoint(sys.argv[1], sys.argv[2])
print((peak() - before) / sum(p.nbytes for p in model.parameters()))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere peak memory is counted in other units")
@pytest.mark.parametrize(
    ("stored", "dtype"),
    [("float32", "float32"), ("float16", "float32"), ("float32", "bfloat16")],
)
def test_loading_takes_little_more_memory_than_the_weights(tmp_path, stored, dtype):
    nano = FlorenceConfig.preset("nano")
    text = dataclasses.replace(nano.text, d_model=512, ffn_dim=4096, encoder_layers=6, decoder_layers=6)
    model = FlorenceModel(dataclasses.replace(nano, text=text))
    assert sum(parameter.numel() for parameter in model.parameters()) > 70e6
    save_checkpoint(model, tmp_path, getattr(torch, stored))
    command = [sys.executable, "-c", MEASURE, str(tmp_path), dtype]
    share = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert share <= 1.3


def test_precision_of_the_files(florence, tmp_path):
    florence.save_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}


def test_what_a_layout_cannot_express_is_refused_before_anything_is_written(florence, tmp_path):
    odd = Florence(florence.model, florence.tokenizer, florence.card, florence.preprocessor)
    odd.model.config = dataclasses.replace(
        odd.model.config, vision=dataclasses.replace(odd.model.config.vision, mlp_ratio=2)
    )
    try:
        with pytest.raises(ValueError, match="mlp_ratio = 2: Microsoft's code knows only 4"):
            odd.save_pretrained(tmp_path / "new", "original")
    finally:
        odd.model.config = dataclasses.replace(
            odd.model.config, vision=dataclasses.replace(odd.model.config.vision, mlp_ratio=4)
        )
    assert not (tmp_path / "new" / "config.json").exists()


def test_what_the_card_says_of_decoding_is_saved(tmp_path):
    """A copy has no card: its sentences may go on to say the same three words twice."""
    florence = Florence.from_pretrained("scenes-nano")
    florence.save_pretrained(tmp_path)
    assert Florence.from_pretrained(tmp_path).decoding["no_repeat_ngram_size"] == 0
