"""Dilated ResNets of the DeepLab-v2 line: a step of 8 pixels in the last three stages (Chen et al., PAMI 2018).

As in AdaptSegNet's and ADVENT's code, which goes back to Caffe's models, and unlike torchvision's:

- a block's stride is that of its first 1x1 convolution, not of the 3x3;
- the max pooling rounds up: 512 pixels become 129 cells of stride 4 and 65 of stride 8;
- all blocks of a stage have its dilation, the first one too;
- batch norm's weights and biases are never trained. Its statistics are live all the same: in training each image
  is normalised by its own, and the running ones follow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segda.networks.encoders.encoder import Encoder, Layer


@dataclass(frozen=True)
class ResNetSize:
    """One size of ResNet: channels of the stem, inner channels (a quarter of the outer) and blocks of four stages."""

    stem: int
    planes: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


RESNETS: dict[str, ResNetSize] = {
    "small": ResNetSize(32, (16, 32, 64, 128), (2, 2, 2, 2)),  # ours, for tests and training from scratch on two cores
    "50": ResNetSize(64, (64, 128, 256, 512), (3, 4, 6, 3)),
    "101": ResNetSize(64, (64, 128, 256, 512), (3, 4, 23, 3)),
}

STRIDES = (1, 2, 1, 1)
DILATIONS = (1, 1, 2, 4)
WIDER = 4
"""A block gives this many times its inner channels."""


class ResNet(Encoder):
    """(B, 3, H, W) normalised image -> four maps (B, channels[i], h, w) of strides 4, 8, 8, 8.

    h = ceil((ceil(H / 2) + 1) / 2), rounded up, at stride 4, and half of that, rounded up, at stride 8.
    """

    stride = 8

    def __init__(self, name: str):
        super().__init__()
        row = RESNETS[name]
        self.name = name
        self.channels = tuple(WIDER * planes for planes in row.planes)
        self.conv1 = nn.Conv2d(3, row.stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = frozen_norm(row.stem)
        self.stages = nn.ModuleList()
        width = row.stem
        for planes, depth, stride, dilation in zip(row.planes, row.depths, STRIDES, DILATIONS, strict=True):
            blocks = [Bottleneck(width, planes, stride, dilation)]
            width = WIDER * planes
            blocks += [Bottleneck(width, planes, 1, dilation, projected=False) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(*blocks))
        init_weights(self)

    def blocks(self) -> list[nn.Module]:
        """All blocks, first to last."""
        return [block for stage in self.stages for block in stage.children()]

    def layers(self) -> list[Layer]:
        return [[self.conv1, self.bn1], *([block] for block in self.blocks())]

    def forward(self, image: Tensor) -> list[Tensor]:
        cells = F.relu(self.bn1(self.conv1(image)), inplace=True)
        cells = F.max_pool2d(cells, 3, stride=2, padding=1, ceil_mode=True)
        levels: list[Tensor] = []
        for stage in self.stages:
            levels.append(stage(levels[-1] if levels else cells))
        return levels


class Bottleneck(nn.Module):
    """1x1 to `planes` channels, dilated 3x3, 1x1 to four times as many, added to the input.

    (B, c, h, w) -> (B, 4 planes, h / stride, w / stride), rounded up. projected: the input passes a 1x1 convolution
    of the same stride first, as it must where channels or size change.
    """

    def __init__(self, width: int, planes: int, stride: int, dilation: int, *, projected: bool = True):
        super().__init__()
        self.conv1 = nn.Conv2d(width, planes, 1, stride=stride, bias=False)
        self.bn1 = frozen_norm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = frozen_norm(planes)
        self.conv3 = nn.Conv2d(planes, WIDER * planes, 1, bias=False)
        self.bn3 = frozen_norm(WIDER * planes)
        self.shortcut = nn.Sequential()
        if projected:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width, WIDER * planes, 1, stride=stride, bias=False), frozen_norm(WIDER * planes)
            )

    def forward(self, cells: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(cells)), inplace=True)
        inner = F.relu(self.bn2(self.conv2(inner)), inplace=True)
        change = self.bn3(self.conv3(inner))
        change += self.shortcut(cells)
        return F.relu(change, inplace=True)


def frozen_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm whose weight and bias are not trained; its statistics are live as ever."""
    norm = nn.BatchNorm2d(channels)
    for parameter in norm.parameters():
        parameter.requires_grad_(False)
    return norm


@torch.no_grad()
def init_weights(module: nn.Module) -> None:
    """The authors' start: every convolution's weight N(0, 0.01); biases and batch norm as torch starts them."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=0.01)
