"""Names of the tensors in the two layouts of Florence-2 checkpoints, and ours.

Native: transformers' own class (`florence-community/Florence-2-*`). Original: Microsoft's code
(`microsoft/Florence-2-*`) and most fine-tunes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TEXT_RENAMES = (  # the text side has the same names in both, behind different prefixes
    (r"\.cross_attention_norm", ".encoder_attn_layer_norm"),
    (r"\.cross_attention", ".encoder_attn"),
    (r"\.attention_norm", ".self_attn_layer_norm"),
    (r"(layers\.\d+)\.attention", r"\1.self_attn"),
    (r"\.ffn_norm", ".final_layer_norm"),
    (r"(layers\.\d+)\.ffn\.", r"\1."),
)


@dataclass(frozen=True)
class Layout:
    """How one family of files calls the tensors.

    renames: (pattern, replacement) pairs that turn our names into the layout's, applied in order.
    encoder_table: name under which files may carry the token embeddings again, as a table that no code reads.
    frame_positions: the constant table of frame times, which the network computes itself.
    transposed: our names of matrices that lie the other way round in the files.
    zeros: tensors [1, vocab_size] that our network does not have, for they hold zeros only.
    """

    name: str
    renames: tuple[tuple[str, str], ...]
    encoder_table: str
    frame_positions: str
    transposed: frozenset[str] = frozenset()
    zeros: tuple[str, ...] = ()

    def name_of(self, ours: str) -> str:
        """The layout's name of one of our parameters."""
        for pattern, replacement in self.renames:
            ours = re.sub(pattern, replacement, ours)
        return ours


NATIVE = Layout(
    name="native",
    renames=(
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
        (r"^decoder\.embed_tokens", "model.language_model.decoder.embed_tokens"),
        (r"^(encoder|decoder)\.positions", r"model.language_model.\1.embed_positions"),
        (r"^(encoder|decoder)\.norm", r"model.language_model.\1.layernorm_embedding"),
        (r"^(encoder|decoder)\.layers", r"model.language_model.\1.layers"),
        *_TEXT_RENAMES,
    ),
    encoder_table="model.language_model.encoder.embed_tokens.weight",
    frame_positions="model.multi_modal_projector.visual_temporal_embed.pos_idx_to_embed",
)

ORIGINAL = Layout(
    name="original",
    renames=(
        (r"^vision\.stages\.(\d+)\.embed\.conv\.", r"vision_tower.convs.\1.proj."),
        (r"^vision\.stages\.(\d+)\.embed\.norm\.", r"vision_tower.convs.\1.norm."),
        (r"^vision\.stages\.(\d+)\.blocks\.", r"vision_tower.blocks.\1."),
        (r"\.(conv[12])\.(weight|bias)$", r".\1.fn.dw.\2"),
        (r"\.spatial\.(attention|norm1)\.", r".spatial_block.window_attn.\1."),
        (r"\.channel\.(attention|norm1)\.", r".channel_block.channel_attn.\1."),
        (r"_attn\.attention\.", "_attn.fn."),
        (r"_attn\.norm1\.", "_attn.norm."),
        (r"\.(spatial|channel)\.", r".\1_block."),
        (r"_block\.norm2\.", "_block.ffn.norm."),
        (r"_block\.mlp\.", "_block.ffn.fn.net."),
        (r"^projector\.projection\.weight", "image_projection"),
        (r"^projector\.norm", "image_proj_norm"),
        (r"^projector\.", "image_pos_embed."),
        (r"^embed_tokens", "language_model.model.shared"),
        (r"^decoder\.embed_tokens", "language_model.model.decoder.embed_tokens"),
        (r"^lm_head", "language_model.lm_head"),
        (r"^(encoder|decoder)\.positions", r"language_model.model.\1.embed_positions"),
        (r"^(encoder|decoder)\.norm", r"language_model.model.\1.layernorm_embedding"),
        (r"^(encoder|decoder)\.layers", r"language_model.model.\1.layers"),
        *_TEXT_RENAMES,
    ),
    encoder_table="language_model.model.encoder.embed_tokens.weight",
    frame_positions="visual_temporal_embed.pos_idx_to_embed",
    transposed=frozenset({"projector.projection.weight"}),
    zeros=("language_model.final_logits_bias",),
)


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether the values of a `config.json` are of the original layout."""
    vision = config.get("vision_config")
    return isinstance(vision, Mapping) and "dim_embed" in vision


LAYOUTS = {layout.name: layout for layout in (NATIVE, ORIGINAL)}
MICROSOFT_CODE = "microsoft/Florence-2-base-ft--{module}.{name}"  # what fine-tunes of the original layout refer to
# Our names of the tables of tokens: what the encoder reads (and all else where the tables are tied), what the decoder
# reads, and the output layer.
EMBEDDING, DECODER_EMBEDDING, OUTPUT = "embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"
TABLES = (EMBEDDING, DECODER_EMBEDDING, OUTPUT)
ROWS = 64  # a longer table of ids gets a multiple of this many rows, as in the published native checkpoints
