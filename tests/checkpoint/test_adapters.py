"""LoRA adapters of peft: applied, they compute what they computed where they were trained; broken ones are named."""

import copy
import dataclasses
import json
import re
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from florence_lite.checkpoint import adapter_base, adapter_config, load_adapter
from florence_lite.checkpoint.adapter_config import AdapterBase
from florence_lite.model import FlorenceModel
from tests.model.native import TINY, native_inputs, native_pair

peft = pytest.importorskip("peft")

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PROMPT, ANSWER = torch.tensor([[0, 9, 8, 2]]), torch.tensor([[2, 0, 5, 6]])
PIXELS = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(3))
Q_PROJ = "model.language_model.encoder.layers.0.self_attn.q_proj"  # by native names
OUR_Q_PROJ = "encoder.layers.0.attention.q_proj"


def logits(model: FlorenceModel) -> torch.Tensor:
    dtype = model.projector.norm.weight.dtype
    with torch.no_grad():
        states, _ = model.encode(model.encode_image(PIXELS.to(dtype)), PROMPT)
        return model.logits(model.decode(ANSWER, model.cross_cache(states))).float()


def native_logits(native) -> torch.Tensor:
    with torch.no_grad():
        return native(input_ids=native_inputs(TINY, PROMPT), pixel_values=PIXELS, decoder_input_ids=ANSWER).logits


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one - other).abs().max().item()


@pytest.fixture(scope="module")
def pair():
    return native_pair(seed=4)


@pytest.fixture
def base(pair):
    return copy.deepcopy(pair[0])


def trained(model, folder, **fields):
    """A peft model over a copy of `model`, each trainable tensor moved at random, and its adapter in `folder`."""
    torch.manual_seed(0)  # also for the start of lora_A
    adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**fields)).eval()
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return adapted


@pytest.fixture
def folder(pair, tmp_path):
    """An adapter of transformers' native class with two kinds of modules, in a folder of its own."""
    folder = tmp_path / "adapter"
    trained(pair[1], folder, r=2, target_modules=["q_proj", "qkv"], modules_to_save=["image_proj_norm"])
    return folder


def edit_config(folder, **changes):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


def edit_tensors(folder, change):
    """`change` edits the dictionary of tensors, or returns a new one."""
    tensors = load_file(folder / WEIGHTS)
    changed = change(tensors)
    tensors = changed if isinstance(changed, dict) else tensors
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)


# ---- adapters of transformers' native class

ADAPTERS = {
    "suffixes": {"r": 4, "target_modules": ["q_proj", "v_proj"]},
    "pattern": {"r": 2, "target_modules": r".*decoder.*\.(k_proj|out_proj|fc2)"},
    "all-linear": {"r": 2, "lora_alpha": 3, "target_modules": "all-linear"},
    "vision": {"r": 2, "target_modules": ["qkv", "proj", "ffn.fc1", "ffn.fc2"], "lora_dropout": 0.5},
    "convolutions": {"r": 3, "target_modules": ["conv"]},
    "rsLoRA": {"r": 4, "use_rslora": True, "target_modules": ["q_proj", "qkv"]},
    "DoRA": {"r": 2, "use_dora": True, "target_modules": ["fc1", "conv"]},
    "patterns of ranks and alphas": {
        "r": 4,
        "target_modules": ["q_proj", "k_proj", "fc1", "fc2"],
        "rank_pattern": {r"layers\.1\.self_attn\.q_proj": 2, "fc1": 3},
        "alpha_pattern": {"k_proj": 32, r"decoder\.layers\.[01]\.fc2": 1},
    },
    "all biases": {"r": 2, "bias": "all", "target_modules": ["v_proj"]},
    "biases of the adapted": {"r": 2, "bias": "lora_only", "target_modules": ["v_proj", "conv"]},
    "biases within": {"r": 2, "lora_bias": True, "target_modules": ["v_proj"]},
    "modules saved whole": {
        "r": 2,
        "target_modules": ["v_proj"],
        "modules_to_save": ["image_proj_norm", "norm1", "embed_positions", "row_embeddings", "convs.1"],
    },
    "PiSSA": {"r": 2, "init_lora_weights": "pissa", "target_modules": ["q_proj"]},
    "OLoRA": {"r": 2, "init_lora_weights": "olora", "target_modules": ["q_proj"]},
    "another start": {"r": 2, "init_lora_weights": "gaussian", "target_modules": ["q_proj"]},
}


