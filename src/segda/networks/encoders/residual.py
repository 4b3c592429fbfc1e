"""Residual encoders of mmsegmentation: ResNet with a deep stem (v1c), ResNeXt and ResNeSt; and torchvision's ResNet.

The stages of the last are not dilated but smaller.

DAFormer compares them with Mix Transformers (Hoyer et al., CVPR 2022, sec. 5.1). Unlike the ResNets of DeepLab-v2 (see
resnet.py): a block's stride is that of its 3x3 convolution, the first block of a dilated stage has half the stage's
dilation, the max pooling rounds down, and batch norm is trained. `resnet101_deep` is PSPNet's as DANNet's authors have
it (W-zx-Y/DANNet, network/pspnet.py): 64, 64 and 128 channels in its stem, the pooling rounds up, the first block of a
stage has its whole dilation.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segda.networks.encoders.encoder import Encoder, Layer


@dataclass(frozen=True)
class ResidualSize:
    """One encoder.

    depths: blocks of the four stages. stem: channels of the first maps. deep: three 3x3 convolutions make them, not one
    7x7. widen: inner channels of a block for each of its planes. groups: of its 3x3 convolution. split: that
    convolution is two, and attention weighs them (ResNeSt); then pooling, not a stride, makes maps smaller. contracted:
    the first block of a dilated stage has half the stage's dilation. ceil: the max pooling rounds up. dilated: the last
    two stages are, in the place of a stride.
    """

    depths: tuple[int, int, int, int]
    stem: int
    deep: bool = True
    widen: int = 1
    groups: int = 1
    split: bool = False
    contracted: bool = True
    ceil: bool = False
    dilated: bool = True

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the four stages."""
        return (1, 2, 1, 1) if self.dilated else (1, 2, 2, 2)

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of the four stages."""
        return (1, 1, 2, 4) if self.dilated else (1, 1, 1, 1)

    @property
    def levels(self) -> tuple[int, ...]:
        """The strides of the four maps: the stem and its pooling have 4."""
        return tuple(4 * factor for factor in accumulate(self.strides, mul))


RESIDUALS: dict[str, ResidualSize] = {
    "resnet50_v1c": ResidualSize((3, 4, 6, 3), 64),
    "resnet101_v1c": ResidualSize((3, 4, 23, 3), 64),
    "resnet101_deep": ResidualSize((3, 4, 23, 3), 128, contracted=False, ceil=True),
    "resnext50_32x4d": ResidualSize((3, 4, 6, 3), 64, deep=False, widen=2, groups=32),
    "resnext101_32x4d": ResidualSize((3, 4, 23, 3), 64, deep=False, widen=2, groups=32),
    "resnest50": ResidualSize((3, 4, 6, 3), 64, split=True),
    "resnest101": ResidualSize((3, 4, 23, 3), 128, split=True),
    "resnest200": ResidualSize((3, 24, 36, 3), 128, split=True),
    "resnet101": ResidualSize((3, 4, 23, 3), 64, deep=False, dilated=False),
}

PLANES = (64, 128, 256, 512)
WIDER = 4
"""A block gives this many times its planes as channels."""

CHANNELS = tuple(WIDER * planes for planes in PLANES)

PARTS = 2
"""Of a split convolution: the radix."""

REDUCTION = 4
"""Channels of a split convolution for each that its attention is computed from, of which there are at least..."""

NARROWEST = 32


class Residual(Encoder):
    """(B, 3, H, W) normalised image -> four maps (B, channels[i], h, w) of its row's strides; h = ceil(H / stride)."""

    def __init__(self, name: str):
        super().__init__()
        row = RESIDUALS[name]
        self.name = name
        self.channels, self.ceil = CHANNELS, row.ceil
        self.stride = row.levels[-1]
        self.stem = deep_stem(row.stem) if row.deep else shallow_stem(row.stem)
        self.stages = nn.ModuleList()
        width = row.stem
        for planes, depth, stride, dilation in zip(PLANES, row.depths, row.strides, row.dilations, strict=True):
            # mmsegmentation's contract_dilation.
            first = max(1, dilation // 2) if row.contracted else dilation
            blocks = [Block(width, planes, row, stride, first, projected=True)]
            width = WIDER * planes
            blocks += [Block(width, planes, row, 1, dilation, projected=False) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(*blocks))
        init_weights(self)

    def blocks(self) -> list[nn.Module]:
        """The stem, whose maps are the largest, and all blocks, first to last."""
        return [self.stem, *(block for stage in self.stages for block in stage.children())]

    def layers(self) -> list[Layer]:
        return [[block] for block in self.blocks()]

    def forward(self, image: Tensor) -> list[Tensor]:
        cells = F.max_pool2d(self.stem(image), 3, stride=2, padding=1, ceil_mode=self.ceil)
        levels: list[Tensor] = []
        for stage in self.stages:
            levels.append(stage(levels[-1] if levels else cells))
        return levels


class Block(nn.Module):
    """1x1 to the inner channels, dilated 3x3, 1x1 to four times the planes, added to the input.

    (B, c, h, w) -> (B, 4 planes, h / stride, w / stride), rounded up. projected: the input passes a 1x1 convolution
    first, as it must where channels or size change.
    """

    def __init__(self, width: int, planes: int, row: ResidualSize, stride: int, dilation: int, *, projected: bool):
        super().__init__()
        inner = row.widen * planes
        self.split = row.split
        self.conv1 = nn.Conv2d(width, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2: nn.Module
        if row.split:
            self.conv2 = SplitAttention(inner, dilation)
            self.pool = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()
        else:
            self.conv2 = nn.Conv2d(inner, inner, 3, stride, dilation, dilation, groups=row.groups, bias=False)
            self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, WIDER * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(WIDER * planes)
        self.shortcut = nn.Sequential()
        if projected:
            # Cells beyond the border are not counted, so that odd sizes round up without growing dark.
            pooled = [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)] if row.split else []
            project = nn.Conv2d(width, WIDER * planes, 1, stride=1 if row.split else stride, bias=False)
            self.shortcut = nn.Sequential(*pooled, project, nn.BatchNorm2d(WIDER * planes))

    def forward(self, cells: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(cells)), inplace=True)
        inner = self.pool(self.conv2(inner)) if self.split else F.relu(self.bn2(self.conv2(inner)), inplace=True)
        change = self.bn3(self.conv3(inner))
        change = change + self.shortcut(cells)
        return F.relu(change, inplace=True)


