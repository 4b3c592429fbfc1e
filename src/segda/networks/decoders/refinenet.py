"""RefineNet's decoder: from the deepest map up, each finer one refines what came of those below.

Lin et al., CVPR 2017, as in Nekrasov's port to torch, which DANNet uses: no batch norm, every convolution is 3x3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from segda.networks.dropout import ValueDropout

UNITS_BEFORE, UNITS_AFTER, POOLS = 2, 3, 4
"""Residual units on a map as it comes in, on what goes out, and poolings between [code of DANNet, refinenet.py]."""


class RefineNet(nn.Module):
    """Four maps (B, c_i, h_i, w_i) -> logits (B, C, h_0, w_0).

    channels: of each block; the deepest has twice as many. dropout: of the two deepest maps, and before the classifier.
    Lists are from the deepest map on: embed (all), adapt and refine (residual units), pool (chained), join (all but the
    first: before it is added to what comes from below), lead (all but the last: to the next one's channels).
    """

    def __init__(self, inputs: Sequence[int], classes: int, *, channels: int, dropout: float):
        super().__init__()
        widths = [2 * channels] + [channels] * (len(inputs) - 1)
        self.dropout = ValueDropout(dropout)
        self.embed = nn.ModuleList(plain(*pair) for pair in zip(reversed(inputs), widths, strict=True))
        self.adapt = nn.ModuleList(residual_units(width, UNITS_BEFORE) for width in widths)
        self.join = nn.ModuleList(plain(width, width) for width in widths[1:])
        self.pool = nn.ModuleList(ChainedPooling(plain(width, width) for _ in range(POOLS)) for width in widths)
        self.refine = nn.ModuleList(residual_units(width, UNITS_AFTER) for width in widths)
        self.lead = nn.ModuleList(plain(width, channels) for width in widths[:-1])
        self.classify = nn.Conv2d(channels, classes, 3, padding=1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        below: Tensor | None = None
        for g, level in enumerate(reversed(levels)):
            cells = self.adapt[g](self.embed[g](self.dropout(level) if g < 2 else level))
            if below is not None:
                size = cells.shape[-2:]
                below = F.interpolate(self.lead[g - 1](below), size, mode="bilinear", align_corners=True)
                cells = self.join[g - 1](cells) + below
            below = self.refine[g](self.pool[g](F.relu(cells)))
        return self.classify(self.dropout(below))


class ResidualUnit(nn.Module):
    """x + conv(relu(conv(relu(x)))); the first convolution has a bias."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = plain(channels, channels)

    def forward(self, cells: Tensor) -> Tensor:
        return cells + self.second(F.relu(self.first(F.relu(cells))))


class ChainedPooling(nn.ModuleList):
    """The input, and what each convolution makes of the 5x5 maximum of the one before, added up."""

    def forward(self, cells: Tensor) -> Tensor:
        total = step = cells
        for convolution in self:
            step = convolution(F.max_pool2d(step, 5, stride=1, padding=2))
            total = total + step
        return total


def residual_units(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualUnit(channels) for _ in range(count)))


def plain(inputs: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
