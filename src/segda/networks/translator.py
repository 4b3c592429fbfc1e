"""CycleGAN's networks: a generator that gives an image another style, and what judges its patches.

Zhu et al., ICCV 2017, as in junyanz/pytorch-CycleGAN-and-pix2pix of mid-2018: `resnet_9blocks` and the discriminator
`basic`. Modules have the authors' names, so that their files fit as they are.

Instance norm has no state here: each image's own statistics count, in training and afterwards. The authors' record
running averages, which their translation must not use, and which `segda convert` leaves out. Batch norm instead is for
other papers' networks of this build (DANNet's relighting).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from segda.errors import DataError
from segda.networks.network import refuse_smaller

Norm = Literal["instance", "batch"]
Upsampling = Literal["transposed", "resize"]

NORMS: Mapping[str, Callable[[int], nn.Module]] = {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d}

MULTIPLE, SMALLEST = 4, 8
"""Pixels: what a generator's sides are multiples of, and how many they have at least."""

SMALLEST_JUDGED = 24
"""Pixels on a side that a patch discriminator needs."""

DEVIATION = 0.02
"""Of the weights that a training begins with [code, networks.py: init_gain]."""


class Generator(nn.Module):
    """(B, 3, H, W) -> (B, 3, H, W) in (-1, 1); sides are multiples of 4, of at least 8 pixels.

    width: channels of the finest maps (64 in the paper); the deepest have four times as many. blocks: residual blocks
    there (9 in the paper). Convolutions before an instance norm have a bias, as published, though it changes nothing;
    those before a batch norm have none. upsampling: "transposed" convolutions, as published; or "resize", to the
    nearest and a convolution of 3x3, which gives each pixel the same share of the kernel: no checkerboard (Odena et
    al., Distill 2016).
    """

    def __init__(self, *, width: int, blocks: int, upsampling: Upsampling, norm: Norm = "instance"):
        super().__init__()
        normed, bias = NORMS[norm], norm == "instance"

        def rest(channels: int) -> list[nn.Module]:
            return [normed(channels), nn.ReLU()]

        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7, bias=bias), *rest(width)]
        for channels in (width, 2 * width):
            layers += [nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=bias), *rest(2 * channels)]
        layers += [ResidualBlock(4 * width, norm) for _ in range(blocks)]
        for channels in (4 * width, 2 * width):
            layers += [upsample(channels, channels // 2, bias, upsampling), *rest(channels // 2)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        refuse_smaller(image, SMALLEST, "translator")
        if any(side % MULTIPLE for side in image.shape[-2:]):
            height, width = image.shape[-2:]
            raise DataError(
                f"image of {height} x {width} pixels (height x width): a translator learns from sides that are "
                f"multiples of {MULTIPLE}; set the crops, data.source.augment.crop and data.target.augment.crop"
            )
        return self.model(image)


def upsample(channels: int, fewer: int, bias: bool, how: Upsampling) -> nn.Module:
    """(B, channels, h, w) -> (B, fewer, 2h, 2w)."""
    if how == "transposed":
        return nn.ConvTranspose2d(channels, fewer, 3, stride=2, padding=1, output_padding=1, bias=bias)
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(channels, fewer, 3, bias=bias))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the identity: (B, c, h, w) -> the same; no ReLU after the sum."""

    def __init__(self, channels: int, norm: Norm):
        super().__init__()
        normed, bias = NORMS[norm], norm == "instance"

        def convolution() -> Sequence[nn.Module]:
            return nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), normed(channels)

        self.conv_block = nn.Sequential(*convolution(), nn.ReLU(), *convolution())

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.conv_block(maps)


class PatchDiscriminator(nn.Module):
    """(B, 3, H, W) -> scores (B, 1, h, w), one for each patch of 70 x 70 pixels; sides of at least 24 pixels.

    width: channels of the first convolution (64 in the paper); the next ones have 2, 4 and 8 times as many.
    """

    def __init__(self, *, width: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for channels, wider, stride in ((width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 8 * width, 1)):
            convolution = nn.Conv2d(channels, wider, 4, stride=stride, padding=1)
            layers += [convolution, nn.InstanceNorm2d(wider), nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        refuse_smaller(image, SMALLEST_JUDGED, "patch discriminator")
        return self.model(image)


def init_weights(network: nn.Module) -> None:
    """Convolutions' weights from N(0, 0.02^2), their biases 0, as CycleGAN begins."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=DEVIATION)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def translated(generator: nn.Module, image: Tensor) -> Tensor:
    """RGB in [0, 1] -> the same in the generator's style, of any size of at least 8 pixels a side.

    A generator works on [-1, 1].
    """
    refuse_smaller(image, SMALLEST, "translator")
    return (at_any_size(generator, image * 2 - 1) + 1) / 2


def at_any_size(generator: nn.Module, image: Tensor) -> Tensor:
    """What a generator makes of an image whose sides may be no multiples of 4: what is missing to them is reflected
    below and on the right, and cut off again.
    """
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="reflect")
    return generator(padded)[..., :height, :width]
