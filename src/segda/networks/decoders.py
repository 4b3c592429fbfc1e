"""Decoders: the encoder's maps to logits at the resolution of the finest one.

SepASPP is DAFormer's (Hoyer et al., CVPR 2022, sec. 4.2): embed all levels, bring them to stride 4, look at
the stack with convolutions of several dilations at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SepASPP(nn.Module):
    """DAFormer's head: four maps (B, c_i, h_i, w_i) -> logits (B, C, h_0, w_0).

    embed: each level, linearly, to `channels`; then bilinear to the size of level 0, and stacked.
    branches: one a dilation, stack -> `channels`: dilation 1 is a 1x1 convolution, more is a depthwise 3x3
    followed by a 1x1. fuse: 3x3, all branches -> `channels`. These have batch norm and ReLU, and no bias.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        classes: int,
        *,
        channels: int,
        dilations: Sequence[int],
        dropout: float,
    ):
        super().__init__()
        stack = channels * len(inputs)
        self.embed = nn.ModuleList(nn.Linear(width, channels) for width in inputs)
        self.branches = nn.ModuleList(
            block(nn.Conv2d(stack, channels, 1, bias=False))
            if dilation == 1
            else nn.Sequential(
                block(DilatedDepthwise(stack, dilation)), block(nn.Conv2d(stack, channels, 1, bias=False))
            )
            for dilation in dilations
        )
        self.fuse = block(nn.Conv2d(channels * len(dilations), channels, 3, padding=1, bias=False))
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        size = levels[0].shape[-2:]
        # Linear on the last dimension, seen as channels again: from here on memory is channels-last, which is
        # what makes the convolutions fast on CPUs in bfloat16.
        embedded = [
            embed(level.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            for embed, level in zip(self.embed, levels, strict=True)
        ]
        stack = torch.cat([embedded[0], *(upsample(level, size) for level in embedded[1:])], dim=1)
        fused = self.fuse(torch.cat([branch(stack) for branch in self.branches], dim=1))
        return self.classify(self.dropout(fused))


class DilatedDepthwise(nn.Conv2d):
    """Depthwise 3x3 convolution, dilated, size kept, no bias: (B, c, h, w) -> (B, c, h, w).

    Computed as what it is: an ordinary depthwise convolution on each of the dilation^2 images that one gets
    by taking every dilation-th row and column (h and w filled up with zeros, which the padding is anyway).
    On CPUs this is several times faster, there and back, than the dilated operator, whose weight gradient
    besides is wrong in bfloat16 with channels-last memory (torch 2.13, maps of 64 x 80, not of 16 x 24).
    """

    def __init__(self, channels: int, dilation: int):
        super().__init__(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        (step, _), (batch, channels, height, width) = self.dilation, pixels.shape
        rows, columns = -(-height // step), -(-width // step)
        grid = F.pad(pixels.permute(0, 2, 3, 1), (0, 0, 0, columns * step - width, 0, rows * step - height))
        grid = grid.reshape(batch, rows, step, columns, step, channels).permute(0, 2, 4, 1, 3, 5)
        grid = grid.flatten(0, 2).permute(0, 3, 1, 2)  # (B step step, c, rows, columns), channels-last
        grid = F.conv2d(grid, self.weight, padding=1, groups=channels)
        grid = grid.permute(0, 2, 3, 1).unflatten(0, (batch, step, step)).permute(0, 3, 1, 4, 2, 5)
        grid = grid.reshape(batch, rows * step, columns * step, channels)
        # Dense again: batch norm is slow on the view.
        return grid[:, :height, :width].contiguous().permute(0, 3, 1, 2)


def block(convolution: nn.Conv2d) -> nn.Sequential:
    """A convolution without bias, started Kaiming-normal over its fan-out, then batch norm and ReLU."""
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))


def upsample(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear to `size`, corners not aligned: (B, C, h, w) -> (B, C, *size)."""
    return F.interpolate(pixels, tuple(size), mode="bilinear", align_corners=False)
