"""An adversary that tells source from target, region by region (Tsai et al., CVPR 2018; Vu et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

SOURCE, TARGET = 0.0, 1.0
"""What a discriminator's sigmoid is taught to be (valeoai/ADVENT train_UDA.py: source_label, target_label)."""


class Discriminator(nn.Sequential):
    """Fully convolutional: five 4 x 4 convolutions of stride 2 and padding 1 with bias, LeakyReLU(0.2) between them.

    maps (B, C, H, W) -> logits (B, 1, H // 32, W // 32), one for each region; sides of at least 32 pixels.
    width: channels of the first convolution (64 in the papers); the next ones have 2, 4 and 8 times as many.
    No normalisation; torch's own initialisation. DCGAN's discriminator as in ADVENT's discriminator.py.
    """

    def __init__(self, channels: int, width: int):
        sizes = [channels, width, 2 * width, 4 * width, 8 * width, 1]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        super().__init__(*layers[:-1])


class Discriminators(nn.ModuleDict):
    """One discriminator for each head of a network, by the head's name."""

    def __init__(self, heads: Sequence[str], channels: int, width: int):
        super().__init__({head: Discriminator(channels, width) for head in heads})

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The score on each head's maps."""
        return {head: self[head](maps[head]) for head in self}

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {head: list(discriminator.parameters()) for head, discriminator in self.items()}


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
