"""Decoders of DAFormer: the encoder's maps to logits at the resolution of the finest one.

All of them embed every level, bring it to stride 4 and fuse the stack (Hoyer et al., CVPR 2022, sec. 4.2 and table 6).
SepASPP, the paper's own, looks at it with convolutions of several dilations at once; Stacked fuses it in any other way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segda.networks.dropout import ChannelDropout


class SepASPP(nn.Module):
    """DAFormer's head: four maps (B, c_i, h_i, w_i) -> logits (B, C, h_0, w_0).

    embed: each level, linearly, to `channels`; then bilinear to the size of level 0, and stacked.
    branches: one a dilation, stack -> `channels`: dilation 1 is a 1x1 convolution, more is a depthwise 3x3
    followed by a 1x1. fuse: 3x3, all branches -> `channels`. These have batch norm and ReLU, and no bias.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        classes: int,
        *,
        channels: int,
        dilations: Sequence[int],
        dropout: float,
    ):
        super().__init__()
        stack = channels * len(inputs)
        self.embed = nn.ModuleList(nn.Linear(width, channels) for width in inputs)
        # The parts of an ASPP, here without a module around them: weights of trained networks go by these names.
        self.branches = dilated_branches(stack, channels, dilations, separable=True)
        self.fuse = block(nn.Conv2d(channels * len(dilations), channels, 3, padding=1, bias=False))
        self.dropout = ChannelDropout(dropout)
        self.classify = classifier(channels, classes)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        stack = stacked(embedded(self.embed, levels))
        fused = self.fuse(torch.cat([branch(stack) for branch in self.branches], dim=1))
        return self.classify(self.dropout(fused))


class Stacked(nn.Module):
    """DAFormer's head with another fusion: four maps (B, c_i, h_i, w_i) -> logits (B, C, h_0, w_0).

    fuse: makes the module (B, 4 channels, h_0, w_0) -> (B, channels, h_0, w_0) from its numbers of channels.
    deepest: makes one that embeds the last level in the place of a linear layer, (B, c_3, h_3, w_3) -> (B, channels,
    h_3, w_3).
    """

    def __init__(
        self,
        inputs: Sequence[int],
        classes: int,
        *,
        channels: int,
        fuse: Callable[[int, int], nn.Module],
        dropout: float,
        deepest: Callable[[int, int], nn.Module] | None = None,
    ):
        super().__init__()
        self.embed = nn.ModuleList(nn.Linear(width, channels) for width in (inputs[:-1] if deepest else inputs))
        self.deepest = deepest(inputs[-1], channels) if deepest else None
        self.fuse = fuse(channels * len(inputs), channels)
        self.dropout = ChannelDropout(dropout)
        self.classify = classifier(channels, classes)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        narrow = embedded(self.embed, levels[: len(self.embed)])
        if self.deepest is not None:
            narrow.append(self.deepest(levels[-1]))
        return self.classify(self.dropout(self.fuse(stacked(narrow))))


class ASPP(nn.Module):
    """Convolutions of several dilations side by side, and a 3x3 over all: (B, stack, h, w) -> (B, channels, h, w)."""

    def __init__(self, stack: int, channels: int, *, dilations: Sequence[int], separable: bool):
        super().__init__()
        self.branches = dilated_branches(stack, channels, dilations, separable=separable)
        self.fuse = block(nn.Conv2d(channels * len(dilations), channels, 3, padding=1, bias=False))

    def forward(self, stack: Tensor) -> Tensor:
        return self.fuse(torch.cat([branch(stack) for branch in self.branches], dim=1))


def bottleneck_aspp(width: int, channels: int, *, dilations: Sequence[int]) -> nn.Sequential:
    """A 1x1 convolution to `channels`, and a separable ASPP on them."""
    return nn.Sequential(nn.Conv2d(width, channels, 1), ASPP(channels, channels, dilations=dilations, separable=True))


def pointwise(stack: int, channels: int) -> nn.Sequential:
    """A 1x1 convolution with batch norm and ReLU."""
    return block(nn.Conv2d(stack, channels, 1, bias=False))


def dilated_branches(
    stack: int, channels: int, dilations: Sequence[int], *, separable: bool, bias: bool = False
) -> nn.ModuleList:
    """One convolution a dilation, stack -> channels: 1x1 for dilation 1, else a 3x3, which may be depthwise and a 1x1.

    With `bias` they have no batch norm.
    """
    return nn.ModuleList(
        block(nn.Conv2d(stack, channels, 1, bias=bias))
        if dilation == 1
        else separated(stack, channels, dilation, bias=bias)
        if separable
        else block(nn.Conv2d(stack, channels, 3, padding=dilation, dilation=dilation, bias=bias))
        for dilation in dilations
    )


def separated(width: int, channels: int, dilation: int, *, bias: bool = False) -> nn.Sequential:
    """A depthwise 3x3 convolution, then a 1x1, both with ReLU, and with batch norm unless they have a bias."""
    return nn.Sequential(
        block(DilatedDepthwise(width, dilation, bias=bias)), block(nn.Conv2d(width, channels, 1, bias=bias))
    )


class DilatedDepthwise(nn.Conv2d):
    """Depthwise 3x3 convolution, dilated, size kept: (B, c, h, w) -> (B, c, h, w).

    Computed as what it is: an ordinary depthwise convolution on each of the dilation^2 images that one gets
    by taking every dilation-th row and column (h and w filled up with zeros, which the padding is anyway).
    On CPUs this is several times faster, there and back, than the dilated operator, whose weight gradient
    besides is wrong in bfloat16 with channels-last memory (torch 2.13, maps of 64 x 80, not of 16 x 24).
    """

    def __init__(self, channels: int, dilation: int, *, bias: bool = False):
        super().__init__(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=bias)

    def forward(self, pixels: Tensor) -> Tensor:
        if torch.compiler.is_exporting():  # other runtimes have an operator of their own
            return super().forward(pixels)
        step = self.dilation[0]
        grid = Apart.apply(pixels.permute(0, 2, 3, 1), step).permute(0, 3, 1, 2)
        grid = F.conv2d(grid, self.weight, self.bias, padding=1, groups=self.in_channels)
        return Together.apply(grid.permute(0, 2, 3, 1), step, pixels.shape[-2:]).permute(0, 3, 1, 2)


