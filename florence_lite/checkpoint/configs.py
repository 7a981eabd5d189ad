"""`config.json` ↔ `FlorenceConfig`, for both layouts.

What Florence-2's files have no field for (coordinate bins, side of the prompt, image size) stands under
"florence_lite"; without it, Florence-2's own values hold. Fields that are the same for every Florence-2 are checked,
not ignored: a config that asks for something else would load into a network that computes something else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from florence_lite.checkpoint.companions import decoding_to_settings, read_preprocessor
from florence_lite.checkpoint.layouts import MICROSOFT_CODE, is_original
from florence_lite.checks import is_number
from florence_lite.files import read_json_object
from florence_lite.model import FlorenceConfig

# The only values that the network knows, where a config may hold the field.
FIXED_TEXT = {
    "activation_function": "gelu",
    "scale_embedding": False,
    "normalize_before": False,
    "add_final_layer_norm": False,
    "add_bias_logits": False,
}
FIXED_VISION = {"qkv_bias": True, "activation_function": "gelu"}
FEATURE_SOURCES = {"spatial_avg_pool", "temporal_avg_pool"}


def read_config(folder: str | os.PathLike) -> FlorenceConfig:
    """The network's sizes from `config.json` in `folder`, of either layout; where that says nothing of the size of
    images, the image processor's file does.

    Raises FileNotFoundError, or ValueError, naming the file, where it does not tell them.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        inside = [name for name in ("best", "checkpoint") if (Path(folder) / name / "config.json").is_file()]
        way = f"; it is a run: give {' or '.join(str(Path(folder) / name) for name in inside)}" if inside else ""
        raise FileNotFoundError(f"checkpoint {str(folder)!r} has no file 'config.json'{way}")
    values = read_json_object(path)
    if not isinstance(values.get("florence_lite", {}), dict):
        raise ValueError(f"{path}: florence_lite = {values['florence_lite']!r} must be an object")
    if "image_size_wh" not in values.get("florence_lite", {}):
        size_wh = read_preprocessor(folder).size_wh
        values["florence_lite"] = {"image_size_wh": size_wh, **values.get("florence_lite", {})}
    try:
        return config_from_json(values)
    except KeyError as error:
        raise ValueError(f"{path} lacks the field {error}: is it the config of a Florence-2 model?") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not describe a Florence-2 model: {error}") from None


