"""Sizes of the network as frozen dataclasses, and the three presets.

Source of the base and large sizes: Florence-2 (Xiao et al., 2023, arXiv 2311.06242, Table 1) and its published configs.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

# (least, greatest) of every size. The greatest are far above those of any network of this kind: they keep a damaged or
# hostile file from asking for a network whose mere modules would fill the memory.
_PER_STAGE = {
    "dims": (1, 2**14),
    "depths": (0, 48),
    "heads": (1, 2**14),
    "groups": (1, 2**14),
    "patch_sizes": (1, 64),
    "strides": (1, 64),
    "paddings": (0, 63),
}
_VISION = {"window": (1, 64), "mlp_ratio": (1, 64)}
_TEXT = {
    "vocab_size": (4, 2**20),  # <s> <pad> </s> <unk>
    "d_model": (1, 2**14),
    "encoder_layers": (1, 48),
    "decoder_layers": (1, 48),
    "heads": (1, 2**14),
    "ffn_dim": (1, 2**17),
    "positions": (1, 2**17),
}
_WHOLE = {"bins": (2, 1000), "max_grid": (1, 2**12), "max_frames": (1, 2**14)}  # 1000 tokens <loc_…>
_SIDE = (1, 2**14)  # pixels
_STAGES = 8
_FRAME_TABLE = 2**22  # numbers in the table of frame times, which is computed when the network is built
_ACTIVATIONS = 2**28  # numbers that a layer of the vision tower makes of one image: large at 2048 pixels
_SHOWN = 80  # characters of a wrong value


@dataclass(frozen=True)
class VisionConfig:
    """DaViT: one entry per stage in every tuple. `groups` are the channel-attention groups."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    groups: tuple[int, ...]
    patch_sizes: tuple[int, ...] = (7, 3, 3, 3)
    strides: tuple[int, ...] = (4, 2, 2, 2)
    paddings: tuple[int, ...] = (3, 1, 1, 1)
    prenorm: tuple[bool, ...] = (False, True, True, True)
    window: int = 12
    mlp_ratio: int = 4
    drop_path: float = 0.1

    def __post_init__(self):
        if not isinstance(self.dims, tuple) or not 1 <= len(self.dims) <= _STAGES:
            raise _wrong("vision.dims", self.dims, f"a list of one width per stage, 1 to {_STAGES} of them")
        for name in (*_PER_STAGE, "prenorm"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or len(values) != len(self.dims):
                rule = f"a list of one entry per stage; dims = {self.dims} has {len(self.dims)}"
                raise _wrong(f"vision.{name}", values, rule)
        for name, bounds in _PER_STAGE.items():
            if not all(_is_within(value, bounds) for value in getattr(self, name)):
                raise _wrong(f"vision.{name}", getattr(self, name), _rule("whole numbers", bounds))
        if sum(self.depths) > _PER_STAGE["depths"][1]:
            raise _wrong("vision.depths", self.depths, f"at most {_PER_STAGE['depths'][1]} together")
        if not all(isinstance(value, bool) for value in self.prenorm):
            raise _wrong("vision.prenorm", self.prenorm, "true or false everywhere")
        _check_each("vision.", self, _VISION)
        _check_rate("vision.drop_path", self.drop_path)
        for dim, heads, groups in zip(self.dims, self.heads, self.groups, strict=True):
            if dim % heads or dim % groups:
                raise ValueError(f"vision.dims entry {dim} must be divisible by its heads {heads} and groups {groups}")
        if self.dims[-1] % 2:
            raise ValueError(f"vision.dims[-1] = {self.dims[-1]} must be even: half for columns, half for rows")

    @property
    def total_stride(self) -> int:
        """Pixels per side of one image token."""
        total = 1
        for stride in self.strides:
            total *= stride
        return total


@dataclass(frozen=True)
class TextConfig:
    """BART-style post-norm encoder-decoder. `positions` counts usable positions (the tables have two rows more)."""

    vocab_size: int
    d_model: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    ffn_dim: int
    positions: int = 1024
    dropout: float = 0.1

    def __post_init__(self):
        _check_each("text.", self, _TEXT)
        _check_rate("text.dropout", self.dropout)
        if self.d_model % self.heads:
            raise ValueError(f"text.d_model = {self.d_model} must be divisible by text.heads = {self.heads}")


@dataclass(frozen=True)
class FlorenceConfig:
    """The whole network.

    image_size_wh: side lengths in pixels to which every image is resized.
    bins: number of coordinate bins per axis.
    prompt_side: "encoder" appends the prompt to the image tokens (Florence-2); "decoder" puts it in front of the
        answer, so that one encoded image serves any number of prompts.
    max_grid: rows of the learned column and row position tables; max_frames: length of the temporal cosine table.
    tie_word_embeddings: the output layer is the table of token embeddings; else it has weights of its own.
    tie_decoder_embeddings: the decoder reads its tokens from that table too; else from a table of its own.
    """

    vision: VisionConfig
    text: TextConfig
    image_size_wh: tuple[int, int] = (768, 768)
    bins: int = 1000
    prompt_side: str = "encoder"
    max_grid: int = 50
    max_frames: int = 100
    tie_word_embeddings: bool = True
    tie_decoder_embeddings: bool = True

    def __post_init__(self):
        for name in ("tie_word_embeddings", "tie_decoder_embeddings"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} = {getattr(self, name)!r} must be true or false")
        if self.prompt_side not in ("encoder", "decoder"):
            raise ValueError(f"prompt_side = {self.prompt_side!r} must be 'encoder' or 'decoder'")
        _check_each("", self, _WHOLE)
        if self.max_frames * self.vision.dims[-1] > _FRAME_TABLE:
            raise _wrong("max_frames", self.max_frames, f"at most {_FRAME_TABLE // self.vision.dims[-1]} at this width")
        size = self.image_size_wh
        is_size = isinstance(size, tuple) and len(size) == 2 and all(_is_within(side, _SIDE) for side in size)
        if not is_size or min(self.grid_wh) < 1:
            rule = f"a width and a height of 1 to {_SIDE[1]} pixels"
            raise _wrong("image_size_wh", size, f"{rule}; one image token covers {self.vision.total_stride} each way")
        for stage, (width, height) in enumerate(self._maps_wh()):
            padded = math.prod(-(-side // self.vision.window) * self.vision.window for side in (width, height))
            if padded * self.vision.dims[stage] * max(3, self.vision.mlp_ratio) > _ACTIVATIONS:
                raise ValueError(
                    f"image_size_wh = {size} makes maps of {width}×{height} with windows of {self.vision.window} and "
                    f"{self.vision.dims[stage]} channels, more than fit in memory: use smaller images or larger strides"
                )
        if max(self.grid_wh) > self.max_grid:
            raise ValueError(
                f"image_size_wh = {self.image_size_wh} gives a grid of {self.grid_wh} tokens; the position tables have "
                f"{self.max_grid} entries: use images of at most {self.max_grid * self.vision.total_stride} pixels"
            )
        if self.image_tokens > self.text.positions:
            raise ValueError(
                f"image_size_wh = {self.image_size_wh} gives {self.image_tokens} image tokens, more than "
                f"text.positions = {self.text.positions}: use smaller images or a longer table"
            )

    @property
    def grid_wh(self) -> tuple[int, int]:
        """Image tokens along x and y (the convolutions' rounding included)."""
        return self._maps_wh()[-1]

    def _maps_wh(self) -> list[tuple[int, int]]:
        """Width and height of the feature maps of every stage."""
        vision, maps = self.vision, [self.image_size_wh]
        for patch, stride, padding in zip(vision.patch_sizes, vision.strides, vision.paddings, strict=True):
            width, height = ((side + 2 * padding - patch) // stride + 1 for side in maps[-1])
            maps.append((width, height))
        return maps[1:]

    @property
    def image_tokens(self) -> int:
        """Length of the image part of the sequence: the mean token and the grid."""
        return 1 + self.grid_wh[0] * self.grid_wh[1]

    def to_dict(self) -> dict:
        """Plain JSON-ready dictionary; `from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> FlorenceConfig:
        """Inverse of `to_dict`; an unknown or missing field raises ValueError naming it."""

        def build(kind, entries):
            if not isinstance(entries, dict):
                raise _wrong(kind.__name__, entries, "an object")
            known = kind.__dataclass_fields__
            if unknown := sorted(set(entries) - set(known)):
                raise ValueError(f"{kind.__name__}: unknown field {unknown}; known fields are {sorted(known)}")
            entries = {name: tuple(v) if isinstance(v, list) else v for name, v in entries.items()}
            try:
                return kind(**entries)
            except TypeError as error:
                raise ValueError(f"{kind.__name__}: {error}") from None

        parts = {"vision": VisionConfig, "text": TextConfig}
        if missing := [name for name in parts if name not in values]:
            raise ValueError(f"FlorenceConfig: {missing} missing")
        return build(cls, values | {name: build(kind, values[name]) for name, kind in parts.items()})

    @classmethod
    def preset(cls, name: str, **changes) -> FlorenceConfig:
        """`nano` (embedded checkpoint), `base` or `large` (Florence-2); `changes` replace top-level fields."""
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; choose one of {sorted(PRESETS)}")
        return cls(**PRESETS[name] | changes)


def _check_each(section: str, of: Any, bounds: dict[str, tuple[int, int]]) -> None:
    for name, (least, most) in bounds.items():
        if not _is_within(getattr(of, name), (least, most)):
            raise _wrong(section + name, getattr(of, name), _rule("a whole number", (least, most)))


def _check_rate(name: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise _wrong(name, value, "a number of at least 0 and below 1")


def _is_within(value: Any, bounds: tuple[int, int]) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and bounds[0] <= value <= bounds[1]


def _rule(what: str, bounds: tuple[int, int]) -> str:
    return f"{what} from {bounds[0]} to {bounds[1]}"


def _wrong(name: str, value: Any, rule: str) -> ValueError:
    shown = repr(value)
    return ValueError(f"{name} = {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '…'} must be {rule}")


def _from_scratch(width: int, heads: int) -> dict[str, Any]:
    """A network for one image size that is small enough to be trained from scratch. heads: of 32 channels each."""
    stages = tuple(heads // part for part in (4, 2, 1))
    vision = VisionConfig(
        dims=tuple(width // part for part in (4, 2, 1)),
        depths=(0, 1, 4),
        heads=stages,
        groups=stages,
        patch_sizes=(7, 3, 3),
        strides=(4, 2, 2),
        paddings=(3, 1, 1),
        prenorm=(False, True, True),
        window=7,
        drop_path=0.0,
    )
    text = TextConfig(
        vocab_size=2560,
        d_model=width,
        encoder_layers=2,
        decoder_layers=3,
        heads=heads,
        ffn_dim=4 * width,
        positions=512,
        dropout=0.0,
    )
    return {"vision": vision, "text": text, "image_size_wh": (224, 224), "prompt_side": "decoder"}


PRESETS = {
    "nano": _from_scratch(256, 8),
    "tiny": _from_scratch(384, 12),
    "base": {
        "vision": VisionConfig(
            dims=(128, 256, 512, 1024), depths=(1, 1, 9, 1), heads=(4, 8, 16, 32), groups=(4, 8, 16, 32)
        ),
        "text": TextConfig(vocab_size=51289, d_model=768, encoder_layers=6, decoder_layers=6, heads=12, ffn_dim=3072),
    },
    "large": {
        "vision": VisionConfig(
            dims=(256, 512, 1024, 2048), depths=(1, 1, 9, 1), heads=(8, 16, 32, 64), groups=(8, 16, 32, 64)
        ),
        "text": TextConfig(
            vocab_size=51289,
            d_model=1024,
            encoder_layers=12,
            decoder_layers=12,
            heads=16,
            ffn_dim=4096,
            positions=4096,
        ),
    },
}
