"""Checkpoints whose output layer is, or is not, the table of token embeddings: loaded, asked, trained, saved, the same
in transformers. Each way in which the two part in the wild is a row of `ORIGINS`."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from florence_lite.checkpoint import load_checkpoint, save_checkpoint
from florence_lite.checkpoint.layouts import EMBEDDING, LAYOUTS, OUTPUT, TABLES
from florence_lite.florence import Florence
from florence_lite.model import FlorenceModel
from florence_lite.train.finetuning import finetune
from tests.tiny import noise_image
from tests.train.squares import settings, write_base, write_squares

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")

PROMPT, ANSWER = torch.tensor([[0, 9, 8, 2]]), torch.tensor([[2, 0, 5, 6]])
PIXELS = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(3))
LANGUAGE = "model.language_model"


def logits(model: FlorenceModel) -> torch.Tensor:
    with torch.no_grad():
        states, _ = model.encode(model.encode_image(PIXELS), PROMPT)
        return model.logits(model.decode(ANSWER, model.cross_cache(states)))


def native_class(folder: Path):
    """transformers' model of a native folder, which must have everything that its class wants."""
    native, report = transformers.Florence2ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return native.eval()


def native_logits(native, image_tokens: int) -> torch.Tensor:
    image = PROMPT.new_full((1, image_tokens), native.config.image_token_id)
    inputs = {"input_ids": torch.cat([image, PROMPT], dim=1), "pixel_values": PIXELS, "decoder_input_ids": ANSWER}
    with torch.no_grad():
        return native(**inputs).logits


@pytest.fixture(scope="module")
def tied(toy_tokenizer, tmp_path_factory) -> Path:
    return write_base(toy_tokenizer, "encoder", tmp_path_factory.mktemp("tied"))


def untied(tied: Path, folder: Path) -> Path:
    florence = Florence.from_pretrained(tied)
    florence.model.untie_output()
    with torch.no_grad():
        florence.model.lm_head.weight += 0.1 * torch.randn(florence.model.lm_head.weight.shape)
    florence.save_pretrained(folder)
    return folder


