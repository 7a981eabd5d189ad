"""Checkpoint folders: what is saved comes back, here and in transformers; what is broken is named."""

import dataclasses
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

import florence_lite.checkpoint.saving as saving_module
from florence_lite.checkpoint import (
    LAYOUTS,
    config_from_json,
    config_to_json,
    load_checkpoint,
    load_tensors,
    read_config,
    save_checkpoint,
)
from florence_lite.checkpoint.layouts import EMBEDDING, OUTPUT, TABLES
from florence_lite.checkpoint.loading import resolve_dtype
from florence_lite.model import FlorenceConfig, FlorenceModel
from tests.model.native import TINY, native_inputs, native_pair
from tests.tiny import tiny_config

CONFIG = tiny_config("decoder", vocab_size=90, bins=50)
WEIGHTS = "model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1084\n"
NORM = "encoder.norm.weight"  # by our names
NATIVE_NORM = "model.language_model.encoder.layernorm_embedding.weight"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FlorenceModel(CONFIG).eval()


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return LAYOUTS[request.param]


@pytest.fixture
def folder(model, layout, tmp_path):
    save_checkpoint(model, tmp_path, layout=layout.name)
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
    assert {path.name for path in folder.iterdir()} == {"config.json", WEIGHTS}


def test_saved_again_the_files_are_the_same(folder, layout, tmp_path):
    save_checkpoint(load_checkpoint(folder), tmp_path / "again", layout=layout.name)
    for name in ("config.json", WEIGHTS):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_loaded_model_can_be_trained(folder):
    loaded = load_checkpoint(folder)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    states, _ = loaded.encode(loaded.encode_image(torch.zeros(1, 3, 48, 64)))
    states.sum().backward()


def test_precision_of_file_and_model(model, folder, layout):
    save_checkpoint(model, folder, torch.float16, layout.name)
    assert {tensor.dtype for tensor in load_file(folder / WEIGHTS).values()} == {torch.float16}
    loaded = load_checkpoint(folder)
    assert all(
        torch.equal(new, old.half().float()) for new, old in zip(loaded.parameters(), model.parameters(), strict=True)
    )
    low = load_checkpoint(folder, torch.bfloat16)
    assert {tensor.dtype for tensor in [*low.parameters(), *low.buffers()]} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("stored", "asked", "got"),
    [
        (torch.float32, "auto", torch.float32),
        (torch.bfloat16, "auto", torch.bfloat16),
        (torch.float16, "auto", torch.float32),  # on the CPU
        (torch.float64, "auto", torch.float32),
        (torch.float32, "bfloat16", torch.bfloat16),
        (torch.float16, "float32", torch.float32),
    ],
)
def test_precision_by_name(model, tmp_path, stored, asked, got):
    save_checkpoint(model, tmp_path, stored)
    assert {p.dtype for p in load_checkpoint(tmp_path, asked).parameters()} == {got}


def test_auto_is_float32_on_apples_gpus():
    """Where half precision is not tested; CUDA takes the files' own."""
    for stored in (torch.float16, torch.bfloat16):
        assert resolve_dtype("auto", stored, torch.device("mps")) == torch.float32
        assert resolve_dtype("float16", stored, torch.device("mps")) == torch.float16
        assert resolve_dtype("auto", stored, torch.device("cuda")) == stored


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (torch.float16, "float16 on the CPU is slow and overflows: take dtype='bfloat16'"),
        ("float16", "float16 on the CPU"),
        ("int8", "dtype is 'int8'; it must be 'auto' or one of float32, bfloat16, float16"),
        (torch.float64, "must be 'auto' or one of"),
    ],
)
def test_precisions_that_are_refused(model, tmp_path, dtype, message):
    save_checkpoint(model, tmp_path)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path, dtype)


def test_saving_into_a_new_folder(model, tmp_path):
    save_checkpoint(model, tmp_path / "a" / "b")
    assert equal(load_checkpoint(str(tmp_path / "a" / "b")), model)


def test_saving_in_an_unknown_layout(model, tmp_path):
    with pytest.raises(ValueError, match="layout is 'onnx'; it must be one of native, original"):
        save_checkpoint(model, tmp_path / "new", layout="onnx")
    assert not (tmp_path / "new").exists()


# ---- configs


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
def test_config_there_and_back(config, layout):
    assert config_from_json(json.loads(json.dumps(config_to_json(config, layout.name)))) == config