def config_from_json(values: dict) -> FlorenceConfig:
    """Sizes from a `config.json` of either layout, whatever `model_type`s and top-level ids it has.

    Raises KeyError for a missing field, ValueError for values that the network does not know.
    """
    vision, text = values["vision_config"], values["text_config"]
    _check_fixed("text_config", text, FIXED_TEXT)
    _check_fixed("vision_config", vision, FIXED_VISION)
    sources = vision.get("image_feature_source", ())
    if not set(sources) <= FEATURE_SOURCES:
        raise ValueError(f"image_feature_source = {sources}: the network knows only {sorted(FEATURE_SOURCES)}")
    for name in ("attention_heads", "ffn_dim"):
        if text.get(f"encoder_{name}", text[f"decoder_{name}"]) != text[f"decoder_{name}"]:
            raise ValueError(f"encoder_{name} and decoder_{name} differ; the network has one value for both")
    ratio = vision.get("mlp_ratio", 4)  # the files have it as a float
    if not is_number(ratio) or ratio != int(ratio):
        raise ValueError(f"mlp_ratio = {ratio!r} must be a whole number")
    original = is_original(values)
    return FlorenceConfig.from_dict(
        {
            "vision": {
                "dims": vision["dim_embed" if original else "embed_dim"],
                "depths": vision["depths"],
                "heads": vision["num_heads"],
                "groups": vision["num_groups"],
                "patch_sizes": vision["patch_size"],
                "strides": vision["patch_stride"],
                "paddings": vision["patch_padding"],
                "prenorm": vision["patch_prenorm"],
                "window": vision["window_size"],
                "mlp_ratio": int(ratio),
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
            "max_grid": vision["image_pos_embed"]["max_pos_embeddings"]
            if original
            else vision["max_position_embeddings"],
            "max_frames": vision["visual_temporal_embedding"]["max_temporal_embeddings"]
            if original
            else vision["max_temporal_embeddings"],
            # Microsoft's code does not go by these fields: there the files alone say what is tied.
            "tie_word_embeddings": original or _flag(values, "tie_word_embeddings"),
            "tie_decoder_embeddings": original or _flag(text, "tie_word_embeddings"),
            **values.get("florence_lite", {}),
        }
    )


def config_to_json(
    config: FlorenceConfig,
    layout: str = "native",
    image_token_id: int | None = None,
    decoding: Mapping[str, Any] | None = None,
) -> dict:
    """The sizes as the `config.json` of a layout, "native" or "original"; `config_from_json` is its inverse.

    image_token_id: of the placeholder of images, which transformers' class looks for; its own default without it.
    decoding: fields of `GenerationOptions`, which Microsoft's code looks up here.
    """
    text = config.text
    special_ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    shared = {
        "architectures": ["Florence2ForConditionalGeneration"],
        "model_type": "florence2",
        "is_encoder_decoder": True,
        "tie_word_embeddings": config.tie_word_embeddings,
        **special_ids,
        "text_config": {
            "tie_word_embeddings": config.tie_decoder_embeddings,
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
            "attention_dropout": text.dropout,
            "activation_dropout": text.dropout,
            "is_encoder_decoder": True,
            "decoder_start_token_id": 2,
            **special_ids,
        },
        "florence_lite": {
            "image_size_wh": config.image_size_wh,
            "bins": config.bins,
            "prompt_side": config.prompt_side,
        },
    }
    if layout == "original":
        return _original(shared, config, decoding or {})
    return _native(shared, config) | ({} if image_token_id is None else {"image_token_id": image_token_id})


def _native(values: dict, config: FlorenceConfig) -> dict:
    return {
        **values,
        "text_config": {"model_type": "bart", **values["text_config"]},
        "vision_config": {
            "model_type": "florence_vision",
            "embed_dim": config.vision.dims,
            **_shared_vision(config),
            "max_position_embeddings": config.max_grid,
            "max_temporal_embeddings": config.max_frames,
        },
    }


def _original(values: dict, config: FlorenceConfig, decoding: Mapping[str, Any]) -> dict:
    if config.vision.mlp_ratio != 4:
        raise ValueError(
            f"mlp_ratio = {config.vision.mlp_ratio}: Microsoft's code knows only 4; save in the native layout"
        )
    if not config.tie_decoder_embeddings:
        raise ValueError(
            "the decoder has a table of tokens of its own, and Microsoft's code has one for prompts and answers: "
            "save in the native layout"
        )
    code = {
        "AutoConfig": MICROSOFT_CODE.format(module="configuration_florence2", name="Florence2Config"),
        "AutoModelForCausalLM": MICROSOFT_CODE.format(
            module="modeling_florence2", name="Florence2ForConditionalGeneration"
        ),
    }
    return {
        **values,
        "auto_map": code,
        "projection_dim": config.text.d_model,
        "vocab_size": config.text.vocab_size,
        "text_config": {
            "model_type": "florence2_language",
            **values["text_config"],
            **FIXED_TEXT,
            "forced_eos_token_id": 2,
            **decoding_to_settings(decoding),
        },
        "vision_config": {
            "model_type": "davit",
            "dim_embed": config.vision.dims,
            **_shared_vision(config),
            "enable_checkpoint": False,
            "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": config.max_grid},
            "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": config.max_frames},
            "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
        },
    }


def _shared_vision(config: FlorenceConfig) -> dict:
    vision = config.vision
    return {
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
        "projection_dim": config.text.d_model,
    }


def _flag(section: dict, name: str) -> Any:
    """The field, true where it is absent or null."""
    value = section.get(name)
    return True if value is None else value


def _check_fixed(section: str, values: dict, fixed: dict) -> None:
    for name, only in fixed.items():
        if values.get(name, only) != only:
            raise ValueError(f"{section}.{name} = {values[name]!r}: the network knows only {only!r}")
