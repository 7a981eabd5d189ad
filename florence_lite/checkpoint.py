"""Checkpoint folders in the layout of transformers' native Florence-2: `config.json`, `model.safetensors`.

What the layout has no field for (coordinate bins, side of the prompt, image size) stands in `config.json` under
"florence_lite". Loading is strict: a tensor too many, too few or of another shape is an error that lists it.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from florence_lite.model import FlorenceConfig, FlorenceModel

# Our names → native names, applied in order.
RENAMES = [
    (r"^vision\.stages\.(\d+)\.embed\.", r"model.vision_tower.convs.\1."),
    (r"^vision\.stages\.(\d+)\.blocks\.", r"model.vision_tower.blocks.\1."),
    (r"\.spatial\.attention\.", ".spatial_block.window_attn."),
    (r"\.channel\.attention\.", ".channel_block.channel_attn."),
    (r"\.(spatial|channel)\.", r".\1_block."),
    (r"_block\.mlp\.", "_block.ffn."),
    (r"^projector\.projection", "model.multi_modal_projector.image_projection"),
    (r"^projector\.norm", "model.multi_modal_projector.image_proj_norm"),
    (r"^projector\.", "model.multi_modal_projector.image_position_embed."),
    (r"^embed_tokens", "model.language_model.shared"),
    (r"^(encoder|decoder)\.positions", r"model.language_model.\1.embed_positions"),
    (r"^(encoder|decoder)\.norm", r"model.language_model.\1.layernorm_embedding"),
    (r"^(encoder|decoder)\.layers", r"model.language_model.\1.layers"),
    (r"\.cross_attention_norm", ".encoder_attn_layer_norm"),
    (r"\.cross_attention", ".encoder_attn"),
    (r"\.attention_norm", ".self_attn_layer_norm"),
    (r"\.attention", ".self_attn"),
    (r"\.ffn_norm", ".final_layer_norm"),
    (r"(layers\.\d+)\.ffn\.", r"\1."),
]
EMBEDDING = "model.language_model.shared.weight"
TIED = (
    "lm_head.weight",
    "model.language_model.encoder.embed_tokens.weight",
    "model.language_model.decoder.embed_tokens.weight",
)
FRAME_POSITIONS = "model.multi_modal_projector.visual_temporal_embed.pos_idx_to_embed"  # constant, computed here


def native_name(name: str) -> str:
    """The native layout's name of one of our parameters."""
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def save_checkpoint(model: FlorenceModel, folder: str | os.PathLike, dtype: torch.dtype | None = None) -> None:
    """Write `config.json` and `model.safetensors` into `folder` (made if absent), tensors as `dtype` if given.

    Each file replaces its predecessor at once, so that an interrupted call leaves no half-written file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        native_name(name): tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()
    }
    tensors[FRAME_POSITIONS] = model.projector.frame_positions.to("cpu", dtype).contiguous()
    weights = folder / "model.safetensors.partial"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.replace(folder / "model.safetensors")
    config = folder / "config.json.partial"
    config.write_text(json.dumps(config_to_native(model.config), indent=2) + "\n", encoding="utf-8")
    config.replace(folder / "config.json")


def load_checkpoint(
    folder: str | os.PathLike, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> FlorenceModel:
    """The model of a checkpoint folder, in evaluation mode.

    Raises FileNotFoundError for a missing folder or file, ValueError for a damaged one and for tensors that are
    missing, unknown or of the wrong shape; the message lists them.
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"checkpoint {str(folder)!r} has no file {name!r}")
    config = read_config(folder)
    try:
        tensors = load_file(folder / "model.safetensors", device=str(device))
    except SafetensorError as error:
        raise ValueError(f"{folder / 'model.safetensors'} is damaged or cut short ({error}); copy it again") from None
    with torch.device("meta"):
        model = FlorenceModel(config)
    load_native_tensors(model, tensors, source=str(folder), dtype=dtype)
    # The meta device leaves the constant table empty, so the projector computes it again.
    model.projector.reset_frame_positions(dtype, device)
    return model.eval()


def read_config(folder: str | os.PathLike) -> FlorenceConfig:
    """The network's sizes from `config.json` in `folder`; ValueError, naming the file, where it does not tell them."""
    path = Path(folder) / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON file ({error})") from None
    try:
        return config_from_native(values)
    except KeyError as error:
        raise ValueError(f"{path} lacks the field {error}: is it the config of a Florence-2 model?") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} does not describe a Florence-2 model: {error}") from None