@pytest.mark.parametrize(
    ("repository", "preset"), [("florence-2-large", "large"), ("florence-2-base-ft-tuned", "base")]
)
def test_configs_of_real_checkpoints(published, repository, preset):
    assert read_config(published / repository) == FlorenceConfig.preset(preset)


def test_an_mlp_ratio_that_microsofts_code_lacks():
    config = dataclasses.replace(CONFIG, vision=dataclasses.replace(CONFIG.vision, mlp_ratio=2))
    with pytest.raises(ValueError, match="mlp_ratio = 2: Microsoft's code knows only 4; save in the native layout"):
        config_to_json(config, "original")


# ---- layouts

# The published table from original to native names, read independently of how the layouts here are written down.
ORIGINAL_TO_NATIVE = [
    (r"^vision_tower\.convs\.(\d)\.proj\.", r"model.vision_tower.convs.\1.conv."),
    (r"^vision_tower\.", "model.vision_tower."),
    (r"\.conv([12])\.fn\.dw\.", r".conv\1."),
    (r"\.(window|channel)_attn\.norm\.", ".norm1."),
    (r"\.(window|channel)_attn\.fn\.", r".\1_attn."),
    (r"\.ffn\.norm\.", ".norm2."),
    (r"\.ffn\.fn\.net\.", ".ffn."),
    (r"^image_projection$", "model.multi_modal_projector.image_projection.weight"),
    (r"^image_proj_norm", "model.multi_modal_projector.image_proj_norm"),
    (r"^visual_temporal_embed", "model.multi_modal_projector.visual_temporal_embed"),
    (r"^image_pos_embed", "model.multi_modal_projector.image_position_embed"),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^language_model\.lm_head", "lm_head"),
]


def test_original_names_are_the_published_ones(model, tmp_path):
    for name in LAYOUTS:
        save_checkpoint(model, tmp_path / name, layout=name)
    native, original = (load_file(tmp_path / name / WEIGHTS) for name in ("native", "original"))
    assert not original.pop("language_model.final_logits_bias").any()
    original["image_projection"] = original["image_projection"].T
    for pattern, replacement in ORIGINAL_TO_NATIVE:
        original = {re.sub(pattern, replacement, name): tensor for name, tensor in original.items()}
    output_layer = original.pop("lm_head.weight")  # of which the native file has no copy
    assert torch.equal(output_layer, original["model.language_model.shared.weight"])
    assert original.keys() == native.keys()
    assert all(torch.equal(original[name], native[name]) for name in native)


def test_names_are_distinct():
    with torch.device("meta"):
        names = FlorenceModel(TINY).state_dict()
    assert len({layout.name_of(name) for name in names for layout in LAYOUTS.values()}) == 2 * len(names)


@pytest.mark.parametrize("kept", [[0], [1], [2], [3], [0, 1, 2, 3], [1, 2, 3]])
@pytest.mark.parametrize("file", [WEIGHTS, "pytorch_model.bin"])
def test_any_of_the_tied_tensors_will_do(model, layout, folder, kept, file):
    tensors = load_file(folder / WEIGHTS)
    names = (*map(layout.name_of, TABLES), layout.encoder_table)
    embedding = [tensors.pop(name, None) for name in names][0]
    if file == WEIGHTS:
        save_file(tensors | {names[i]: embedding.clone() for i in kept}, folder / file)
    else:  # which can hold one memory under several names
        torch.save(tensors | {names[i]: embedding for i in kept}, folder / file)
        (folder / WEIGHTS).unlink()
    loaded = load_checkpoint(folder)
    assert equal(loaded, model)
    assert loaded.config == model.config


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_changes_stay_in_memory_and_files_may_be_replaced(model, folder, dtype):
    """Weights of the right type are the mapped file's own pages."""
    before = (folder / WEIGHTS).read_bytes()
    loaded = load_checkpoint(folder, dtype)
    expected = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    save_checkpoint(FlorenceModel(CONFIG), folder, layout="native")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    (folder / WEIGHTS).write_bytes(before)
    loaded = load_checkpoint(folder, dtype)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(1)
    assert (folder / WEIGHTS).read_bytes() == before
    assert not any(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


def test_a_table_that_nobody_reads_may_differ(model, layout, folder):
    """transformers' class trains its first table, and leaves the encoder's copy behind."""
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {layout.encoder_table: tensors[layout.name_of(EMBEDDING)] + 1}, folder / WEIGHTS)
    loaded = load_checkpoint(folder)
    assert equal(loaded, model) and loaded.config == model.config


