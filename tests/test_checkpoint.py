"""Checkpoint folders: what is saved comes back, here and in transformers; what is broken is named."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import florence_lite.checkpoint as checkpoint_module
from florence_lite.checkpoint import (
    EMBEDDING,
    FRAME_POSITIONS,
    TIED,
    config_from_native,
    config_to_native,
    load_checkpoint,
    load_native_tensors,
    native_name,
    read_config,
    save_checkpoint,
)
from florence_lite.model import FlorenceConfig, FlorenceModel
from tests.model.native import TINY, native_inputs, native_pair
from tests.tiny import tiny_config

CONFIG = tiny_config("decoder", vocab_size=90, bins=50)
NORM = "model.language_model.encoder.layernorm_embedding.weight"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FlorenceModel(CONFIG).eval()


@pytest.fixture
def folder(model, tmp_path):
    save_checkpoint(model, tmp_path)
    return tmp_path


def equal(one: FlorenceModel, other: FlorenceModel) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def logits(model: FlorenceModel) -> torch.Tensor:
    """Of an arbitrary image, prompt and answer."""
    generator = torch.Generator().manual_seed(0)
    width, height = model.config.image_size_wh
    pixel_values = torch.randn(1, 3, height, width, generator=generator)
    with torch.inference_mode():
        states, _ = model.encode(model.encode_image(pixel_values), torch.tensor([[0, 9, 8, 2]]))
        return model.logits(model.decode(torch.tensor([[2, 0, 5, 6]]), model.cross_cache(states)))


# ---- there and back


def test_saved_and_loaded_is_the_same(model, folder):
    loaded = load_checkpoint(folder)
    assert loaded.config == CONFIG
    assert equal(model, loaded)
    assert torch.equal(loaded.projector.frame_positions, model.projector.frame_positions)
    assert not loaded.training
    assert torch.equal(logits(loaded), logits(model))
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}


def test_a_loaded_model_can_be_trained(folder):
    loaded = load_checkpoint(folder)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    states, _ = loaded.encode(loaded.encode_image(torch.zeros(1, 3, 48, 64)))
    states.sum().backward()


def test_precision_of_file_and_model(model, folder):
    save_checkpoint(model, folder, torch.float16)
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float16}
    loaded = load_checkpoint(folder)
    assert all(
        torch.equal(new, old.half().float()) for new, old in zip(loaded.parameters(), model.parameters(), strict=True)
    )
    low = load_checkpoint(folder, torch.bfloat16)
    assert {tensor.dtype for tensor in [*low.parameters(), *low.buffers()]} == {torch.bfloat16}


def test_saving_into_a_new_folder(model, tmp_path):
    save_checkpoint(model, tmp_path / "a" / "b")
    assert equal(load_checkpoint(str(tmp_path / "a" / "b")), model)


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        TINY,
        FlorenceConfig.preset("nano"),
        FlorenceConfig.preset("base"),
        FlorenceConfig.preset("large"),
        FlorenceConfig.preset("base", image_size_wh=(384, 512), bins=100, prompt_side="decoder"),
    ],
)
def test_config_there_and_back(config):
    assert config_from_native(json.loads(json.dumps(config_to_native(config)))) == config


def test_names_are_distinct():
    with torch.device("meta"):
        names = FlorenceModel(TINY).state_dict()
    assert len({native_name(name) for name in names}) == len(names)


@pytest.mark.parametrize("kept", [[name] for name in (EMBEDDING, *TIED)] + [[EMBEDDING, *TIED], list(TIED)])
def test_any_of_the_tied_tensors_will_do(model, folder, kept):
    tensors = load_file(folder / "model.safetensors")
    embedding = tensors.pop(EMBEDDING)
    save_file(tensors | {name: embedding.clone() for name in kept}, folder / "model.safetensors")
    assert equal(load_checkpoint(folder), model)


def test_frame_positions_may_be_absent(model, folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors[FRAME_POSITIONS]
    save_file(tensors, folder / "model.safetensors")
    assert torch.equal(logits(load_checkpoint(folder)), logits(model))


# ---- exchange with transformers

EXCHANGED = dataclasses.replace(  # a config without our fields means images of 768 pixels: 577 tokens
    TINY, text=dataclasses.replace(TINY.text, positions=600), image_size_wh=(768, 768)
)


def native_logits(native, config: FlorenceConfig) -> torch.Tensor:
    """The same image, prompt and answer as in `logits`."""
    generator = torch.Generator().manual_seed(0)
    width, height = config.image_size_wh
    with torch.inference_mode():
        return native(
            input_ids=native_inputs(config, torch.tensor([[0, 9, 8, 2]])),
            pixel_values=torch.randn(1, 3, height, width, generator=generator),
            decoder_input_ids=torch.tensor([[2, 0, 5, 6]]),
        ).logits


def test_what_transformers_saves_loads_here(tmp_path):
    _, native = native_pair(EXCHANGED)
    native.save_pretrained(tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded.config == EXCHANGED
    assert (logits(loaded) - native_logits(native, EXCHANGED)).abs().max() <= 1e-5


def test_what_is_saved_here_loads_in_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    ours, _ = native_pair(TINY, seed=1)
    save_checkpoint(ours, tmp_path)
    native, report = transformers.Florence2ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    native.config.image_token_id = TINY.text.vocab_size - 1  # the default lies outside of so small a vocabulary
    assert (logits(ours) - native_logits(native.eval(), TINY)).abs().max() <= 1e-5


# ---- broken checkpoints


def rewrite(change):
    """A fault in the weights: `change` edits the dictionary of tensors."""

    def apply(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return apply


def reconfigure(change):
    """A fault in the config: `change` edits the dictionary."""

    def apply(folder):
        values = json.loads((folder / "config.json").read_text())
        change(values)
        (folder / "config.json").write_text(json.dumps(values))

    return apply


def truncate(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


BROKEN = {
    "no config": (lambda f: (f / "config.json").unlink(), FileNotFoundError, "has no file 'config.json'"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), FileNotFoundError, "has no file 'model.safetensors'"),
    "cut short": (truncate, ValueError, "model.safetensors is damaged or cut short .*; copy it again"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), ValueError, "damaged or cut short"),
    "tensor missing": (rewrite(lambda t: t.pop(NORM)), ValueError, rf"\(1 problems\):\n  missing: {NORM}"),
    "no embedding": (rewrite(lambda t: t.pop(EMBEDDING)), ValueError, f"missing: {EMBEDDING}"),
    "tensor unknown": (
        rewrite(lambda t: t.update({"adapter.weight": torch.zeros(3)})),
        ValueError,
        r"\(1 problems\):\n  unknown: adapter.weight",
    ),
    "wrong shape": (
        rewrite(lambda t: t.update({NORM: torch.zeros(31)})),
        ValueError,
        rf"shape of {NORM}: \[31\], config says \[32\]",
    ),
    "not tied": (
        rewrite(lambda t: t.update({"lm_head.weight": t[EMBEDDING] + 1})),
        ValueError,
        "not tied: lm_head.weight differs from the token embeddings",
    ),
    "many problems": (rewrite(dict.clear), ValueError, r"problems\):\n(  missing: .*\n){20}  … and \d+ more"),
    "config is no JSON": (
        lambda f: (f / "config.json").write_text("{'a': 1"),
        ValueError,
        "config.json is no JSON file",
    ),
    "config is no text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), ValueError, "is no JSON file"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), ValueError, "does not describe a Florence-2"),
    "config of something else": (
        lambda f: (f / "config.json").write_text('{"model_type": "bert"}'),
        ValueError,
        "lacks the field 'vision_config': is it the config of a Florence-2 model",
    ),
    "field missing": (
        reconfigure(lambda v: v["text_config"].pop("d_model")),
        ValueError,
        "config.json lacks the field 'd_model'",
    ),
    "field out of range": (
        reconfigure(lambda v: v["vision_config"].update(depths=[1])),
        ValueError,
        r"config.json does not describe .*vision.depths = \(1,\) needs one entry per stage",
    ),
    "own field unknown": (
        reconfigure(lambda v: v["florence_lite"].update(colour="red")),
        ValueError,
        r"config.json .*unknown field \['colour'\]",
    ),
    "config of another size": (
        reconfigure(lambda v: v["text_config"].update(vocab_size=91)),
        ValueError,
        rf"does not fit its config \(1 problems\):\n  shape of {EMBEDDING}: \[90, 32\], config says \[91, 32\]",
    ),
    "config of another depth": (
        reconfigure(lambda v: v["text_config"].update(decoder_layers=1)),
        ValueError,
        "unknown: model.language_model.decoder.layers.1.",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_checkpoints(folder, fault):
    apply, error, message = BROKEN[fault]
    apply(folder)
    with pytest.raises(error, match=message) as caught:
        load_checkpoint(folder)
    assert folder.name in str(caught.value)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere' has no file 'config.json'"):
        load_checkpoint(tmp_path / "nowhere")


def test_a_refused_checkpoint_leaves_the_model_alone(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors = {
        native_name(name): torch.zeros_like(tensor) for name, tensor in before.items() if name != "encoder.norm.bias"
    }
    with pytest.raises(ValueError, match="checkpoint 'a test' does not fit"):
        load_native_tensors(model, tensors, source="a test")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# ---- interruptions


def interrupted(*arguments, **options):
    raise KeyboardInterrupt


def half_a_file(tensors, path, **options):
    path.write_bytes(b"half of a file")
    raise KeyboardInterrupt


@pytest.mark.parametrize(("name", "stand_in"), [("save_file", half_a_file), ("config_to_native", interrupted)])
def test_interrupted_saving_leaves_whole_files(model, folder, monkeypatch, name, stand_in):
    torch.manual_seed(1)
    other = FlorenceModel(CONFIG).eval()
    monkeypatch.setattr(checkpoint_module, name, stand_in)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(other, folder)
    monkeypatch.undo()
    kept = load_checkpoint(folder)
    assert equal(kept, model) or equal(kept, other)
    if name == "save_file":
        assert equal(kept, model)
    save_checkpoint(other, folder)
    assert equal(load_checkpoint(folder), other)
    assert read_config(folder) == CONFIG
    assert not list(folder.glob("*.partial"))


def test_loaded_tensors_reach_every_parameter():
    """None keeps its random start."""
    model = FlorenceModel(CONFIG)
    tensors = {native_name(name): torch.full_like(tensor, 7) for name, tensor in model.state_dict().items()}
    load_native_tensors(model, tensors, source="sevens")
    assert all((parameter == 7).all() for parameter in model.parameters())
