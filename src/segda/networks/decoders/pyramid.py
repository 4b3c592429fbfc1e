"""Decoders over all levels without dilation: SegFormer's and UPerNet's, as mmsegmentation 0.16 has them. And what the
latter goes back to, PSPNet's pooling of the deepest level alone, as DANNet's authors have it.

Xie et al., "SegFormer", NeurIPS 2021, sec. 3.2; Xiao et al., "Unified Perceptual Parsing", ECCV 2018, sec. 3.2; Zhao et
al., "Pyramid Scene Parsing Network", CVPR 2017, sec. 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segda.networks.decoders.daformer import block, classifier, embedded, pointwise, stacked, upsample
from segda.networks.dropout import ChannelDropout


class SegFormer(nn.Module):
    """Each level, linearly, to `channels`; all at the size of level 0 through a 1x1: -> logits (B, C, h_0, w_0)."""

    def __init__(self, inputs: Sequence[int], classes: int, *, channels: int, dropout: float):
        super().__init__()
        self.embed = nn.ModuleList(nn.Linear(width, channels) for width in inputs)
        self.fuse = pointwise(channels * len(inputs), channels)
        self.dropout = ChannelDropout(dropout)
        # Starts as torch starts a convolution, not N(0, 0.01) [code, segformer_head.py].
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        return self.classify(self.dropout(self.fuse(stacked(embedded(self.embed, levels)))))


class UPerNet(nn.Module):
    """Pooled context of the deepest level, added to the finer ones on the way up: -> logits (B, C, h_0, w_0).

    scales: sides of the grids that the deepest level is pooled to.
    """

    def __init__(self, inputs: Sequence[int], classes: int, *, channels: int, scales: Sequence[int], dropout: float):
        super().__init__()
        *finer, deepest = inputs
        self.scales = tuple(scales)
        self.pooled = nn.ModuleList(pointwise(deepest, channels) for _ in scales)
        self.context = three_by_three(deepest + len(scales) * channels, channels)
        self.lateral = nn.ModuleList(pointwise(width, channels) for width in finer)
        self.smooth = nn.ModuleList(three_by_three(channels, channels) for _ in finer)
        self.fuse = three_by_three(len(inputs) * channels, channels)
        self.dropout = ChannelDropout(dropout)
        self.classify = classifier(channels, classes)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        *finer, deepest = levels
        size = deepest.shape[-2:]
        # Batch norm divides the difference of a few images' means by itself: bfloat16 would round it away.
        with torch.autocast(deepest.device.type, enabled=False):
            context = [
                upsample(look(grid_means(deepest.to(next(look.parameters()).dtype), scale)), size)
                for look, scale in zip(self.pooled, self.scales, strict=True)
            ]
        above = self.context(torch.cat([deepest, *context], dim=1))
        summed = [above]
        for lateral, level in zip(reversed(self.lateral), reversed(finer), strict=True):
            above = lateral(level) + upsample(above, level.shape[-2:])
            summed.insert(0, above)
        smooth = [look(level) for look, level in zip(self.smooth, summed[:-1], strict=True)]
        return self.classify(self.dropout(self.fuse(stacked([*smooth, summed[-1]]))))


class PSP(nn.Module):
    """The deepest level beside its means over grids of several sizes: (B, c, h, w) -> logits (B, C, h, w).

    scales: sides of the grids. The pooled maps pass neither norm nor ReLU, nor does a ReLU follow the 3x3 convolution's
    norm [code DANNet, pspnet.py].
    """

    def __init__(self, inputs: Sequence[int], classes: int, *, channels: int, scales: Sequence[int], dropout: float):
        super().__init__()
        deepest = inputs[-1]
        self.scales = tuple(scales)
        self.pooled = nn.ModuleList(nn.Conv2d(deepest, channels, 1, bias=False) for _ in scales)
        fused = nn.Conv2d(deepest + len(scales) * channels, channels, 3, padding=1, bias=False)
        self.fuse = nn.Sequential(fused, nn.BatchNorm2d(channels))
        self.dropout = ChannelDropout(dropout)
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        deepest = levels[-1]
        size = deepest.shape[-2:]
        context = [
            F.interpolate(look(grid_means(deepest, scale)), size, mode="bilinear", align_corners=True)
            for look, scale in zip(self.pooled, self.scales, strict=True)
        ]
        return self.classify(self.dropout(self.fuse(torch.cat([*context, deepest], dim=1))))


def grid_means(level: Tensor, side: int) -> Tensor:
    """Means over `side` x `side` windows, which overlap where they do not divide: (B, c, h, w) -> (B, c, side, side).

    Window i of a side of n cells holds those from floor(i n / side) up to ceil((i + 1) n / side), without the last.
    """
    if torch.compiler.is_exporting():
        # The same as products with matrices. torch 2.13's own, taken apart for ONNX, keeps the traced size's windows: a
        # runtime refuses other sizes, or takes the means of other cells.
        rows, columns = (windows(length, side, level) for length in level.shape[-2:])
        return rows @ level @ columns.T
    return F.adaptive_avg_pool2d(level, side)


def windows(length: int, side: int, like: Tensor) -> Tensor:
    """(side, length): 1 over the window's number of cells inside the window, 0 outside."""
    window, cell = (torch.arange(many, device=like.device) for many in (side, length))
    first, end = window * length // side, ((window + 1) * length + side - 1) // side
    inside = (first[:, None] <= cell) & (cell < end[:, None])
    return inside.to(like.dtype) / (end - first)[:, None].to(like.dtype)


def three_by_three(width: int, channels: int) -> nn.Sequential:
    return block(nn.Conv2d(width, channels, 3, padding=1, bias=False))
