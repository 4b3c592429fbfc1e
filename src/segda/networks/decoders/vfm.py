"""The decoders of VFM-UDA, of one map, and of VFM-UDA++, of four (Englert et al., CVPR workshops 2024, ICCV workshops
2025; tue-mps/vfm-uda `vit_lightweight_head.py`, tue-mps/vfm-uda-plusplus `basic_pyramid_head.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

SLOW = 0.01
"""Momentum of their batch norms."""


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of maps (B, c, h, w)."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, cells: Tensor) -> Tensor:
        return super().forward(cells.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Light(nn.Module):
    """The last map (B, c, h, w) -> logits (B, C, 4 h, 4 w)."""

    def __init__(self, channels: Sequence[int], classes: int):
        super().__init__()
        width = channels[-1]
        half, quarter = width // 2, width // 4
        self.enlarge = nn.Sequential(
            nn.ConvTranspose2d(width, half, 2, stride=2, bias=False),
            ChannelNorm(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, stride=2, bias=False),
            ChannelNorm(quarter),
            nn.Conv2d(quarter, quarter, 3, padding=1, bias=False),
            ChannelNorm(quarter),
        )
        self.classify = classifier(quarter, classes)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        return self.classify(self.enlarge(levels[-1]))


class Pyramid(nn.Module):
    """Four maps of the same channels, finest first, each twice as large as the next -> logits at the finest one's size.

    From the deepest map on: enlarged, added to the next finer one, smoothed. A map of an odd side takes what it needs.
    """

    def __init__(self, channels: Sequence[int], classes: int):
        super().__init__()
        (width,) = set(channels)
        widths = [width // 2**k for k in range(len(channels))]
        self.enlarge, self.embed, self.smooth, self.norm = (nn.ModuleList() for _ in range(4))
        for below, here in pairwise(widths):
            self.enlarge.append(nn.ConvTranspose2d(below, here, 2, stride=2))
            self.embed.append(nn.Conv2d(width, here, 1))
            self.smooth.append(nn.Conv2d(here, here, 3, padding=1))
            self.norm.append(nn.BatchNorm2d(here, momentum=SLOW))
        self.smooth.append(nn.Conv2d(here, here, 3, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                inwards = isinstance(module, nn.Conv2d)
                nn.init.kaiming_uniform_(module.weight, mode="fan_in" if inwards else "fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        self.classify = classifier(here, classes)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        *finer, cells = levels
        *smooth, last = self.smooth
        steps = zip(reversed(finer), self.enlarge, self.embed, smooth, self.norm, strict=True)
        for level, enlarge, embed, smoothed, norm in steps:
            height, width = level.shape[-2:]
            cells = norm(smoothed(enlarge(cells)[..., :height, :width] + embed(level))).relu()
        return self.classify(last(cells))


def classifier(width: int, classes: int) -> nn.Conv2d:
    convolution = nn.Conv2d(width, classes, 1, bias=False)
    nn.init.normal_(convolution.weight, std=0.1)
    return convolution