@pytest.mark.parametrize("fields", ADAPTERS.values(), ids=ADAPTERS)
def test_native_adapters(pair, base, tmp_path, fields):
    before = logits(base)
    expected = native_logits(trained(pair[1], tmp_path, **fields))
    assert distance(expected, before) > 1e-2
    assert distance(logits(load_adapter(base, tmp_path)), expected) <= 1e-5
    assert torch.equal(logits(base), before)


# The published table, written from native to original names and apart from how the package writes it down.
NATIVE_TO_ORIGINAL = [
    (r"^model\.vision_tower\.convs\.(\d)\.conv\b", r"vision_tower.convs.\1.proj"),
    (r"^model\.vision_tower\.", "vision_tower."),
    (r"\.conv([12])\.", r".conv\1.fn.dw."),
    (r"\.spatial_block\.norm1\.", ".spatial_block.window_attn.norm."),
    (r"\.channel_block\.norm1\.", ".channel_block.channel_attn.norm."),
    (r"_block\.norm2\.", "_block.ffn.norm."),
    (r"_attn\.(qkv|proj)\.", r"_attn.fn.\1."),
    (r"\.ffn\.fc([12])\.", r".ffn.fn.net.fc\1."),
    (r"^model\.multi_modal_projector\.image_proj_norm", "image_proj_norm"),
    (r"^model\.multi_modal_projector\.image_position_embed", "image_pos_embed"),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head", "language_model.lm_head"),
]


def to_original(name: str) -> str:
    name = name.removeprefix("base_model.model.")
    for pattern, replacement in NATIVE_TO_ORIGINAL:
        name = re.sub(pattern, replacement, name)
    return "base_model.model." + name


def test_original_names(pair, base, tmp_path):
    adapted = trained(
        pair[1],
        tmp_path,
        r=2,
        target_modules=["qkv", "proj", "fc1", "fc2", "conv", "q_proj", "out_proj"],
        modules_to_save=["image_proj_norm", "norm1", "norm2", "conv1", "embed_positions", "column_embeddings"],
        rank_pattern={"q_proj": 3},
        alpha_pattern={r"layers\.1\.encoder_attn\.out_proj": 24},
    )
    edit_tensors(tmp_path, lambda tensors: {to_original(name): tensor for name, tensor in tensors.items()})
    names = " ".join(load_file(tmp_path / WEIGHTS))
    assert all(
        part in names for part in ("convs.0.proj.", ".fn.dw.", "_attn.fn.qkv.", ".ffn.fn.net.fc1.", ".ffn.norm.")
    )
    assert distance(logits(load_adapter(base, tmp_path)), native_logits(adapted)) <= 1e-5


def test_matrices_that_lie_the_other_way_round(pair, base, tmp_path):
    adapted = trained(pair[1], tmp_path, r=2, target_modules=["q_proj"], modules_to_save=["multi_modal_projector"])

    def rename(tensors):
        tensors = {name.replace("model.multi_modal_projector.", ""): tensor for name, tensor in tensors.items()}
        tensors = {to_original(name.replace("image_position", "image_pos")): t for name, t in tensors.items()}
        tensors["base_model.model.image_projection"] = tensors.pop("base_model.model.image_projection.weight").T
        return tensors

    edit_tensors(tmp_path, rename)
    assert distance(logits(load_adapter(base, tmp_path)), native_logits(adapted)) <= 1e-5


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: re.sub(r"(lora_[AB])\.weight", r"\1.some-name.weight", name),
        lambda name: re.sub(r"magnitude_vector$", "magnitude_vector.default.weight", name),
        lambda name: name.replace("image_proj_norm", "image_proj_norm.modules_to_save.default"),
        lambda name: name.replace("base_model.model.", ""),
        lambda name: name.replace("base_model.model.", "module.base_model.model._orig_mod."),
    ],
    ids=["adapter's name", "DoRA in memory", "saved modules in memory", "no prefix", "wrapped"],
)
def test_other_spellings_of_names(pair, base, tmp_path, rename):
    adapted = trained(
        pair[1], tmp_path, r=2, use_dora=True, target_modules=["q_proj"], modules_to_save=["image_proj_norm"]
    )
    edit_tensors(tmp_path, lambda tensors: {rename(name): tensor for name, tensor in tensors.items()})
    assert distance(logits(load_adapter(base, tmp_path)), native_logits(adapted)) <= 1e-5