def load_native_tensors(
    model: FlorenceModel, tensors: dict[str, torch.Tensor], source: str, dtype: torch.dtype | None = None
) -> None:
    """Give `model` the native-layout `tensors` (name → tensor), cast to `dtype`; strict about names and shapes.

    `source` names the origin in error messages.
    """
    tensors = dict(tensors)
    tensors.pop(FRAME_POSITIONS, None)
    copies = {name: tensors.pop(name) for name in TIED if name in tensors}
    for copy in copies.values():
        tensors.setdefault(EMBEDDING, copy)
    expected = {native_name(name): (name, tensor.shape) for name, tensor in model.state_dict().items()}
    problems = [f"missing: {name}" for name in expected if name not in tensors]
    problems += [f"unknown: {name}" for name in tensors if name not in expected]
    problems += [
        f"shape of {name}: {list(tensors[name].shape)}, config says {list(shape)}"
        for name, (_, shape) in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    problems += [
        f"not tied: {name} differs from the token embeddings, which serve as output layer too"
        for name, copy in copies.items()
        if not torch.equal(copy, tensors[EMBEDDING])
    ]
    if problems:
        shown = "\n  ".join(problems[:20]) + (f"\n  … and {len(problems) - 20} more" if len(problems) > 20 else "")
        raise ValueError(f"checkpoint {source!r} does not fit its config ({len(problems)} problems):\n  {shown}")
    ours = {name: tensors[native].to(dtype) for native, (name, _) in expected.items()}
    model.load_state_dict(ours, strict=True, assign=True)


def config_to_native(config: FlorenceConfig) -> dict:
    """The sizes as a native Florence-2 `config.json`; `config_from_native` is its inverse."""
    vision, text = config.vision, config.text
    return {
        "architectures": ["Florence2ForConditionalGeneration"],
        "model_type": "florence2",
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        "vision_config": {
            "model_type": "florence_vision",
            "embed_dim": vision.dims,
            "depths": vision.depths,
            "num_heads": vision.heads,
            "num_groups": vision.groups,
            "patch_size": vision.patch_sizes,
            "patch_stride": vision.strides,
            "patch_padding": vision.paddings,
            "patch_prenorm": vision.prenorm,
            "window_size": vision.window,
            "mlp_ratio": float(vision.mlp_ratio),
            "drop_path_rate": vision.drop_path,
            "projection_dim": text.d_model,
            "max_position_embeddings": config.max_grid,
            "max_temporal_embeddings": config.max_frames,
        },
        "text_config": {
            "model_type": "bart",
            "vocab_size": text.vocab_size,
            "d_model": text.d_model,
            "encoder_layers": text.encoder_layers,
            "decoder_layers": text.decoder_layers,
            "encoder_attention_heads": text.heads,
            "decoder_attention_heads": text.heads,
            "encoder_ffn_dim": text.ffn_dim,
            "decoder_ffn_dim": text.ffn_dim,
            "max_position_embeddings": text.positions,
            "dropout": text.dropout,
        },
        "florence_lite": {
            "image_size_wh": config.image_size_wh,
            "bins": config.bins,
            "prompt_side": config.prompt_side,
        },
    }


def config_from_native(values: dict) -> FlorenceConfig:
    """Sizes from a native `config.json`; without a "florence_lite" section the Florence-2 defaults hold.

    Raises KeyError for a missing field.
    """
    vision, text = values["vision_config"], values["text_config"]
    extra = values.get("florence_lite", {})
    return FlorenceConfig.from_dict(
        {
            "vision": {
                "dims": vision["embed_dim"],
                "depths": vision["depths"],
                "heads": vision["num_heads"],
                "groups": vision["num_groups"],
                "patch_sizes": vision["patch_size"],
                "strides": vision["patch_stride"],
                "paddings": vision["patch_padding"],
                "prenorm": vision["patch_prenorm"],
                "window": vision["window_size"],
                "mlp_ratio": int(vision.get("mlp_ratio", 4)),
                "drop_path": vision["drop_path_rate"],
            },
            "text": {
                "vocab_size": text["vocab_size"],
                "d_model": text["d_model"],
                "encoder_layers": text["encoder_layers"],
                "decoder_layers": text["decoder_layers"],
                "heads": text["decoder_attention_heads"],
                "ffn_dim": text["decoder_ffn_dim"],
                "positions": text["max_position_embeddings"],
                "dropout": text["dropout"],
            },
            "max_grid": vision["max_position_embeddings"],
            "max_frames": vision["max_temporal_embeddings"],
            **extra,
        }
    )
