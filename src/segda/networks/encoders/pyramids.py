"""PYRAMIDS: from the one map of a single-scale encoder to four maps, finest first, as decoders want them."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class SimplePyramid(nn.Module):
    """The map itself, enlarged by learnt deconvolutions and made smaller by pooling (Li et al., "Exploring Plain Vision
    Transformer Backbones for Object Detection", ECCV 2022, sec. 3.1, without the convolutions after it).

    (B, c, h, w) of stride p -> (B, c / 4, 4 h, 4 w), (B, c / 2, 2 h, 2 w), the map, (B, c, h / 2, w / 2) rounded up, of
    strides p / 4, p / 2, p and 2 p. Nothing is learnt before the last two: they are the encoder's own.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels = (channels // 4, channels // 2, channels, channels)
        self.twice = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        self.four_times = nn.Sequential(
            nn.ConvTranspose2d(channels, channels // 2, 2, stride=2),
            nn.GroupNorm(1, channels // 2),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 2, channels // 4, 2, stride=2),
        )

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        (cells,) = levels
        return [self.four_times(cells), self.twice(cells), cells, F.max_pool2d(cells, 2, ceil_mode=True)]


PYRAMIDS: dict[str, type[SimplePyramid]] = {"simple": SimplePyramid}
"""Each is built from the channels of the one map, has `channels` of the four, and makes the last of half its size."""