class Apart(torch.autograd.Function):
    """Every step-th row and column as an image of its own: (B, H, W, c) -> (B step step, rows, columns, c).

    rows = ceil(H / step), columns = ceil(W / step); zeros where the image has ended. It and `Together`, its inverse,
    are each other's gradient. Written out, since padding, permuting and slicing move the maps twice as often.
    """

    @staticmethod
    def forward(ctx, pixels: Tensor, step: int) -> Tensor:
        ctx.step, ctx.size = step, pixels.shape[1:3]
        return taken_apart(pixels, step)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return put_together(gradient, ctx.step, ctx.size), None


class Together(torch.autograd.Function):
    """What `Apart` took apart: (B step step, rows, columns, c) -> (B, H, W, c), size (H, W); the rest is left out."""

    @staticmethod
    def forward(ctx, grid: Tensor, step: int, size: Sequence[int]) -> Tensor:
        ctx.step = step
        return put_together(grid, step, size)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return taken_apart(gradient, ctx.step), None, None


def taken_apart(pixels: Tensor, step: int) -> Tensor:
    batch, height, width, channels = pixels.shape
    grid = pixels.new_zeros(batch, step, step, -(-height // step), -(-width // step), channels)
    for whole, part in matching(pixels, grid, step):
        part.copy_(whole)
    return grid.flatten(0, 2)


def put_together(grid: Tensor, step: int, size: Sequence[int]) -> Tensor:
    grid = grid.unflatten(0, (-1, step, step))
    pixels = grid.new_empty(len(grid), *size, grid.shape[-1])
    for whole, part in matching(pixels, grid, step):
        whole.copy_(part)
    return pixels


def matching(pixels: Tensor, grid: Tensor, step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Views (B, i, j, rows, columns, c) of the same cells in both: of the whole squares of step x step pixels, and of
    those that the right and the lower border cut."""
    for i, y, rows in spans(pixels.shape[1], step):
        for j, x, columns in spans(pixels.shape[2], step):
            squares = pixels[:, y * step : y * step + rows * i, x * step : x * step + columns * j]
            squares = squares.unflatten(2, (columns, j)).unflatten(1, (rows, i))
            yield squares.permute(0, 2, 4, 1, 3, 5), grid[:, :i, :j, y : y + rows, x : x + columns]


def spans(side: int, step: int) -> Iterator[tuple[int, int, int]]:
    """Pixels of a square's side, the first square, the number of squares: the whole ones, then a last that is cut."""
    whole, rest = divmod(side, step)
    if whole:
        yield step, 0, whole
    if rest:
        yield rest, whole, 1


def embedded(embed: nn.ModuleList, levels: Sequence[Tensor]) -> list[Tensor]:
    """Every level through its linear layer, cell by cell."""
    if torch.compiler.is_exporting():
        # The same as convolutions: that cells fold back into a map of any size takes torch a minute to prove.
        pairs = zip((linear.get_parameter for linear in embed), levels, strict=True)
        return [F.conv2d(level, of("weight")[..., None, None], of("bias")) for of, level in pairs]
    # Linear on the last dimension, seen as channels again: from here on memory is channels-last, which is
    # what makes the convolutions fast on CPUs in bfloat16.
    return [linear(level.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for linear, level in zip(embed, levels, strict=True)]


def stacked(levels: Sequence[Tensor]) -> Tensor:
    """All levels at the size of the first, one above the other."""
    size = levels[0].shape[-2:]
    return torch.cat([levels[0], *(in_one_piece(upsample(level, size)) for level in levels[1:])], dim=1)


def in_one_piece(pixels: Tensor) -> Tensor:
    """The same, whose gradient is copied out of the one that it is a part of, as after `torch.cat`.

    torch 2.13's backward pass of bilinear upsampling takes fourteen times as long for a part of 1,024 channels in
    channels-last memory as for its copy (73 and 5 ms on one thread, 2 x 256 x 128 x 128 in bfloat16); both give the
    same bits.
    """
    if pixels.requires_grad and pixels.device.type == "cpu":
        pixels.register_hook(_copied_out)
    return pixels


def _copied_out(gradient: Tensor) -> Tensor:
    layout = torch.channels_last if gradient.stride(1) == 1 else torch.contiguous_format
    return gradient.contiguous(memory_format=layout)


def classifier(channels: int, classes: int) -> nn.Conv2d:
    """The last 1x1 convolution, started N(0, 0.01), its bias 0."""
    classify = nn.Conv2d(channels, classes, 1)
    nn.init.normal_(classify.weight, std=0.01)
    assert classify.bias is not None  # torch's own default
    nn.init.zeros_(classify.bias)
    return classify


def block(convolution: nn.Conv2d) -> nn.Sequential:
    """A convolution, started Kaiming-normal over its fan-out, then batch norm and ReLU.

    With a bias, which starts at 0, it has no batch norm (mmcv's rule: one of the two).
    """
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
        return nn.Sequential(convolution, nn.ReLU(inplace=True))
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))


def upsample(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear to `size`, corners not aligned: (B, C, h, w) -> (B, C, *size)."""
    return F.interpolate(pixels, tuple(size), mode="bilinear", align_corners=False)