def test_weights_in_a_bin_file(pair, base, tmp_path):
    adapted = trained(pair[1], tmp_path, r=2, target_modules=["q_proj"])
    torch.save(load_file(tmp_path / WEIGHTS), tmp_path / "adapter_model.bin")
    (tmp_path / WEIGHTS).unlink()
    assert distance(logits(load_adapter(base, tmp_path)), native_logits(adapted)) <= 1e-5


def test_tables_of_positions(pair, base, tmp_path):
    adapted = trained(pair[1], tmp_path, r=2, target_modules=["row_embeddings"])
    assert distance(native_logits(adapted), logits(base)) > 1e-3
    assert distance(logits(load_adapter(base, tmp_path)), native_logits(adapted)) <= 1e-5


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer")
def test_depthwise_convolutions_are_refused(pair, base, tmp_path):
    trained(pair[1], tmp_path, r=64, target_modules=["conv1"])  # peft wants a multiple of the channels
    with pytest.raises(ValueError, match=r"not to be merged: .*conv1 is a depthwise .* without this layer"):
        load_adapter(base, tmp_path)


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
def test_a_bias_where_the_base_has_none_is_refused(pair, base, tmp_path):
    trained(pair[1], tmp_path, r=2, lora_bias=True, target_modules=["image_projection"])
    with pytest.raises(ValueError, match=r"not to be merged: .*image_projection has no bias .* without this layer"):
        load_adapter(base, tmp_path)


# ---- adapters of our network


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": ["q_proj", "qkv", "projection", "embed.conv"], "modules_to_save": ["norm2"]},
        {"target_modules": ["fc1"], "use_dora": True, "modules_to_save": ["positions"]},
        {"target_modules": ["embed_tokens", "fc1"]},  # the table as prompts and answers read it, not as output layer
        {"target_modules": ["fc1"], "modules_to_save": ["embed_tokens"]},  # in all its uses
    ],
)
def test_adapters_of_our_network(base, tmp_path, fields):
    adapted = trained(base, tmp_path, r=2, **fields)
    expected = logits(adapted.base_model.model)
    assert distance(expected, logits(base)) > 1e-2
    assert distance(logits(load_adapter(base, tmp_path)), expected) <= 1e-5


# ---- what is returned


def test_merged_is_a_plain_network(base, folder):
    base.encoder.requires_grad_(False)
    base.train()
    merged = load_adapter(base, folder)
    assert type(merged) is FlorenceModel and merged.config == base.config and merged is not base
    assert [type(module) for module in merged.modules()] == [type(module) for module in base.modules()]
    assert not hasattr(merged, "peft_config")
    assert [(name, p.requires_grad) for name, p in merged.named_parameters()] == [
        (name, p.requires_grad) for name, p in base.named_parameters()
    ]
    assert merged.training
    shared = merged.decoder.norm.weight, base.decoder.norm.weight
    assert shared[0] is not shared[1] and shared[0].data_ptr() == shared[1].data_ptr()
    assert distance(logits(load_adapter(merged, folder).eval()), logits(merged.eval())) > 1e-2  # may be added twice


def test_an_adapter_that_is_not_merged_yet(base, tmp_path, folder):
    kept = trained(base, tmp_path, r=2, target_modules=["q_proj"]).base_model.model
    with pytest.raises(ValueError, match="already carries an adapter; load the base again"):
        load_adapter(kept, folder)
    assert not any(hasattr(part, "lora_A") for part in base.modules())


