"""The vision tower by the compiled kernels: `model/davit.py` with the same weights, read where they are.

Maps are [B, H, W, C] in few buffers that blocks use in turn. Norms, GELU and residuals are part of the linear layers
beside them, and so are the ways into windows and out of them: rows are read from their places in the map.
"""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from florence_lite.engine.fast import kernel
from florence_lite.engine.fast.linear import is_plain, linear
from florence_lite.engine.fast.precision import Weights
from florence_lite.model.davit import AttentionBlock, ChannelAttention, DaViT, WindowAttention

CHANNELS = 32  # of a head and of a group, as the kernels know them


def can(vision: DaViT) -> bool:
    """Whether the kernels know this tower: its weights may be read, and its heads and groups have 32 channels."""
    windows = [part for part in vision.modules() if isinstance(part, WindowAttention)]
    groups = [part for part in vision.modules() if isinstance(part, ChannelAttention)]
    return (
        is_plain(vision)
        and all(part.proj.in_features == part.heads * CHANNELS for part in windows)
        and all(part.proj.in_features == part.groups * CHANNELS for part in groups)
    )


def features(vision: DaViT, pixel_values: Tensor, weights: Weights) -> Tensor:
    """What `vision(pixel_values)` returns, float32 [B, h, w, C]. weights: in which precision linear layers work."""
    x = pixel_values.float().permute(0, 2, 3, 1).contiguous()  # the first convolution takes half as long then
    for stage in vision.stages:
        x = stage.embed(x).contiguous()
        if stage.blocks:
            scratch = _Scratch(x)
            work = partial(_block, scratch=scratch, weights=weights)
            for block in stage.blocks:
                x = work(block.channel, work(block.spatial, x))
    return x


class _Scratch:
    """Buffers of a stage: maps like x, and rows of queries, keys and values or of the MLP's hidden channels."""

    def __init__(self, x: Tensor):
        self.other, self.rows, self.wide = torch.empty_like(x), x.new_empty(0), x.new_empty(0)

    def of(self, name: str, rows: int, width: int) -> Tensor:
        if getattr(self, name).numel() < rows * width:
            setattr(self, name, self.other.new_empty(rows * width))
        return getattr(self, name)[: rows * width].view(rows, width)


def _block(block: AttentionBlock, x: Tensor, scratch: _Scratch, weights: Weights) -> Tensor:
    B, H, W, C = x.shape
    y = _depthwise(block.conv1, x, scratch.other)
    attention, threads = block.attention, torch.get_num_threads()
    windows: tuple[Tensor | None, Tensor | None] = (None, None)
    count = B * H * W
    if isinstance(attention, WindowAttention):
        windows = (_windows(B, H, W, attention.window),) * 2
        count = len(windows[0])
    qkv = scratch.of("wide", count, 3 * C)
    apply = partial(_linear, weights)
    apply(attention.qkv, y, qkv, norm=block.norm1, rows=(windows[0], None))
    mixed = scratch.of("rows", count, C)
    pointers = (qkv.data_ptr(), mixed.data_ptr())
    if isinstance(attention, WindowAttention):
        T = attention.window**2
        kernel.library().florence_window_attention(*pointers, count // T, T, C, threads)
    else:
        kernel.library().florence_channel_attention(*pointers, B, H * W, C, threads)
    apply(attention.proj, mixed, y, residual=y, rows=(None, windows[1]))
    x = _depthwise(block.conv2, y, x)
    hidden = scratch.of("wide", B * H * W, block.mlp.fc1.out_features)
    apply(block.mlp.fc1, x, hidden, norm=block.norm2, gelu=True)
    return apply(block.mlp.fc2, hidden, x, residual=x)


def _linear(weights: Weights, layer: nn.Linear, *arguments, **named) -> Tensor:
    return linear(layer, *arguments, **named, of=weights.of(layer))


def _depthwise(conv: nn.Conv2d, x: Tensor, y: Tensor) -> Tensor:
    """y = x + conv(x)"""
    weight = conv.weight.reshape(x.shape[3], 9).t().contiguous()
    pointers = (part.data_ptr() for part in (x, weight, conv.bias, y))
    kernel.library().florence_depthwise(*pointers, *x.shape, torch.get_num_threads())
    return y


@lru_cache(maxsize=16)
def _windows(B: int, H: int, W: int, window: int) -> Tensor:
    """int32 [windows · window²]: the rows of a map [B, H, W], window by window; -1 in the padding of whole windows."""
    rows = torch.arange(B * H * W, dtype=torch.int32).view(B, H, W)
    rows = nn.functional.pad(rows, (0, -W % window, 0, -H % window), value=-1)
    return rows.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3).reshape(-1)
