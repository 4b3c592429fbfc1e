"""Decoders of the DeepLab line on any encoder: v2 with two dilations, and v3+.

Chen et al., PAMI 2018 and "Encoder-Decoder with Atrous Separable Convolution", ECCV 2018, as in DAFormer's comparisons:
the first has two of DeepLab-v2's four convolutions, the second is mmsegmentation's with separable convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segda.networks.decoders.daformer import block, classifier, dilated_branches, separated, upsample
from segda.networks.deeplab import Classifier
from segda.networks.dropout import ChannelDropout


class DilatedSum(nn.Module):
    """The sum of dilated 3x3 convolutions of the deepest map to classes: (B, c, h, w) -> logits (B, C, h, w)."""

    def __init__(self, inputs: Sequence[int], classes: int, *, dilations: Sequence[int]):
        super().__init__()
        self.classify = Classifier(inputs[-1], classes, dilations)
        for branch in self.classify.convolutions():
            if branch.bias is not None:
                nn.init.zeros_(branch.bias)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        return self.classify(levels[-1])


class DeepLabV3Plus(nn.Module):
    """Dilated branches and the mean of the deepest map, refined beside the finest: -> logits (B, C, h_0, w_0).

    fine: channels that the finest map is brought to. No batch norm, but biases.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        classes: int,
        *,
        channels: int,
        fine: int,
        dilations: Sequence[int],
        dropout: float,
    ):
        super().__init__()
        self.mean = block(nn.Conv2d(inputs[-1], channels, 1))
        self.branches = dilated_branches(inputs[-1], channels, dilations, separable=True, bias=True)
        self.fuse = block(nn.Conv2d((len(dilations) + 1) * channels, channels, 3, padding=1))
        self.fine = block(nn.Conv2d(inputs[0], fine, 1))
        self.refine = nn.Sequential(
            separated(channels + fine, channels, 1, bias=True), separated(channels, channels, 1, bias=True)
        )
        self.dropout = ChannelDropout(dropout)
        self.classify = classifier(channels, classes)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        finest, deepest = levels[0], levels[-1]
        # One cell to all of them: what bilinear upsampling of it is.
        mean = self.mean(deepest.mean((2, 3), keepdim=True)).expand(-1, -1, *deepest.shape[-2:])
        fused = self.fuse(torch.cat([mean, *(branch(deepest) for branch in self.branches)], dim=1))
        fused = upsample(fused, finest.shape[-2:])
        return self.classify(self.dropout(self.refine(torch.cat([fused, self.fine(finest)], dim=1))))