def test_half_precision(base, folder):
    expected = load_adapter(base, folder).state_dict()
    half = base.to(torch.bfloat16)
    model = load_adapter(half, folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert logits(model).isfinite().all()
    # The base was rounded, and the sum, but not what is added.
    half, merged, name = half.state_dict(), model.state_dict(), f"{OUR_Q_PROJ}.weight"
    tensors = load_file(folder / WEIGHTS)
    a, b = (tensors[f"base_model.model.{Q_PROJ}.lora_{half_}.weight"] for half_ in "AB")
    assert torch.equal(merged[name], (half[name].float() + 8 / 2 * b @ a).bfloat16())
    assert all(distance(merged[n].float(), t.float()) <= 0.02 * (1 + t.abs().max()) for n, t in expected.items())


# ---- the table of token embeddings

LANGUAGE = "model.language_model"
TABLE_USES = {"prompts": f"{LANGUAGE}.shared", "answers": f"{LANGUAGE}.decoder.embed_tokens", "output": "lm_head"}
UNREAD = f"{LANGUAGE}.encoder.embed_tokens"  # a fourth name of it, of a table that neither class reads


def tables(model: FlorenceModel) -> dict[str, torch.Tensor]:
    """The table of each use."""
    answers, output = model.decoder.embed_tokens or model.embed_tokens, model.lm_head or model.embed_tokens
    return {"prompts": model.embed_tokens.weight, "answers": answers.weight, "output": output.weight}


@pytest.mark.parametrize(
    "names",
    [["prompts"], ["answers"], ["output"], ["prompts", "answers"], ["answers", "output"], ["prompts", "output"]],
    ids="+".join,
)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_lora_on_some_uses_of_the_table(pair, base, tmp_path, names):
    adapted = trained(pair[1], tmp_path, r=2, target_modules=[*(TABLE_USES[name] for name in names), "q_proj"])
    model = load_adapter(base, tmp_path)
    assert distance(native_logits(adapted), logits(base)) > 1e-2
    assert distance(logits(model), native_logits(adapted)) <= 1e-5
    for use, table in tables(model).items():
        assert torch.equal(table, base.embed_tokens.weight) is (use not in names)
    assert model.config.tie_word_embeddings is (names == ["answers"])
    assert model.config.tie_decoder_embeddings is (names == ["output"])
    assert base.config == TINY and base.lm_head is base.decoder.embed_tokens is None


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_the_popular_list_of_targets(pair, base, tmp_path):
    targets = ["q_proj", "o_proj", "k_proj", "v_proj", "linear", "Conv2d", "lm_head", "fc2"]
    adapted = trained(pair[1], tmp_path, r=8, lora_alpha=8, use_rslora=True, target_modules=targets)
    edit_tensors(tmp_path, lambda tensors: {to_original(name): tensor for name, tensor in tensors.items()})
    edit_config(tmp_path, base_model_name_or_path="microsoft/Florence-2-base-ft")
    assert distance(logits(load_adapter(base, tmp_path)), native_logits(adapted)) <= 1e-5


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_ranks_of_two_tables(pair, base, tmp_path):
    targets = [TABLE_USES["prompts"], TABLE_USES["answers"]]
    adapted = trained(pair[1], tmp_path, r=4, target_modules=targets, rank_pattern={"shared": 2})
    assert distance(logits(load_adapter(base, tmp_path)), native_logits(adapted)) <= 1e-5


def replace_tables(folder, pair, names, change=0.0):
    """An adapter that was to replace these tables whole."""
    edit_tensors(folder, lambda tensors: with_tables(tensors, pair, names, change))
    edit_config(folder, modules_to_save=["image_proj_norm", *names])


def with_tables(tensors, pair, names, change=0.0):
    table = pair[0].embed_tokens.weight.detach() + change
    return tensors | {f"base_model.model.{name}.weight": table.clone() for name in names}


@pytest.mark.parametrize("more", [[], [UNREAD]])
def test_a_table_replaced_in_all_its_uses(pair, base, folder, more):
    expected = copy.deepcopy(load_adapter(base, folder))
    with torch.no_grad():
        expected.embed_tokens.weight += torch.linspace(0, 1, 32)
    replace_tables(folder, pair, [*TABLE_USES.values(), *more], torch.linspace(0, 1, 32))
    model = load_adapter(base, folder)
    assert torch.equal(model.embed_tokens.weight, expected.embed_tokens.weight)
    assert model.config == base.config and model.lm_head is model.decoder.embed_tokens is None
    assert distance(logits(model), logits(expected)) <= 1e-5
    assert distance(logits(model), logits(base)) > 1e-2


def test_an_unchanged_table_stays_tied(pair, base, folder):
    expected = logits(load_adapter(base, folder))
    edit_tensors(folder, lambda tensors: with_tables(tensors, pair, ["lm_head"]))
    model = load_adapter(base, folder)
    assert distance(logits(model), expected) == 0
    assert model.config == base.config and model.lm_head is None


def test_a_base_that_is_untied_stays_so(base, folder):
    base.untie_output()
    base.untie_decoder()
    assert load_adapter(base, folder).config == base.config


@pytest.mark.parametrize("names", [["prompts"], ["output"], ["answers", "output"]], ids="+".join)
def test_a_table_replaced_in_some_of_its_uses(pair, base, folder, names):
    replace_tables(folder, pair, [TABLE_USES[name] for name in names], 0.25)
    changed = {use: table - base.embed_tokens.weight for use, table in tables(load_adapter(base, folder)).items()}
    for use, change in changed.items():
        assert torch.allclose(change, torch.full_like(change, 0.25 if use in names else 0.0))


def test_tables_that_were_not_trained_stay_those_of_the_base(pair, base, folder):
    """peft writes them into adapters with `lm_head`, and where it is asked to save embedding layers."""
    expected = logits(load_adapter(base, folder))
    names = [*TABLE_USES.values(), "lm_head.base_layer", UNREAD]
    edit_tensors(folder, lambda tensors: with_tables(tensors, pair, names))
    model = load_adapter(base, folder)
    assert torch.equal(logits(model), expected) and model.config == base.config
    edit_tensors(folder, lambda tensors: with_tables(tensors, pair, ["lm_head.base_layer"], 0.25))
    with pytest.raises(ValueError, match=r"another base: .*lm_head.base_layer.weight was not trained and differs from"):
        load_adapter(base, folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_table_of_the_base_may_have_been_rounded(pair, base, folder, dtype):
    """To the type that the training ran in, whatever it is stored as."""
    expected = logits(load_adapter(base, folder))
    edit_tensors(
        folder, lambda t: {n: v.to(dtype).float() if "lm_head" in n else v for n, v in with_lm_head(t, pair).items()}
    )
    assert torch.equal(logits(load_adapter(base, folder)), expected)


def with_lm_head(tensors, pair):
    return with_tables(tensors, pair, ["lm_head.base_layer"])


@pytest.mark.parametrize("kind", ["untrained", "replaced", "lora"])
def test_rows_that_saving_added_to_the_base_need_not_be_in_the_adapter(pair, base, folder, kind):
    """A base of 51,328 rows, and an adapter that was trained on its 51,289."""
    rows, dim = base.embed_tokens.weight.shape
    if kind == "lora":
        lora = {
            f"base_model.model.lm_head.lora_{half}.weight": torch.ones(*shape)
            for half, shape in {"A": (2, dim), "B": (rows, 2)}.items()
        }
        edit_tensors(folder, lambda tensors: tensors | lora)
    elif kind == "replaced":
        replace_tables(folder, pair, ["lm_head"], 0.25)
    else:
        edit_tensors(folder, lambda tensors: with_lm_head(tensors, pair))
    expected = load_adapter(base, folder)
    longer = FlorenceModel(
        dataclasses.replace(base.config, text=dataclasses.replace(base.config.text, vocab_size=rows + 39))
    )
    longer.load_state_dict(
        {
            name: torch.cat([tensor, torch.zeros(39, dim)]) if name == "embed_tokens.weight" else tensor
            for name, tensor in base.state_dict().items()
        }
    )
    model = load_adapter(longer.eval(), folder)
    for use, table in tables(model).items():
        assert torch.equal(table[:rows], tables(expected)[use]) and not table[rows:].any()


# ---- broken adapters

A, B = (f"base_model.model.{Q_PROJ}.lora_{half}.weight" for half in "AB")


def rewrite(change):
    return lambda folder: edit_tensors(folder, change)


def reconfigure(**changes):
    return lambda folder: edit_config(folder, **changes)


def move(old: str, new: str):
    """Rename tensors whose names contain `old`."""
    return rewrite(lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()})


def write(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


BROKEN = {
    "half missing": (rewrite(lambda t: t.pop(B)), rf"missing: lora_B of {Q_PROJ}"),
    "wrong shape": (
        rewrite(lambda t: t.update({A: t[A][:, :-1]})),
        rf"shape of {A}: \[2, 31\], base and adapter_config.json say \[2, 32\]",
    ),
    "a rank that the config lacks": (
        rewrite(lambda t: t.update({A: t[A][:1], B: t[B][:, :1]})),
        rf"shape of {A}: \[1, 32\], adapter_config.json says rank 2",
    ),
    "another rank in the config": (reconfigure(r=4), r"shape of .*\[2, 32\], adapter_config.json says rank 4"),
    "not finite": (rewrite(lambda t: t[B].fill_(float("nan"))), f"not finite: values of {B}"),
    "no tensors": (rewrite(lambda t: {"a.b": torch.ones(1)}), r"\(1 problems\):\n  unknown: a.b"),
    "quantised": (
        rewrite(lambda t: t.update({A: t[A].to(torch.int8)})),
        f"type of {A}: int8, perhaps a quantised",
    ),
    "of eight bits": (
        rewrite(lambda t: t.update({A: t[A].to(torch.float8_e4m3fn)})),
        f"type of {A}: float8_e4m3fn, perhaps a quantised weight",
    ),
    "no LoRA": (
        rewrite(lambda t: {name: tensor for name, tensor in t.items() if "lora_" not in name}),
        "empty: the file holds no LoRA tensors",
    ),
    "unknown module": (move("encoder.layers.0", "encoder.layers.7"), r"unknown: .*encoder\.layers\.7\.self_attn"),
    "more layers than the base": (move("decoder.layers.1", "decoder.layers.2"), r"unknown: .*decoder\.layers\.2"),
    "two layouts": (
        rewrite(lambda t: {(to_original(n) if "encoder" in n else n): v for n, v in t.items()}),
        "two layouts in one: .* is (native|original), .* is (native|original)",
    ),
    "a norm adapted": (move("self_attn.q_proj", "self_attn_layer_norm"), "refused by peft: .*LayerNorm"),
    "the original's bare matrix": (
        rewrite(
            lambda t: (
                {to_original(n): v for n, v in t.items()}
                | {"base_model.model.image_projection.lora_A.weight": torch.ones(2, 32)}
            )
        ),
        "unknown: .*image_projection.lora_A.weight .a bare matrix in Microsoft's class",
    ),
    "one place twice": (
        rewrite(lambda t: t | {A.replace(".weight", ".other.weight"): t[A].clone()}),
        "twice: .* belong in the same place",
    ),
    "magnitudes without DoRA": (
        rewrite(lambda t: t | {A.replace("lora_A.weight", "lora_magnitude_vector"): torch.ones(32)}),
        "unexpected: .*lora_magnitude_vector, which adapter_config.json does not ask for",
    ),
    "DoRA without magnitudes": (reconfigure(use_dora=True), f"missing: lora_magnitude_vector of {Q_PROJ}"),
    "part of a saved module": (
        rewrite(lambda t: t.pop(next(n for n in t if n.endswith("image_proj_norm.weight")))),
        "incomplete: .*image_proj_norm.bias without the rest of its module",
    ),
    "another kind of adapter": (reconfigure(peft_type="IA3"), "peft_type is 'IA3'; only 'LORA'"),
    "a variant that is not applied": (
        reconfigure(target_parameters=["image_projection"]),
        r"target_parameters = \['image_projection'\] is not supported",
    ),
    "a base that was changed by chance": (
        reconfigure(init_lora_weights="pissa_niter_4"),
        "init_lora_weights = 'pissa_niter_4' changed the base .*path_initial_model_for_weight_conversion",
    ),
    "no rank": (reconfigure(r=None), "r is None; it must be a positive whole number"),
    "rank zero": (reconfigure(r=0), "r is 0"),
    "alpha in words": (reconfigure(lora_alpha="high"), "lora_alpha is 'high'; it must be a number"),
    "ranks of no number": (reconfigure(rank_pattern={"q_proj": 2.5}), "rank_pattern is {'q_proj': 2.5}"),
    "broken pattern": (reconfigure(alpha_pattern={"(": 2}), "alpha_pattern has '\\(', which is no name or pattern"),
    "a rank beyond memory": (reconfigure(r=10**12), r"\[2, 32\], adapter_config.json says rank 1000000000000"),
    "many patterns": (reconfigure(rank_pattern={f"fc{n}": 2 for n in range(1000)}), "rank_pattern has 1,000 entries"),
    **{
        f"a pattern that explodes: {pattern[:20]}": (
            reconfigure(**{field: {pattern: 2}}),
            f"{field} has .*, which is no name or pattern of the kinds",
        )
        for field in ("rank_pattern", "alpha_pattern")
        for pattern in (
            *("(a+)+$", "(.*)*x", "(.|_)*x", "(?:a|aa)+$", "(a*){9}", r"(\\w+\\.?)+x", "((a))", ".*.*.*x"),
            *(r"(a)\\1", "(?=a)", "(?s:a)", "a{1,9999}", "a" * 300, "[", "[z-a]", "", "a++", "*a"),
        )
    },
    "unknown biases": (reconfigure(bias="some"), "refused by peft: .*bias"),
    "config cut short": (write(CONFIG, b'{"peft_type": "LO'), "is no JSON file"),
    "config of something else": (write(CONFIG, b"[1]"), "is no configuration of peft"),
    "weights cut short": (write(WEIGHTS, b"\x10\x00"), "damaged or cut short"),
}


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("q_proj", True),
        ("self_attn.q_proj", True),
        (r"layers\.\d\.self_attn\.q_proj", True),
        (r".*encoder.*\.(k_proj|q_proj)", True),
        (r"encoder\.layers\.[01]\.self_attn\.q_proj$", True),
        ("fc1|q_proj", True),
        ("^model.language_model.encoder.layers.0.self_attn.q_proj$", True),
        ("proj", False),
        ("^q_proj", False),
        ("self_attn", False),
        (".*.*x", False),
    ],
)
def test_patterns_mean_what_peft_means(pattern, fits):
    assert adapter_config._PATTERN.fullmatch(pattern)
    assert adapter_config.fits(pattern, Q_PROJ) == fits == bool(re.match(rf"(.*\.)?({pattern})$", Q_PROJ))


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_adapters(base, folder, damage, message):
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    damage(folder)
    with pytest.raises(ValueError, match=message) as caught:
        load_adapter(base, folder)
    assert str(folder) in str(caught.value)
    after = base.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert not hasattr(base, "peft_config") and all(parameter.requires_grad for parameter in base.parameters())


