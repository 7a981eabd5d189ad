"""Sizes of the network as frozen dataclasses, and the three presets.

Source of the base and large sizes: Florence-2 (Xiao et al., 2023, arXiv 2311.06242, Table 1) and its published configs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


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
        stages = len(self.dims)
        if stages < 1:
            raise ValueError("vision.dims is empty; it needs one width per stage")
        for name in ("depths", "heads", "groups", "patch_sizes", "strides", "paddings", "prenorm"):
            if len(getattr(self, name)) != stages:
                raise ValueError(
                    f"vision.{name} = {getattr(self, name)} needs one entry per stage; dims = {self.dims} has {stages}"
                )
        for name in ("dims", "heads", "groups", "patch_sizes", "strides"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"vision.{name} = {getattr(self, name)} must be at least 1 everywhere")
        for name in ("depths", "paddings"):
            if min(getattr(self, name)) < 0:
                raise ValueError(f"vision.{name} = {getattr(self, name)} must not be negative")
        for dim, heads, groups in zip(self.dims, self.heads, self.groups, strict=True):
            if dim % heads or dim % groups:
                raise ValueError(f"vision.dims entry {dim} must be divisible by its heads {heads} and groups {groups}")
        if self.window < 1 or self.mlp_ratio < 1:
            raise ValueError(
                f"vision.window = {self.window} and vision.mlp_ratio = {self.mlp_ratio} must be at least 1"
            )
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
        for name in ("d_model", "encoder_layers", "decoder_layers", "heads", "ffn_dim", "positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"text.{name} = {getattr(self, name)} must be at least 1")
        if self.d_model % self.heads:
            raise ValueError(f"text.d_model = {self.d_model} must be divisible by text.heads = {self.heads}")
        if self.vocab_size < 4:
            raise ValueError(f"text.vocab_size = {self.vocab_size} must hold at least <s> <pad> </s> <unk>")


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
        if not 2 <= self.bins <= 1000:
            raise ValueError(f"bins = {self.bins} must lie between 2 and 1000, the number of <loc_…> tokens")
        if len(self.image_size_wh) != 2 or min(self.image_size_wh) < 1 or min(self.grid_wh) < 1:
            raise ValueError(
                f"image_size_wh = {self.image_size_wh} must be a width and a height of some pixels; one image token "
                f"covers {self.vision.total_stride} pixels each way"
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
        width, height = self.image_size_wh
        for patch, stride, padding in zip(
            self.vision.patch_sizes, self.vision.strides, self.vision.paddings, strict=True
        ):
            width = (width + 2 * padding - patch) // stride + 1
            height = (height + 2 * padding - patch) // stride + 1
        return width, height

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


PRESETS = {
    "nano": {
        "vision": VisionConfig(
            dims=(64, 128, 256),
            depths=(0, 1, 4),
            heads=(2, 4, 8),
            groups=(2, 4, 8),
            patch_sizes=(7, 3, 3),
            strides=(4, 2, 2),
            paddings=(3, 1, 1),
            prenorm=(False, True, True),
            window=7,
            drop_path=0.0,
        ),
        "text": TextConfig(
            vocab_size=2560,
            d_model=256,
            encoder_layers=2,
            decoder_layers=3,
            heads=8,
            ffn_dim=1024,
            positions=512,
            dropout=0.0,
        ),
        "image_size_wh": (224, 224),
        "prompt_side": "decoder",
    },
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
