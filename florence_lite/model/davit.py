"""DaViT, the vision encoder: dual attention over windows of pixels and over channels.

Source: Ding et al., 2022, arXiv 2204.03645.
Feature maps are kept as [B, H, W, C] throughout; a convolution sees the same memory as channels-last [B, C, H, W].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence_lite.model.config import VisionConfig


def conv_nhwc(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a convolution to [B, H, W, C]."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class PatchEmbed(nn.Module):
    """Strided convolution that starts a stage; LayerNorm before it (`prenorm`) or after it."""

    def __init__(self, dim_in: int, dim: int, patch: int, stride: int, padding: int, prenorm: bool):
        super().__init__()
        self.prenorm = prenorm
        self.conv = nn.Conv2d(dim_in, dim, patch, stride, padding)
        self.norm = nn.LayerNorm(dim_in if prenorm else dim)

    def forward(self, x: Tensor) -> Tensor:
        if self.prenorm:
            return conv_nhwc(self.conv, self.norm(x))
        return self.norm(conv_nhwc(self.conv, x))


class WindowAttention(nn.Module):
    """Self-attention inside non-overlapping windows. Maps are padded with zeros to whole windows, and the padding takes
    part in the attention, as the published weights expect."""

    def __init__(self, dim: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.window = window
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, H, W, C = x.shape
        w = self.window
        x = F.pad(x, (0, 0, 0, -W % w, 0, -H % w))
        rows, columns = x.shape[1] // w, x.shape[2] // w
        x = x.view(B, rows, w, columns, w, C).transpose(2, 3).reshape(B * rows * columns, w * w, C)

        qkv = self.qkv(x).view(-1, w * w, 3, self.heads, C // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [windows, heads, w*w, C/heads]
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, w * w, C)
        x = self.proj(x)

        x = x.view(B, rows, columns, w, w, C).transpose(2, 3).reshape(B, rows * w, columns * w, C)
        return x[:, :H, :W]


class ChannelAttention(nn.Module):
    """Self-attention between the channels of each group, over all positions of the image."""

    def __init__(self, dim: int, groups: int):
        super().__init__()
        self.groups = groups
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, H, W, C = x.shape
        N = H * W
        qkv = self.qkv(x).view(B, N, 3, self.groups, C // self.groups)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, groups, N, C/groups]
        # Scaled before the product: a sum over all positions leaves the range of float16.
        weights = ((q * N**-0.5).transpose(-1, -2) @ k).softmax(-1)  # [B, groups, C/groups, C/groups]
        x = (v @ weights.transpose(-1, -2)).transpose(1, 2).reshape(B, H, W, C)
        return self.proj(x)


class MLP(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class DropPath(nn.Module):
    """Stochastic depth: training drops the residual branch of whole samples (Huang et al., 2016, arXiv 1603.09382)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * keep.to(x.dtype) / (1 - self.rate)


class AttentionBlock(nn.Module):
    """Depthwise convolution, attention, depthwise convolution, MLP; each a residual."""

    def __init__(self, dim: int, attention: nn.Module, mlp_ratio: int, drop_path: float):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim)
        self.attention = attention
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, dim * mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + conv_nhwc(self.conv1, x)
        x = x + self.drop_path(self.attention(self.norm1(x)))
        x = x + conv_nhwc(self.conv2, x)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class DualBlock(nn.Module):
    """One spatial (window) block, then one channel block."""

    def __init__(self, config: VisionConfig, stage: int, drop_paths: tuple[float, float]):
        super().__init__()
        dim = config.dims[stage]
        spatial = WindowAttention(dim, config.heads[stage], config.window)
        channel = ChannelAttention(dim, config.groups[stage])
        self.spatial = AttentionBlock(dim, spatial, config.mlp_ratio, drop_paths[0])
        self.channel = AttentionBlock(dim, channel, config.mlp_ratio, drop_paths[1])

    def forward(self, x: Tensor) -> Tensor:
        return self.channel(self.spatial(x))


class Stage(nn.Module):
    def __init__(self, config: VisionConfig, stage: int, drop_paths: list[float]):
        super().__init__()
        self.embed = PatchEmbed(
            config.dims[stage - 1] if stage else 3,
            config.dims[stage],
            config.patch_sizes[stage],
            config.strides[stage],
            config.paddings[stage],
            config.prenorm[stage],
        )
        pairs = zip(drop_paths[::2], drop_paths[1::2], strict=True)
        self.blocks = nn.ModuleList(DualBlock(config, stage, pair) for pair in pairs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return x


class DaViT(nn.Module):
    """`pixel_values` [B, 3, H, W], normalised, to features [B, h, w, C] with h = H / total stride."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        # The rate grows linearly with depth; every dual block holds two residual branches.
        # They are numbers even where the parameters get no memory (on the meta device).
        rates = torch.linspace(0, config.drop_path, 2 * sum(config.depths), device="cpu").tolist()
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(config.depths):
            first = 2 * sum(config.depths[:stage])
            self.stages.append(Stage(config, stage, rates[first : first + 2 * depth]))

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = pixel_values.permute(0, 2, 3, 1)
        for stage in self.stages:
            x = stage(x)
        return x