def test_a_bin_file_of_the_old_kind(model, folder):
    """As torch wrote it before version 1.6: no archive."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert equal(load_checkpoint(folder), model)


def test_constants_may_be_absent(model, layout, folder):
    tensors = load_file(folder / WEIGHTS)
    for name in (layout.frame_positions, *layout.zeros):
        del tensors[name]
    save_file(tensors, folder / WEIGHTS)
    assert torch.equal(logits(load_checkpoint(folder)), logits(model))


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_of_wrapped_models(model, folder, wrapper):
    tensors = load_file(folder / WEIGHTS)
    save_file({wrapper + name: tensor for name, tensor in tensors.items()}, folder / WEIGHTS)
    assert equal(load_checkpoint(folder), model)


# ---- files


def shard(folder, ending: str, save) -> None:
    """Spread the weights over three files with an index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    stem = "model" if ending == "safetensors" else "pytorch_model"
    weight_map = {}
    for part in range(3):
        file = f"{stem}-{part + 1:05}-of-00003.{ending}"
        names = sorted(tensors)[part::3]
        save({name: tensors[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))


def pickle_weights(folder) -> None:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors, folder / "pytorch_model.bin")


FILES = {
    "shards": lambda folder: shard(folder, "safetensors", save_file),
    "bin": pickle_weights,
    "bin shards": lambda folder: shard(folder, "bin", torch.save),
}


@pytest.mark.parametrize("files", FILES)
def test_weights_in_other_files(model, folder, files):
    FILES[files](folder)
    assert equal(load_checkpoint(folder), model)


def test_safetensors_before_bin(model, folder):
    (folder / "pytorch_model.bin").write_bytes(b"broken")
    assert equal(load_checkpoint(folder), model)


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
    """A fault in the weights: `change` edits the dictionary of tensors, or returns a new one."""

    def apply(folder):
        tensors = load_file(folder / WEIGHTS)
        changed = change(tensors)
        save_file(changed if isinstance(changed, dict) else tensors, folder / WEIGHTS)

    return apply


def reconfigure(change):
    """A fault in the config: `change` edits the dictionary."""

    def apply(folder):
        values = json.loads((folder / "config.json").read_text())
        change(values)
        (folder / "config.json").write_text(json.dumps(values))

    return apply


