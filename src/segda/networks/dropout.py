"""Dropout of which each scene has its own numbers, whichever part of its step (distributed/shares.py) a batch is.

A layer cannot be given the batch's share. So it has a number, `first_scene`: which scene of the step the first one of
its batch is. The trainer sets it (`number_scenes`) before each forward pass; elsewhere it is 0. Each call draws one key
from torch's generator, the same in all shares, since those begin alike and call the same layers. What is dropped for a
scene is a function of the key, the scene's number and the channel's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

GOLDEN, FIRST, SECOND = (number - 2**64 for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
"""SplitMix64's constants, as torch's signed integers."""

SPAN = 2**32
"""So many numbers of a layer are one scene's."""


def mixed(key: Tensor, counter: Tensor) -> Tensor:
    """Random bits of the counter-th number after a key, int64 both: SplitMix64 (Steele et al., OOPSLA 2014).

    Its last step is left out: x ^ (x >> 31), which changes none of the upper 31 bits.
    """
    bits = counter * GOLDEN + key
    bits = (bits ^ (bits >> 30 & 2**34 - 1)) * FIRST  # torch's shift repeats the sign; SplitMix64's does not
    return (bits ^ (bits >> 27 & 2**37 - 1)) * SECOND


class SceneDropout(nn.Dropout):
    """What both kinds share."""

    def __init__(self, p: float):
        super().__init__(p)
        self.first_scene = 0

    def counter(self, batch: Tensor) -> Tensor:
        """(B,) int64: where the numbers of each scene begin."""
        last = self.first_scene + len(batch)
        return torch.arange(self.first_scene * SPAN, last * SPAN, SPAN, device=batch.device)

    def factor(self, batch: Tensor, counter: Tensor) -> Tensor:
        """In the batch's type, as many as there are counters: 0 with probability p, else 1 / (1 - p)."""
        key = torch.empty((), dtype=torch.int64, device=batch.device).random_()
        kept = mixed(key, counter) >= round((self.p - 0.5) * 2**64)
        return (kept / (1 - self.p)).to(batch.dtype)


class DropPath(SceneDropout):
    """Stochastic depth: in training, the branch of a whole scene is 0 with probability p, else over 1 - p.

    (B, ...) -> (B, ...). Huang et al., ECCV 2016.
    """

    def forward(self, branch: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return branch
        return branch * self.factor(branch, self.counter(branch)).view(-1, *[1] * (branch.ndim - 1))


class ChannelDropout(SceneDropout):
    """In training, each channel of a scene is 0 with probability p, else over 1 - p; (B, D, h, w) -> the same."""

    def forward(self, maps: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return maps
        channels = torch.arange(maps.shape[1], device=maps.device)
        return maps * self.factor(maps, self.counter(maps)[:, None] + channels)[:, :, None, None]


class ValueDropout(SceneDropout):
    """In training, each value of a scene is 0 with probability p, else over 1 - p; (B, D, h, w) -> the same."""

    def forward(self, maps: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return maps
        values = torch.arange(maps[0].numel(), device=maps.device)
        return maps * self.factor(maps, self.counter(maps)[:, None] + values).view(maps.shape)


def number_scenes(module: nn.Module) -> Callable[[int], None]:
    """A function that tells all dropout in a module which scene of the step the first one of the next batch is."""
    layers = [one for one in module.modules() if isinstance(one, SceneDropout)]

    def begin(first_scene: int) -> None:
        for layer in layers:
            layer.first_scene = first_scene

    return begin