def test_all_problems_are_listed_with_the_base(base, folder):
    def damage(tensors):
        tensors[A] *= float("inf")
        tensors["base_model.model.extra.lora_A.weight"] = tensors[A].clone()
        del tensors[B]

    edit_tensors(folder, damage)
    edit_config(folder, base_model_name_or_path="org/base")
    with pytest.raises(ValueError, match="trained on 'org/base', does not fit the model .3 problems.") as caught:
        load_adapter(base, folder)
    assert all(f"\n  {kind}: " in str(caught.value) for kind in ("unknown", "missing", "not finite"))


def test_a_base_of_another_size(folder):
    wide = dataclasses.replace(TINY, text=dataclasses.replace(TINY.text, d_model=64, ffn_dim=64))
    with pytest.raises(ValueError, match=r"shape of .*lora_A.*: \[2, 32\], .* say \[2, 64\]"):
        load_adapter(FlorenceModel(wide), folder)


def test_values_too_large_for_the_base(base, folder):
    edit_tensors(folder, lambda tensors: tensors[B].fill_(1e6))
    half = base.half()
    with pytest.raises(ValueError, match=f"too large once merged: {OUR_Q_PROJ}.weight"):
        load_adapter(half, folder)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_missing_files(base, folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_adapter(base, folder)


def test_without_peft(base, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'florence-lite\[train\]'"):
        load_adapter(base, folder)


# ---- the base


@pytest.mark.parametrize(
    ("changes", "base"),
    [
        ({"base_model_name_or_path": "org/base"}, AdapterBase("org/base", None)),
        ({"base_model_name_or_path": "org/base", "revision": "abc"}, AdapterBase("org/base", "abc")),
        ({"base_model_name_or_path": "org/base", "revision": ""}, AdapterBase("org/base", None)),
        ({"base_model_name_or_path": None}, None),
        ({"base_model_name_or_path": ""}, None),
    ],
)
def test_base_of_an_adapter(folder, changes, base):
    edit_config(folder, **changes)
    assert adapter_base(folder) == base


def test_no_base_without_an_adapter(tmp_path):
    with pytest.raises(FileNotFoundError, match=CONFIG):
        adapter_base(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (reconfigure(base_model_name_or_path=["a"]), r"base_model_name_or_path is \['a'\]; it must be a text or null"),
        (reconfigure(revision=3), "revision is 3"),
        (reconfigure(peft_type=None), "names no peft_type"),
        (write(CONFIG, b"\xff\xfe"), "is no UTF-8 text"),
    ],
)
def test_base_of_a_damaged_config(folder, damage, message):
    damage(folder)
    with pytest.raises(ValueError, match=message):
        adapter_base(folder)