def untied_by_training(tied: Path, folder: Path) -> Path:
    """Microsoft's class never ties: the two equal tensors of a half-precision file, trained apart; config as it was."""
    Florence.from_pretrained(tied).save_pretrained(folder, "original", torch.float16)
    tensors = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    Florence.from_pretrained(folder).save_pretrained(folder / "native")
    native = native_class(folder / "native")
    native.lm_head.weight = torch.nn.Parameter(native.lm_head.weight.detach().clone())
    optimizer = torch.optim.AdamW(native.parameters(), lr=1e-3)
    image = PROMPT.new_full((1, 49), native.config.image_token_id)
    for _ in range(3):
        inputs = {"input_ids": torch.cat([image, PROMPT], dim=1), "pixel_values": PIXELS, "labels": ANSWER}
        native(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trained, layouts = native.state_dict(), LAYOUTS.values()
    with torch.device("meta"):
        names = [*FlorenceModel(load_checkpoint(tied).config).state_dict(), OUTPUT]
    for name in names:
        theirs, original = (layout.name_of(name) for layout in layouts)
        tensor = trained[theirs][: len(tensors[original])] if name in (EMBEDDING, OUTPUT) else trained[theirs]
        tensors[original] = tensor.T.contiguous() if original == "image_projection" else tensor.contiguous()
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    shutil.rmtree(folder / "native")
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is True
    return folder


def adapter(*targets: str, save_embedding_layers: bool | str = False, **fields):
    def write(tied: Path, folder: Path) -> Path:
        torch.manual_seed(0)
        adapted = peft.get_peft_model(native_class(tied), peft.LoraConfig(r=2, target_modules=list(targets), **fields))
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn(parameter.shape)
        adapted.save_pretrained(folder, save_embedding_layers=save_embedding_layers)
        return folder

    return write


# what makes a folder of the tied checkpoint; whether the output layer, and the decoder's table, are then its own
ORIGINS = {
    "tied": (lambda tied, folder: tied, False, False),
    "untied": (untied, True, False),
    "untied by three training steps": (untied_by_training, True, False),
    "adapter with lm_head": (adapter("q_proj", "k_proj", "v_proj", "fc2", "lm_head"), True, False),
    "adapter with lm_head, saved as usual": (adapter("q_proj", "lm_head", save_embedding_layers="auto"), True, False),
    "adapter with lm_head saved whole": (adapter("q_proj", modules_to_save=["lm_head"]), True, False),
    "adapter on the table of answers": (adapter(f"{LANGUAGE}.decoder.embed_tokens"), False, True),
    "adapter on the table of prompts": (adapter(f"{LANGUAGE}.shared"), True, True),
    "adapter on the tables of prompts and answers": (adapter("shared", "decoder.embed_tokens", "fc2"), True, True),
}


@pytest.fixture(scope="module", params=ORIGINS)
def origin(request, tied, tmp_path_factory):
    """(Florence, whether its output layer is its own, whether its decoder's table is)."""
    make, *own = ORIGINS[request.param]
    folder = make(tied, tmp_path_factory.mktemp("origin"))
    return Florence.from_pretrained(folder, adapter=None), *own


def test_it_is_known_what_is_tied(origin, tied):
    florence, output, decoder = origin
    model = florence.model
    assert (model.lm_head is not None, model.decoder.embed_tokens is not None) == (output, decoder)
    assert (model.config.tie_word_embeddings, model.config.tie_decoder_embeddings) == (not output, not decoder)
    table = model.embed_tokens.weight.numel()
    expected = sum(p.numel() for p in load_checkpoint(tied).parameters()) + (output + decoder) * table
    assert sum(p.numel() for p in model.parameters()) == expected
    assert len({p.data_ptr() for p in model.parameters()}) == len(list(model.parameters()))


def test_it_answers(origin):
    florence, *_ = origin
    result = florence.run(noise_image(0), "<OD>", max_new_tokens=8)
    assert result.token_ids and result.token_logprobs


@pytest.mark.parametrize("layout", LAYOUTS)
def test_saved_trained_and_saved_again(origin, layout, tmp_path):
    florence, output, decoder = origin
    if layout == "original" and decoder:
        with pytest.raises(ValueError, match="a table of tokens of its own.*save in the native layout"):
            florence.save_pretrained(tmp_path / "saved", layout)
        return
    florence.save_pretrained(tmp_path / "saved", layout)
    loaded = Florence.from_pretrained(tmp_path / "saved")
    rows = florence.tokenizer.vocabulary.size  # native files have more, which mean nothing
    assert torch.equal(logits(loaded.model)[..., :rows], logits(florence.model)[..., :rows])
    assert (loaded.model.config.tie_word_embeddings, loaded.model.config.tie_decoder_embeddings) == (
        not output,
        not decoder,
    )

    trained = finetune(
        settings(tmp_path / "saved", write_squares(tmp_path / "data"), tmp_path / "run", steps=1, precision="fp32")
    )
    again = Florence.from_pretrained(trained)
    before, after = loaded.model.state_dict(), again.model.state_dict()
    assert before.keys() == after.keys()
    tables = [name for name in before if name in TABLES]
    assert len(tables) == 1 + output + decoder
    for name in tables:
        count = min(len(before[name]), len(after[name]))
        assert not torch.equal(before[name][:count], after[name][:count])

    again.save_pretrained(tmp_path / "again", layout)
    assert torch.equal(
        logits(Florence.from_pretrained(tmp_path / "again").model)[..., :rows], logits(again.model)[..., :rows]
    )


def test_transformers_class_computes_the_same(origin, tmp_path):
    florence, output, decoder = origin
    florence.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["tie_word_embeddings"] is not output
    assert config["text_config"]["tie_word_embeddings"] is not decoder
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) is output
    native = native_class(tmp_path)
    assert (native.lm_head.weight.data_ptr() == native.model.language_model.shared.weight.data_ptr()) is not output
    rows = florence.tokenizer.vocabulary.size
    expected = native_logits(native, florence.model.config.image_tokens)[..., :rows]
    assert (logits(florence.model)[..., :rows] - expected).abs().max() <= 1e-5


