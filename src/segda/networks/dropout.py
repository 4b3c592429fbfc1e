"""Dropout that is drawn for a whole step, though its scenes are in shares (distributed/shares.py): each has its part.

With one share, the numbers are those that torch draws.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segda.distributed import shares


class DropPath(nn.Dropout):
    """Stochastic depth: in training, the branch of a whole sample is 0 with probability p, else over 1 - p.

    (B, ...) -> (B, ...). A kind of dropout, and off wherever dropout is (Huang et al., ECCV 2016).
    """

    def forward(self, branch: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return branch
        shape = (shares.count() * branch.shape[0], *[1] * (branch.ndim - 1))
        kept = shares.own(torch.rand(shape, device=branch.device)) >= self.p
        return branch * (kept / (1 - self.p)).to(branch.dtype)


class ChannelDropout(nn.Dropout2d):
    """In training, each channel of a sample is 0 with probability p, else over 1 - p; (B, D, h, w) -> the same."""

    def forward(self, maps: Tensor) -> Tensor:
        if self.p == 0 or not self.training or shares.count() == 1:
            return super().forward(maps)
        shape = (shares.count() * maps.shape[0], maps.shape[1], 1, 1)
        return maps * shares.own(maps.new_empty(shape).bernoulli_(1 - self.p).div_(1 - self.p))
