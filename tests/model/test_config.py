"""Sizes of the network: which are possible, and none that a file may ask for fills the memory."""

import json
import math

import pytest
import torch

from florence_lite.model import FlorenceConfig, FlorenceModel, TextConfig, VisionConfig

VISION = {"dims": (8, 16), "depths": (1, 0), "heads": (2, 2), "groups": (2, 2)}
VISION |= {"patch_sizes": (7, 3), "strides": (4, 2), "paddings": (3, 1), "prenorm": (False, True), "window": 4}
TEXT = {"vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "ffn_dim": 8}


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("vision", {"dims": ()}, r"vision.dims = \(\) must be a list of one width per stage"),
        (
            "vision",
            {"depths": (1,)},
            r"vision.depths = \(1,\) must be a list of one entry per stage; dims = \(8, 16\) has 2",
        ),
        ("vision", {"prenorm": (True,) * 3}, "vision.prenorm = .* must be a list of one entry per stage"),
        ("vision", {"heads": (3, 2)}, "entry 8 must be divisible by its heads 3 and groups 2"),
        ("vision", {"groups": (2, 5)}, "entry 16 must be divisible by its heads 2 and groups 5"),
        ("vision", {"heads": (0, 2)}, r"vision.heads = \(0, 2\) must be whole numbers from 1 to 16384"),
        ("vision", {"strides": (4, 0)}, r"vision.strides = \(4, 0\) must be whole numbers from 1 to 64"),
        ("vision", {"depths": (1, -1)}, r"vision.depths = \(1, -1\) must be whole numbers from 0 to 48"),
        ("vision", {"dims": (8, 15), "heads": (2, 1), "groups": (2, 1)}, r"vision.dims\[-1\] = 15 must be even"),
        ("vision", {"window": 0}, "vision.window = 0"),
        ("vision", {"mlp_ratio": 0}, "vision.mlp_ratio = 0 must be a whole number from 1 to 64"),
        ("text", {"heads": 3}, "text.d_model = 16 must be divisible by text.heads = 3"),
        ("text", {"heads": 0}, "text.heads = 0 must be a whole number from 1"),
        ("text", {"decoder_layers": 0}, "text.decoder_layers = 0 must be a whole number from 1"),
        ("text", {"positions": 0}, "text.positions = 0 must be a whole number from 1"),
        ("text", {"vocab_size": 3}, "text.vocab_size = 3 must be a whole number from 4"),
        ("whole", {"prompt_side": "left"}, "prompt_side = 'left' must be 'encoder' or 'decoder'"),
        ("whole", {"bins": 1001}, "bins = 1001 must be a whole number from 2 to 1000"),
        ("whole", {"bins": 1}, "bins = 1 must be a whole number from 2 to 1000"),
        ("whole", {"image_size_wh": (408, 64)}, r"grid of \(51, 8\) tokens.*at most 400 pixels"),
        ("whole", {"image_size_wh": (0, 64)}, r"image_size_wh = \(0, 64\) must be a width and a height"),
        ("whole", {"image_size_wh": (64,)}, r"image_size_wh = \(64,\) must be a width and a height"),
        *[("vision", {name: 10**9}, f"vision.{name} = 1000000000 must be") for name in ("window", "mlp_ratio")],
        *[
            ("vision", {name: (4, value)}, f"vision.{name} = .* must be whole numbers from")
            for name in ("dims", "depths", "heads", "groups", "patch_sizes", "strides", "paddings")
            for value in (10**9, 4.0, "4", None, True, math.nan)
        ],
        ("vision", {"dims": (8,) * 10**6}, r"vision.dims = \(8, 8.{,100} must be a list of one width per stage"),
        ("vision", {"dims": "84"}, "vision.dims = '84' must be a list"),
        ("vision", {"dims": {8: 1, 16: 1}}, "vision.dims = .* must be a list"),
        ("vision", {"prenorm": (1, 0)}, "vision.prenorm = .* must be true or false"),
        ("vision", {"depths": (48, 1)}, r"vision.depths = \(48, 1\) must be at most 48 together"),
        ("vision", {"drop_path": math.nan}, "vision.drop_path = nan must be a number"),
        *[
            ("text", {name: value}, f"text.{name} = .* must be a whole number from")
            for name in ("vocab_size", "d_model", "encoder_layers", "decoder_layers", "heads", "ffn_dim", "positions")
            for value in (10**9, 2.0, "2", None, [2], math.inf)
        ],
        ("text", {"dropout": "0.1"}, "text.dropout = '0.1' must be a number"),
        *[("whole", {name: 10**9}, f"{name} = 1000000000 must be") for name in ("bins", "max_grid", "max_frames")],
        ("whole", {"max_frames": 2**14, "image_size_wh": (2**14, 2**14)}, "makes maps of 4096×4096"),
        (
            "whole",
            {"image_size_wh": (10**9, 64)},
            "image_size_wh = .* must be .* of 1 to 16384 pixels",
        ),
        ("whole", {"image_size_wh": (64.0, 64)}, "image_size_wh = .* must be a width and a height"),
        ("whole", {"image_size_wh": (400, 400)}, "gives 2501 image tokens, more than text.positions = 1024"),
    ],
)
def test_impossible_sizes(kind, changes, message):
    vision = VISION | changes if kind == "vision" else VISION
    text = TEXT | changes if kind == "text" else TEXT
    whole = changes if kind == "whole" else {"image_size_wh": (64, 64)}
    with pytest.raises(ValueError, match=message):
        FlorenceConfig(VisionConfig(**vision), TextConfig(**text), **whole)