class SplitAttention(nn.Module):
    """Two dilated 3x3 convolutions of a half of the channels each, mixed by weights that depend on the whole image.

    (B, c, h, w) -> (B, c, h, w). The weights are positive and sum to 1 over the two, for every channel (Zhang et al.,
    "ResNeSt", 2020, sec. 3.1, with one cardinal group).
    """

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        narrow = max(PARTS * channels // REDUCTION, NARROWEST)
        self.conv = nn.Conv2d(channels, PARTS * channels, 3, 1, dilation, dilation, groups=PARTS, bias=False)
        self.norm = nn.BatchNorm2d(PARTS * channels)
        self.squeeze = nn.Conv2d(channels, narrow, 1)
        self.squeeze_norm = nn.BatchNorm2d(narrow)
        self.excite = nn.Conv2d(narrow, PARTS * channels, 1)

    def forward(self, cells: Tensor) -> Tensor:
        parts = F.relu(self.norm(self.conv(cells)), inplace=True).unflatten(1, (PARTS, -1))  # (B, 2, c, h, w)
        # Batch norm divides the difference of a few images' means by itself: bfloat16 would round it away.
        with torch.autocast(cells.device.type, enabled=False):
            pooled = parts.sum(1).to(self.squeeze.weight.dtype).mean((2, 3), keepdim=True)
            weight = self.excite(F.relu(self.squeeze_norm(self.squeeze(pooled)), inplace=True)).to(parts.dtype)
        return (weight.unflatten(1, (PARTS, -1)).softmax(1) * parts).sum(1)


def deep_stem(channels: int) -> nn.Sequential:
    """Three 3x3 convolutions, the first with stride 2, the last alone with all channels."""
    half = channels // 2
    return nn.Sequential(
        *normed(nn.Conv2d(3, half, 3, 2, 1, bias=False)),
        *normed(nn.Conv2d(half, half, 3, 1, 1, bias=False)),
        *normed(nn.Conv2d(half, channels, 3, 1, 1, bias=False)),
    )


def shallow_stem(channels: int) -> nn.Sequential:
    """One 7x7 convolution with stride 2."""
    convolution, norm, relu = normed(nn.Conv2d(3, channels, 7, 2, 3, bias=False))
    return nn.Sequential(OrderedDict(conv1=convolution, bn1=norm, relu=relu))


def normed(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))


@torch.no_grad()
def init_weights(encoder: Residual) -> None:
    """mmsegmentation's start: convolutions Kaiming-normal over their fan-out, biases 0; the last batch norm of a block
    has weight 0, so that blocks begin as the identity.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, Block):
            nn.init.zeros_(module.bn3.weight)
