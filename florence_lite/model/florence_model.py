"""The whole network: image → DaViT → projector → encoder → decoder → logits."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence_lite.model.cache import CrossCache, SelfCache
from florence_lite.model.config import FlorenceConfig
from florence_lite.model.davit import DaViT
from florence_lite.model.transformer import Decoder, Encoder


def frame_positions(frames: int, dim: int) -> Tensor:
    """Cosine table [frames, dim] of frame times; sines at even and cosines at odd channels. An image is frame 0."""
    half = dim // 2
    rates = torch.exp(torch.arange(half, device="cpu") * (-math.log(10000) / half))
    angles = torch.arange(frames, device="cpu")[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class Projector(nn.Module):
    """Vision features [B, h, w, C] to image tokens [B, 1 + h·w, D]: the mean token first, then the grid row by row."""

    def __init__(self, config: FlorenceConfig):
        super().__init__()
        dim = config.vision.dims[-1]
        self.column_embeddings = nn.Embedding(config.max_grid, dim // 2)
        self.row_embeddings = nn.Embedding(config.max_grid, dim // 2)
        # Computed also where the parameters get no memory (on the meta device): it is no part of checkpoints.
        self.register_buffer("frame_positions", frame_positions(config.max_frames, dim), persistent=False)
        self.projection = nn.Linear(dim, config.text.d_model, bias=False)
        self.norm = nn.LayerNorm(config.text.d_model)

    def forward(self, x: Tensor) -> Tensor:
        B, h, w, C = x.shape
        columns = self.column_embeddings.weight[:w].expand(h, w, -1)
        rows = self.row_embeddings.weight[:h, None].expand(h, w, -1)
        x = x + torch.cat([columns, rows], dim=-1) + self.frame_positions[0]
        x = x.reshape(B, h * w, C)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)
        return self.norm(self.projection(x))


class FlorenceModel(nn.Module):
    """Prompt-driven vision network.

    One table `embed_tokens` serves prompts, answers and output layer, unless `config` says that the output layer
    (`lm_head`) or the decoder (`decoder.embed_tokens`) has weights of its own.
    """

    def __init__(self, config: FlorenceConfig):
        super().__init__()
        self.config = config
        self.vision = DaViT(config.vision)
        self.projector = Projector(config)
        self.embed_tokens = nn.Embedding(config.text.vocab_size, config.text.d_model)
        self.encoder = Encoder(config.text)
        self.decoder = Decoder(config.text, has_table=not config.tie_decoder_embeddings)
        self.lm_head = None
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.text.d_model, config.text.vocab_size, bias=False)
        self.apply(_init_weights)

    def untie_output(self) -> None:
        """Give the output layer weights of its own, at first a copy of the token embeddings."""
        if self.lm_head is None:
            self.config = replace(self.config, tie_word_embeddings=False)
            self.lm_head = nn.Linear(self.config.text.d_model, self.config.text.vocab_size, bias=False, device="meta")
            weight = self.embed_tokens.weight
            self.lm_head.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)

    def untie_decoder(self) -> None:
        """Give the decoder a table of its own, at first a copy of the token embeddings."""
        if self.decoder.embed_tokens is None:
            self.config = replace(self.config, tie_decoder_embeddings=False)
            weight = self.embed_tokens.weight
            table = nn.Embedding.from_pretrained(weight.detach().clone(), freeze=not weight.requires_grad)
            self.decoder.embed_tokens = table

    def tie_equal_tables(self, like: FlorenceConfig) -> None:
        """Make one again of tables that are equal and are tied in `like`: the inverse of the two methods above."""
        weight, answers = self.embed_tokens.weight, self.decoder.embed_tokens
        if like.tie_word_embeddings and self.lm_head is not None and torch.equal(self.lm_head.weight, weight):
            self.lm_head, self.config = None, replace(self.config, tie_word_embeddings=True)
        if like.tie_decoder_embeddings and answers is not None and torch.equal(answers.weight, weight):
            self.decoder.embed_tokens, self.config = None, replace(self.config, tie_decoder_embeddings=True)

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """pixel_values float [B, 3, H, W], normalised, to image_features [B, N, D], N = `config.image_tokens`."""
        return self.projector(self.vision(pixel_values))

    def encode(
        self, image_features: Tensor, prompt_ids: Tensor | None = None, prompt_mask: Tensor | None = None, **how
    ) -> tuple[Tensor, Tensor | None]:
        """Run the encoder over the image tokens and, for an encoder-side prompt, the prompt behind them.

        image_features: [B, N, D].
        prompt_ids: int64 [B, T], padded on the right; None for a decoder-side prompt.
        prompt_mask: bool [B, T], False on padding; None when nothing is padded.
        how: layers are run; see `Encoder.forward`.

        Returns encoder_hidden_states [B, S, D] and encoder_mask, bool [B, S] or None.
        """
        if prompt_ids is None:
            return self.encoder(image_features, None, **how), None
        x = torch.cat([image_features, self.embed_tokens(prompt_ids)], dim=1)
        if x.shape[1] > self.config.text.positions:
            raise ValueError(
                f"the prompt has {prompt_ids.shape[1]} tokens; behind {image_features.shape[1]} image tokens there is "
                f"room for {self.config.text.positions - image_features.shape[1]}: shorten the prompt"
            )
        mask = None
        if prompt_mask is not None:
            mask = torch.cat([prompt_mask.new_ones(image_features.shape[:2]), prompt_mask], dim=1)
        return self.encoder(x, mask, **how), mask

    def cross_cache(self, encoder_hidden_states: Tensor) -> CrossCache:
        """Keys and values of every decoder layer's cross-attention for encoder_hidden_states [B, S, D]."""
        return self.decoder.cross_cache(encoder_hidden_states)

    def self_cache(self, rows: int, max_length: int) -> SelfCache:
        """Empty self-attention cache for `rows` sequences of at most `max_length` tokens."""
        text, weight = self.config.text, self.embed_tokens.weight
        return SelfCache(
            text.decoder_layers, rows, text.heads, max_length, text.d_model // text.heads, weight.dtype, weight.device
        )

    def decode(
        self,
        input_ids: Tensor,
        cross: CrossCache,
        encoder_mask: Tensor | None = None,
        self_cache: SelfCache | None = None,
        positions: Tensor | None = None,
        input_mask: Tensor | None = None,
        last: int | None = None,
        self_mask: Tensor | None = None,
        **how,
    ) -> Tensor:
        """Run the decoder over new tokens.

        input_ids: int64 [R, T]; R = n·B rows, the n rows of an image standing together.
        cross: keys and values of the B images; encoder_mask bool [B, S] or None.
        self_cache: where earlier tokens of these rows are kept and the new ones are added; None: no cache.
        positions: int64 [R, T], default counts on from the cache's length.
        input_mask: bool [R, past + T], False on left padding; None when nothing is padded.
        last: of how many of the T tokens, the last ones, hidden states are wanted; None: of all.
        self_mask: bool [R, 1, T, T], True where a token may attend to another; None: to all before it. Not beside
            a cache, `input_mask` or `last`.
        how: layers are run; see `Decoder.forward`.

        Returns hidden states [R, T, D], or [R, last, D]; `logits` turns them into scores.
        """
        table = self.embed_tokens if self.decoder.embed_tokens is None else self.decoder.embed_tokens
        return self.decoder(
            table(input_ids), cross, encoder_mask, self_cache, positions, input_mask, last, self_mask, **how
        )

    def logits(self, hidden: Tensor, ids: range | None = None) -> Tensor:
        """Hidden states [..., D] to unnormalised scores [..., vocab_size], or [..., len(ids)] of those ids alone."""
        chosen = slice(None) if ids is None else slice(ids.start, ids.stop)
        if self.lm_head is None:
            return F.linear(hidden, self.embed_tokens.weight[chosen])
        if type(self.lm_head) is nn.Linear:
            return F.linear(hidden, self.lm_head.weight[chosen])
        return self.lm_head(hidden)[..., chosen]  # with an adapter, say


def _init_weights(module: nn.Module) -> None:
    """Normal weights, no biases. Linear layers keep the scale of their input at any width (0.02 at the width of base).

    Convolutions start small, the depthwise ones above all: they are residuals of every block, and with a larger start
    the features grow block by block until attention and MLP no longer count.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.55 * module.in_features**-0.5)
    if isinstance(module, nn.Embedding | nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