def test_the_table_of_frame_times_is_bounded():
    with pytest.raises(ValueError, match="max_frames = 16384 must be at most 256 at this width"):
        FlorenceConfig(
            VisionConfig(**VISION | {"dims": (8, 2**14)}), TextConfig(**TEXT), image_size_wh=(64, 64), max_frames=2**14
        )


def test_padding_to_windows_counts():
    """A small map with large windows is as much work as a large one."""
    vision = VisionConfig(**VISION | {"dims": (2**14, 2), "heads": (1, 1), "groups": (1, 1), "window": 64})
    with pytest.raises(ValueError, match="makes maps of 1×1 with windows of 64 and 16384 channels"):
        FlorenceConfig(VisionConfig(**vars(vision) | {"mlp_ratio": 5}), TextConfig(**TEXT), image_size_wh=(4, 4))


@pytest.mark.parametrize("name", ["nano", "tiny", "base", "large"])
def test_config_as_json(name):
    config = FlorenceConfig.preset(name, bins=77)
    assert config.bins == 77
    assert FlorenceConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vision": VISION}, r"FlorenceConfig: \['text'\] missing"),
        ({"vision": VISION | {"colour": 1}, "text": TEXT}, r"VisionConfig: unknown field \['colour'\]; known .*dims"),
        ({"vision": VISION, "text": TEXT, "size": 1}, r"FlorenceConfig: unknown field \['size'\]"),
        ({"vision": VISION, "text": {"d_model": 4}}, "TextConfig: .*missing.*'vocab_size'"),
    ],
)
def test_config_from_a_bad_dictionary(values, message):
    with pytest.raises(ValueError, match=message):
        FlorenceConfig.from_dict(values)


def test_unknown_preset():
    with pytest.raises(ValueError, match=r"unknown preset 'huge'; choose one of \['base', 'large', 'nano', 'tiny'\]"):
        FlorenceConfig.preset("huge")


@pytest.mark.parametrize(
    ("name", "vision", "whole", "tokens"),
    [("base", 90.4, 231.4, 577), ("large", 360.6, 776.5, 577), ("nano", 0, 12.9, 197), ("tiny", 0, 28.2, 197)],
)
def test_presets_have_their_published_sizes(name, vision, whole, tokens):
    """Millions of parameters; built without memory."""
    config = FlorenceConfig.preset(name)
    with torch.device("meta"):
        model = FlorenceModel(config)
    assert config.image_tokens == tokens
    millions = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (model.vision, model)]
    assert millions[1] == pytest.approx(whole, abs=0.06)
    assert not vision or millions[0] == pytest.approx(vision, abs=0.06)
