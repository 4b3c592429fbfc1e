"""An adversary that tells source from target, region by region (Tsai et al., CVPR 2018; Vu et al., CVPR 2019; with
least squares Mao et al., ICCV 2017).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

SOURCE, TARGET = 0.0, 1.0
"""What a discriminator's sigmoid is taught to be (valeoai/ADVENT train_UDA.py: source_label, target_label)."""


class Shape(NamedTuple):
    """A discriminator's: the strides of its five convolutions, and how many times its width the first four have as
    channels.
    """

    strides: tuple[int, int, int, int, int]
    wider: tuple[int, int, int, int]


DCGAN = Shape((2, 2, 2, 2, 2), (1, 2, 4, 8))
"""ADVENT's, one score for 32 x 32 pixels [code ADVENT, discriminator.py]."""

FINE = Shape((2, 2, 1, 1, 1), (1, 2, 4, 4))
"""DANNet's, one score for 4 x 4 pixels [code DANNet, discriminator.py]."""


class Discriminator(nn.Sequential):
    """Fully convolutional: five 4 x 4 convolutions of padding 1 with bias, LeakyReLU(0.2) between them.

    maps (B, C, H, W) -> scores (B, 1, h, w), one for each region; sides of at least 32 pixels. DCGAN: h = H // 32;
    FINE: h = H // 4 - 3. width: channels of the first convolution (64 in the papers).
    No normalisation; torch's own initialisation.
    """

    def __init__(self, channels: int, width: int, shape: Shape = DCGAN):
        sizes = [channels, *(width * factor for factor in shape.wider), 1]
        layers: list[nn.Module] = []
        for (before, after), stride in zip(pairwise(sizes), shape.strides, strict=True):
            layers += [nn.Conv2d(before, after, kernel_size=4, stride=stride, padding=1), nn.LeakyReLU(0.2)]
        super().__init__(*layers[:-1])


class Discriminators(nn.ModuleDict):
    """One discriminator for each head of a network, or for each domain, by the head's or the domain's name."""

    def __init__(self, names: Sequence[str], channels: int, width: int, shape: Shape = DCGAN):
        super().__init__({name: Discriminator(channels, width, shape) for name in names})

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The score on each one's maps."""
        return {name: self[name](maps[name]) for name in self}

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {name: list(discriminator.parameters()) for name, discriminator in self.items()}


def adversarial_loss(score: Tensor, domain: float) -> Tensor:
    """Mean over regions of the binary cross entropy between sigmoid(score) and `domain` (SOURCE or TARGET); nats."""
    score = score.float()
    return F.binary_cross_entropy_with_logits(score, score.new_full((), domain).expand_as(score))


def squared_error(score: Tensor, answer: float) -> Tensor:
    """Mean over regions of (score - answer)^2: the adversarial loss of least squares (Mao et al., ICCV 2017)."""
    return (score.float() - answer).square().mean()


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Gradients flow through the module inside the block, but none reach its parameters."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