def test_the_output_layer_is_asked_and_not_the_table(tied, tmp_path):
    """What the network computes with a layer of its own is what transformers' class computes with that file."""
    florence = Florence.from_pretrained(untied(tied, tmp_path / "untied"))
    difference = (logits(florence.model) - logits(load_checkpoint(tied))).abs().max()
    assert difference > 1e-2


def test_a_native_file_that_says_untied_and_lacks_the_layer(tied, tmp_path):
    shutil.copytree(tied, tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(ValueError, match=r"\(1 problems\):\n  missing: lm_head.weight"):
        load_checkpoint(tmp_path / "copy")


def test_microsofts_class_gets_every_tensor_that_it_has(tied, tmp_path):
    """Keys and shapes of the original layout against the published ones, written down apart from the package."""
    model = load_checkpoint(tied)
    save_checkpoint(model, tmp_path, layout="original")
    config, text = model.config, model.config.text
    D, F, V = text.d_model, text.ffn_dim, text.vocab_size
    expected = {
        "image_projection": (config.vision.dims[-1], D),
        "image_proj_norm.weight": (D,),
        "image_proj_norm.bias": (D,),
        "image_pos_embed.column_embeddings.weight": (50, config.vision.dims[-1] // 2),
        "image_pos_embed.row_embeddings.weight": (50, config.vision.dims[-1] // 2),
        "visual_temporal_embed.pos_idx_to_embed": (100, config.vision.dims[-1]),
        "language_model.final_logits_bias": (1, V),
        "language_model.lm_head.weight": (V, D),
        "language_model.model.shared.weight": (V, D),
    }

    def layer(name: str, *shape: int) -> None:
        expected[f"{name}.weight"], expected[f"{name}.bias"] = shape, shape[:1]

    inputs = (3, *config.vision.dims)
    for stage, dim in enumerate(config.vision.dims):
        patch, convs = config.vision.patch_sizes[stage], f"vision_tower.convs.{stage}"
        layer(f"{convs}.proj", dim, inputs[stage], patch, patch)
        layer(f"{convs}.norm", inputs[stage] if config.vision.prenorm[stage] else dim)
        for block in range(config.vision.depths[stage]):
            for kind, attention in (("spatial_block", "window_attn"), ("channel_block", "channel_attn")):
                name = f"vision_tower.blocks.{stage}.{block}.{kind}"
                layer(f"{name}.conv1.fn.dw", dim, 1, 3, 3)
                layer(f"{name}.{attention}.norm", dim)
                layer(f"{name}.{attention}.fn.qkv", 3 * dim, dim)
                layer(f"{name}.{attention}.fn.proj", dim, dim)
                layer(f"{name}.conv2.fn.dw", dim, 1, 3, 3)
                layer(f"{name}.ffn.norm", dim)
                layer(f"{name}.ffn.fn.net.fc1", 4 * dim, dim)
                layer(f"{name}.ffn.fn.net.fc2", dim, 4 * dim)
    for side, count in (("encoder", text.encoder_layers), ("decoder", text.decoder_layers)):
        expected[f"language_model.model.{side}.embed_positions.weight"] = (text.positions + 2, D)
        layer(f"language_model.model.{side}.layernorm_embedding", D)
        for number in range(count):
            name = f"language_model.model.{side}.layers.{number}"
            for attention in ("self_attn", "encoder_attn")[: 2 if side == "decoder" else 1]:
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    layer(f"{name}.{attention}.{part}", D, D)
                layer(f"{name}.{attention}_layer_norm", D)
            layer(f"{name}.fc1", F, D)
            layer(f"{name}.fc2", D, F)
            layer(f"{name}.final_layer_norm", D)
    saved = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    assert saved == expected


def test_explicitly_untied_and_equal_tables_stay_apart(tied, tmp_path):
    florence = Florence.from_pretrained(tied)
    florence.model.untie_output()
    florence.save_pretrained(tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert torch.equal(loaded.lm_head.weight, loaded.embed_tokens.weight)
    assert loaded.lm_head.weight.data_ptr() != loaded.embed_tokens.weight.data_ptr()
