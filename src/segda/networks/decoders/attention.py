"""Decoders that compare cells with one another: DANet and interlaced sparse self-attention (ISANet).

Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019; Huang et al., "Interlaced Sparse Self-Attention
for Semantic Segmentation", 2019; both as mmsegmentation 0.16 has them, in DAFormer's comparisons without batch norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segda.networks.decoders.daformer import block, classifier
from segda.networks.dropout import ChannelDropout


class DANet(nn.Module):
    """Attention over places and over channels, side by side: the deepest map (B, c, h, w) -> logits (B, C, h, w).

    Its main head looks at the sum of both; in training each has a head of its own besides, `pam` (places) and `cam`
    (channels). inner: channels of the keys and queries of places.
    """

    def __init__(self, inputs: Sequence[int], classes: int, *, channels: int, inner: int, dropout: float):
        super().__init__()
        before = {name: block(nn.Conv2d(inputs[-1], channels, 3, padding=1)) for name in ("pam", "cam")}
        after = {name: block(nn.Conv2d(channels, channels, 3, padding=1)) for name in ("pam", "cam")}
        self.before, self.after = nn.ModuleDict(before), nn.ModuleDict(after)
        self.attend = nn.ModuleDict({"pam": PlaceAttention(channels, inner), "cam": ChannelAttention()})
        self.dropout = ChannelDropout(dropout)
        self.classify = nn.ModuleDict(
            {
                "main": classifier(channels, classes),
                # These two start as torch starts a convolution [code, da_head.py].
                "pam": nn.Conv2d(channels, classes, 1),
                "cam": nn.Conv2d(channels, classes, 1),
            }
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        return self.classify["main"](self.dropout(sum(self.maps(levels).values())))

    def each(self, levels: Sequence[Tensor]) -> dict[str, Tensor]:
        """The logits of all three heads."""
        maps = self.maps(levels)
        maps = {"main": maps["pam"] + maps["cam"], **maps}
        return {name: self.classify[name](self.dropout(cells)) for name, cells in maps.items()}

    def maps(self, levels: Sequence[Tensor]) -> dict[str, Tensor]:
        return {name: self.after[name](self.attend[name](self.before[name](levels[-1]))) for name in ("pam", "cam")}


class PlaceAttention(nn.Module):
    """x + gamma * (every cell the mean of all, weighted by softmax of q . k, not scaled); gamma is learnt, from 0."""

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = Scale()

    def forward(self, cells: Tensor) -> Tensor:
        context = attention(self.query(cells), self.key(cells), self.value(cells), scale=1.0)
        return cells + self.gamma(context)


class ChannelAttention(nn.Module):
    """x + gamma * (every channel the mean of all, weighted by softmax of max(x x^T) - x x^T); gamma is learnt, from 0.

    In float32 also under autocast: the products are sums over all cells, of hundreds, and softmax takes differences.
    """

    def __init__(self):
        super().__init__()
        self.gamma = Scale()

    def forward(self, cells: Tensor) -> Tensor:
        with torch.autocast(cells.device.type, enabled=False):
            rows = cells.flatten(2).to(self.gamma.scale.dtype)  # (B, c, h w)
            energy = rows @ rows.transpose(1, 2)
            weight = (energy.amax(-1, keepdim=True) - energy).softmax(-1)
            return cells + self.gamma((weight @ rows).unflatten(2, cells.shape[-2:]))


class Scale(nn.Module):
    """Times a number that is learnt, from 0."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.0))

    def forward(self, cells: Tensor) -> Tensor:
        return self.scale * cells


class ISANet(nn.Module):
    """The deepest map, and what interlaced attention makes of it: (B, c, h, w) -> logits (B, C, h, w)."""

    def __init__(self, inputs: Sequence[int], classes: int, *, channels: int, inner: int, side: int, dropout: float):
        super().__init__()
        self.before = block(nn.Conv2d(inputs[-1], channels, 3, padding=1))
        self.attend = Interlaced(channels, inner, side=side, depth=2, bias=True)
        self.after = block(nn.Conv2d(2 * channels, channels, 1))
        self.dropout = ChannelDropout(dropout)
        self.classify = classifier(channels, classes)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        cells = self.before(levels[-1])
        return self.classify(self.dropout(self.after(torch.cat([self.attend(cells), cells], dim=1))))


class ISAFusion(nn.Module):
    """DAFormer's fusion by interlaced attention: (B, stack, h, w) -> (B, channels, h, w)."""

    def __init__(self, stack: int, channels: int, *, side: int):
        super().__init__()
        self.before = block(nn.Conv2d(stack, channels, 1, bias=False))
        self.attend = Interlaced(channels, channels, side=side, depth=1, bias=False)

    def forward(self, stack: Tensor) -> Tensor:
        return self.attend(self.before(stack))


class Interlaced(nn.Module):
    """Attention among far cells, then among near ones: (B, c, h, w) -> (B, c, h, w).

    The map, filled up with zeros on all sides to multiples of `side`, is cut into squares of side x side cells. Cells
    of the same place in their squares see each other first, then the cells of each square.
    """

    def __init__(self, channels: int, inner: int, *, side: int, depth: int, bias: bool):
        super().__init__()
        self.side = side
        self.far = Relation(channels, inner, depth=depth, bias=bias)
        self.near = Relation(channels, inner, depth=depth, bias=bias)

    def forward(self, cells: Tensor) -> Tensor:
        side, (batch, channels, height, width) = self.side, cells.shape
        # Rounded up without a negative number, which ONNX divides towards zero.
        rows, columns = (height + side - 1) // side, (width + side - 1) // side
        top, left = (rows * side - height) // 2, (columns * side - width) // 2
        below, right = rows * side - height - top, columns * side - width - left
        grid = F.pad(cells, (left, right, top, below)).reshape(batch, channels, rows, side, columns, side)
        far = grid.permute(0, 3, 5, 1, 2, 4).flatten(0, 2)  # (B side side, c, rows, columns)
        grid = self.far(far).unflatten(0, (batch, side, side))
        near = grid.permute(0, 4, 5, 3, 1, 2).flatten(0, 2)  # (B rows columns, c, side, side)
        grid = self.near(near).unflatten(0, (batch, rows, columns))
        grid = grid.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, rows * side, columns * side)
        return grid[..., top : top + height, left : left + width]


class Relation(nn.Module):
    """Self-attention of one head over all cells of a map, without the map itself: (B, c, h, w) -> (B, c, h, w).

    inner: channels of keys and queries, which pass `depth` 1x1 convolutions; products over sqrt(inner).
    """

    def __init__(self, channels: int, inner: int, *, depth: int, bias: bool):
        super().__init__()
        widths = [channels, *[inner] * depth]
        self.key, self.query = (
            nn.Sequential(*(block(nn.Conv2d(one, two, 1, bias=bias)) for one, two in pairwise(widths)))
            for _ in range(2)
        )
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = block(nn.Conv2d(channels, channels, 1, bias=bias))
        self.scale = inner**-0.5

    def forward(self, cells: Tensor) -> Tensor:
        return self.out(attention(self.query(cells), self.key(cells), self.value(cells), scale=self.scale))


def attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
    """softmax(scale q . k) v over all cells: (B, d, h, w) twice, (B, c, h, w) -> (B, c, h, w)."""
    q, k, v = (one.flatten(2).transpose(1, 2)[:, None] for one in (query, key, value))  # one head: ONNX wants them
    attended = F.scaled_dot_product_attention(q, k, v, scale=scale)[:, 0]
    return attended.transpose(1, 2).unflatten(2, value.shape[-2:])