def truncate(name):
    def apply(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return apply


def after(first, second):
    def apply(folder):
        first(folder)
        second(folder)

    return apply


def faults(layout) -> dict:
    """name → (what breaks the folder, error, pattern of its message)."""
    norm, embedding = layout.name_of(NORM), layout.name_of(EMBEDDING)
    other = next(other for other in LAYOUTS.values() if other is not layout)
    text, vision = "text_config", "vision_config"
    width = "embed_dim" if layout.name == "native" else "dim_embed"
    return {
        "no config": (lambda f: (f / "config.json").unlink(), FileNotFoundError, "has no file 'config.json'"),
        "no weights": (
            lambda f: (f / WEIGHTS).unlink(),
            FileNotFoundError,
            "has no weights: none of model.safetensors, pytorch_model.bin",
        ),
        "cut short": (truncate(WEIGHTS), ValueError, "model.safetensors is damaged or cut short .*; copy it again"),
        "empty weights": (lambda f: (f / WEIGHTS).write_bytes(b""), ValueError, "damaged or cut short"),
        "git-lfs pointer": (
            lambda f: (f / WEIGHTS).write_bytes(POINTER),
            ValueError,
            "model.safetensors is a git-lfs pointer, not the file itself: run `git lfs pull`",
        ),
        "git-lfs pointer of a bin file": (
            after(pickle_weights, lambda f: (f / "pytorch_model.bin").write_bytes(POINTER)),
            ValueError,
            "pytorch_model.bin is a git-lfs pointer",
        ),
        "git-lfs pointer of an index": (
            after(FILES["shards"], lambda f: (f / "model.safetensors.index.json").write_bytes(POINTER)),
            ValueError,
            "model.safetensors.index.json is a git-lfs pointer",
        ),
        "git-lfs pointer of the config": (
            lambda f: (f / "config.json").write_bytes(POINTER),
            ValueError,
            "config.json is a git-lfs pointer",
        ),
        **{
            f"quantised to {dtype}": (
                rewrite(lambda t, dtype=dtype: t.update({norm: t[norm].to(dtype)})),
                ValueError,
                rf"\(1 problems\):\n  type of {norm}: {str(dtype).removeprefix('torch.')}, {what}",
            )
            for dtype, what in (
                *((each, "perhaps a quantised weight without") for each in (torch.int8, torch.uint8)),
                *((each, "perhaps a quantised weight without") for each in (torch.float8_e4m3fn, torch.float8_e5m2)),
                *((each, "which is no type of weights") for each in (torch.bool, torch.complex64)),
            )
        },
        "bin cut short": (
            after(pickle_weights, truncate("pytorch_model.bin")),
            ValueError,
            "pytorch_model.bin is damaged or cut short",
        ),
        "bin with code": (
            after(pickle_weights, lambda f: torch.save({"a": CodeOnLoading()}, f / "pytorch_model.bin")),
            ValueError,
            "holds more than tensors and is not read, for that would run its code",
        ),
        "bin of a training state": (
            after(pickle_weights, lambda f: torch.save({"step": 3, "model": {}}, f / "pytorch_model.bin")),
            ValueError,
            "is no table of tensors; it may be a training state",
        ),
        "shard absent": (
            after(FILES["shards"], lambda f: (f / "model-00002-of-00003.safetensors").unlink()),
            FileNotFoundError,
            "lacks the shards model-00002-of-00003.safetensors",
        ),
        "index damaged": (
            after(FILES["shards"], lambda f: (f / "model.safetensors.index.json").write_text("{}")),
            ValueError,
            "is no index of shards: it needs a 'weight_map'",
        ),
        "index without one shard": (
            after(
                FILES["shards"],
                lambda f: (f / "model.safetensors.index.json").write_text(
                    json.dumps({"weight_map": {"a": "model-00001-of-00003.safetensors"}})
                ),
            ),
            ValueError,
            r"does not fit its config \(\d+ problems\):\n  missing: ",
        ),
        "tensor missing": (rewrite(lambda t: t.pop(norm)), ValueError, rf"\(1 problems\):\n  missing: {norm}"),
        "no embedding": (
            rewrite(lambda t: {n: v for n, v in t.items() if n not in (embedding, layout.name_of(OUTPUT))}),
            ValueError,
            f"missing: {embedding}",
        ),
        "tensor unknown": (
            rewrite(lambda t: t.update({"head.weight": torch.zeros(3)})),
            ValueError,
            r"\(1 problems\):\n  unknown: head.weight",
        ),
        "adapter's tensor": (
            rewrite(lambda t: t.update({"q_proj.lora_A.weight": torch.zeros(3)})),
            ValueError,
            r"unknown: q_proj.lora_A.weight \(an adapter's: load the adapter's own folder\)",
        ),
        "wrong shape": (
            rewrite(lambda t: t.update({norm: torch.zeros(31)})),
            ValueError,
            rf"shape of {norm}: \[31\], config says \[32\]",
        ),
        "not finite": (
            rewrite(lambda t: t[norm].fill_(float("nan"))),
            ValueError,
            rf"\(1 problems\):\n  not finite: values of {norm}",
        ),
        "two layouts": (
            rewrite(lambda t: t.update({other.name_of(NORM): t.pop(norm)})),
            ValueError,
            "two layouts in one: ",
        ),
        "of another network": (
            rewrite(lambda t: (t.clear(), t.update({"bert.encoder.weight": torch.zeros(1)}))),
            ValueError,
            r"problems\):\n(  missing: .*\n){20}  … and \d+ more",
        ),
        "config is no JSON": (
            lambda f: (f / "config.json").write_text("{'a': 1"),
            ValueError,
            "config.json is no JSON file",
        ),
        "config is no text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), ValueError, "is no UTF-8 text"),
        "config is a list": (lambda f: (f / "config.json").write_text("[]"), ValueError, "holds a JSON list"),
        "section is a list": (reconfigure(lambda v: v.update({text: []})), ValueError, "does not describe a Florence"),
        "config of something else": (
            lambda f: (f / "config.json").write_text('{"model_type": "bert"}'),
            ValueError,
            "lacks the field 'vision_config': is it the config of a Florence-2 model",
        ),
        "field missing": (
            reconfigure(lambda v: v[text].pop("d_model")),
            ValueError,
            "config.json lacks the field 'd_model'",
        ),
        "field out of range": (
            reconfigure(lambda v: v[vision].update(depths=[1])),
            ValueError,
            r"config.json does not describe .*vision.depths = \(1,\) must be a list of one entry per stage",
        ),
        "another activation": (
            reconfigure(lambda v: v[text].update(activation_function="relu")),
            ValueError,
            "text_config.activation_function = 'relu': the network knows only 'gelu'",
        ),
        "encoder unlike decoder": (
            reconfigure(lambda v: v[text].update(encoder_attention_heads=1)),
            ValueError,
            "encoder_attention_heads and decoder_attention_heads differ",
        ),
        "own section is a list": (
            reconfigure(lambda v: v.update(florence_lite=[1])),
            ValueError,
            r"config.json: florence_lite = \[1\] must be an object",
        ),
        "own field unknown": (
            reconfigure(lambda v: v["florence_lite"].update(colour="red")),
            ValueError,
            r"config.json .*unknown field \['colour'\]",
        ),
        "config of another vocabulary": (
            reconfigure(lambda v: v[text].update(vocab_size=91)),
            ValueError,
            rf"shape of {embedding}: \[90, 32\], config says \[91, 32\]; set text_config.vocab_size to 90",
        ),
        "config of other positions": (
            reconfigure(lambda v: v[text].update(max_position_embeddings=4096)),
            ValueError,
            "config says .*; set text_config.max_position_embeddings to 160 in config.json",
        ),
        "config of another depth": (
            reconfigure(lambda v: v[text].update(decoder_layers=1)),
            ValueError,
            r"unknown: .*decoder.layers.1.",
        ),
        "config of another width": (
            reconfigure(lambda v: v[vision].update({width: [16, 64]})),
            ValueError,
            r"shape of .*: \[32\], config says \[64\]",
        ),
    }


class CodeOnLoading:
    """Runs a function when it is unpickled."""

    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize("fault", faults(LAYOUTS["native"]))
def test_broken_checkpoints(layout, folder, fault, capsys):
    apply, error, message = faults(layout)[fault]
    apply(folder)
    with pytest.raises(error, match=message) as caught:
        load_checkpoint(folder)
    assert folder.name in str(caught.value)
    assert "code ran" not in capsys.readouterr().out


def test_a_bias_that_the_network_lacks(model, tmp_path):
    save_checkpoint(model, tmp_path, layout="original")
    rewrite(lambda t: t["language_model.final_logits_bias"].fill_(1.0))(tmp_path)
    with pytest.raises(ValueError, match="not zero: language_model.final_logits_bias"):
        load_checkpoint(tmp_path)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint folder '.*nowhere'"):
        load_checkpoint(tmp_path / "nowhere")


def test_values_too_large_for_half_precision(model):
    tensors = model.state_dict() | {NORM: torch.full((32,), 1e5)}
    named = [(LAYOUTS["native"].name_of(name), tensor) for name, tensor in tensors.items()]
    with pytest.raises(ValueError, match=f"too large for float16: values of {NATIVE_NORM}"):
        load_tensors(FlorenceModel(CONFIG), named, "a test", torch.float16)


def test_a_refused_checkpoint_leaves_the_model_alone(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors = [
        (LAYOUTS["native"].name_of(name), torch.zeros_like(tensor)) for name, tensor in before.items() if name != NORM
    ]
    with pytest.raises(ValueError, match="checkpoint 'a test' does not fit"):
        load_tensors(model, tensors, source="a test")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# ---- interruptions


def interrupted(*arguments, **options):
    raise KeyboardInterrupt


def half_a_file(tensors, path, **options):
    path.write_bytes(b"half of a file")
    raise KeyboardInterrupt


@pytest.mark.parametrize(("name", "stand_in"), [("save_file", half_a_file), ("config_to_json", interrupted)])
def test_interrupted_saving_leaves_whole_files(model, folder, monkeypatch, name, stand_in):
    torch.manual_seed(1)
    other = FlorenceModel(CONFIG).eval()
    monkeypatch.setattr(saving_module, name, stand_in)
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
    tensors = [
        (LAYOUTS["native"].name_of(name), torch.full_like(tensor, 7)) for name, tensor in model.state_dict().items()
    ]
    load_tensors(model, tensors, source="sevens")
    assert all((parameter == 7).all() for parameter in model.parameters())
