"""ViT-Adapter: four maps of a plain vision transformer (Chen et al., ICLR 2023), as VFM-UDA++ has it.

A small convolutional network sees the image too. Before each quarter of the blocks its maps are looked at by the
patches, after it they look at the patches. As in the authors' code (tue-mps/vfm-uda-plusplus `dinov2_vit_adapter.py`,
`adapter_modules.py`) the layer norms here have eps 1e-5, the transformer's own blocks keep theirs, and its last norm is
not used. Deformable attention is written with `grid_sample`: it needs no compiler, and equals theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segda.errors import RecipeError
from segda.networks.decoders.daformer import upsample
from segda.networks.decoders.vfm import SLOW
from segda.networks.encoders.dino import ViT, as_map

QUARTERS = 4
HEAD = 64
"""Channels of a head."""
POINTS = 4
"""Places that a head looks at on each map."""
STEM = 64

Size = tuple[int, int]


class ViTAdapter(nn.Module):
    """The parts around an encoder's blocks.

    (B, 3, H, W) normalised image of whole patches -> four maps of the encoder's channels, of strides 4, 8, 16 and 32,
    rounded up.
    """

    def __init__(self, encoder: ViT):
        super().__init__()
        (width,) = encoder.channels
        if width % HEAD or len(encoder.layer) % QUARTERS:
            raise RecipeError(
                f"network.decoder: the adapter needs multiples of {HEAD} channels and {QUARTERS} blocks; encoder "
                f"{encoder.name} has {width} and {len(encoder.layer)}"
            )
        self.channels = (width,) * 4
        self.stem = nn.Sequential(
            *convolved(3, STEM, 2), *convolved(STEM, STEM, 1), *convolved(STEM, STEM, 1), nn.MaxPool2d(3, 2, 1)
        )
        widths = (STEM, 2 * STEM, 4 * STEM, 4 * STEM)
        self.down = nn.ModuleList(nn.Sequential(*convolved(fine, coarse, 2)) for fine, coarse in pairwise(widths))
        self.project = nn.ModuleList(nn.Conv2d(one, width, 1) for one in widths)
        self.level = nn.Parameter(torch.empty(3, width))
        self.inject = nn.ModuleList(Injector(width) for _ in range(QUARTERS))
        self.extract = nn.ModuleList(Extractor(width) for _ in range(QUARTERS + 2))
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.norm = nn.ModuleList(nn.BatchNorm2d(width, momentum=SLOW) for _ in self.channels)
        start(self)

    def forward(self, encoder: ViT, image: Tensor) -> list[Tensor]:
        tokens = encoder.embedded(image)
        grid = (tokens.rows, tokens.columns)
        before, patches = tokens.every.tensor_split([encoder.prefix], 1)
        finest, *levels = self.prior(image)
        sizes: list[Size] = [(level.shape[-2], level.shape[-1]) for level in levels]
        around = torch.cat([flat(level) + mark for level, mark in zip(levels, self.level, strict=True)], 1)
        here, there = centres([grid], image.device), centres(sizes, image.device)
        quarter = len(encoder.layer) // QUARTERS
        seen = []
        for k, inject in enumerate(self.inject):
            every = torch.cat([before, inject(patches, here, around, sizes)], 1)
            every = encoder.through(range(k * quarter, (k + 1) * quarter), every, tokens)
            before, patches = every.tensor_split([encoder.prefix], 1)
            for extract in self.extract[k : k + 1] if k < QUARTERS - 1 else self.extract[k:]:
                around = extract(around, there, patches, grid, sizes)
            seen.append(as_map(patches, *grid))
        counts = [rows * columns for rows, columns in sizes]
        coarse = [as_map(cells, *size) for cells, size in zip(around.split(counts, 1), sizes, strict=True)]
        height, width = finest.shape[-2:]
        maps = [self.up(coarse[0])[..., :height, :width] + finest, *coarse]
        return [
            norm(level + upsample(patches, level.shape[-2:]))
            for norm, level, patches in zip(self.norm, maps, seen, strict=True)
        ]

    def prior(self, image: Tensor) -> list[Tensor]:
        """What the convolutions say, finest first."""
        maps = [self.stem(image)]
        for down in self.down:
            maps.append(down(maps[-1]))
        return [project(level) for project, level in zip(self.project, maps, strict=True)]

    def blocks(self) -> list[nn.Module]:
        """What holds most of its maps."""
        return [self.stem, *self.inject, *self.extract]


class Injector(nn.Module):
    """patches (B, n, c) + gamma * what they see of the maps; gamma starts at 0."""

    def __init__(self, width: int):
        super().__init__()
        self.query_norm, self.feat_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = DeformableAttention(width, levels=3)
        self.gamma = nn.Parameter(torch.zeros(width))

    def forward(self, patches: Tensor, here: Tensor, around: Tensor, sizes: Sequence[Size]) -> Tensor:
        return patches + self.gamma * self.attn(self.query_norm(patches), here, self.feat_norm(around), sizes)


class Extractor(nn.Module):
    """maps (B, m, c) + what they see of the patches; then + an MLP with a 3x3 convolution on each map."""

    def __init__(self, width: int):
        super().__init__()
        self.query_norm, self.feat_norm, self.ffn_norm = (nn.LayerNorm(width) for _ in range(3))
        self.attn = DeformableAttention(width, levels=1)
        inner = width // 4
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)

    def forward(self, around: Tensor, there: Tensor, patches: Tensor, grid: Size, sizes: Sequence[Size]) -> Tensor:
        around = around + self.attn(self.query_norm(around), there, self.feat_norm(patches), [grid])
        inner = self.fc1(self.ffn_norm(around)).split([rows * columns for rows, columns in sizes], 1)
        smoothed = [flat(self.depthwise(as_map(cells, *size))) for cells, size in zip(inner, sizes, strict=True)]
        return around + self.fc2(F.gelu(torch.cat(smoothed, 1)))


class DeformableAttention(nn.Module):
    """Each query looks at POINTS places of each map, around its own place (Zhu et al., Deformable DETR, ICLR 2021).

    queries (B, n, c) at places (n, 2), x and y in [0, 1]; values (B, m, c), the cells of maps of `sizes`, one map after
    the other -> (B, n, c). A place is bilinear between cells; outside a map there is 0.
    """

    def __init__(self, width: int, levels: int):
        super().__init__()
        self.heads, self.levels = width // HEAD, levels
        looks = self.heads * levels * POINTS
        self.sampling_offsets = nn.Linear(width, 2 * looks)
        self.attention_weights = nn.Linear(width, looks)
        self.value_proj = nn.Linear(width, width // 2)
        self.output_proj = nn.Linear(width // 2, width)

    def forward(self, queries: Tensor, places: Tensor, values: Tensor, sizes: Sequence[Size]) -> Tensor:
        batch, count = queries.shape[:2]
        shape = (self.heads, self.levels, POINTS)
        weight = self.attention_weights(queries).float().unflatten(2, (self.heads, -1)).softmax(3)
        weight = weight.unflatten(3, shape[1:]).transpose(1, 2)  # (B, heads, n, levels, points)
        # In cells of the map; places are too coarse in bfloat16.
        offsets = self.sampling_offsets(queries).float().unflatten(2, (*shape, 2)).transpose(1, 2)
        cells = self.value_proj(values).float().unflatten(2, (self.heads, -1)).permute(0, 2, 3, 1)
        found: Tensor | None = None
        for level, (size, one) in enumerate(
            zip(sizes, cells.split([rows * columns for rows, columns in sizes], 3), strict=True)
        ):
            rows, columns = size
            along, down = offsets[:, :, :, level].unbind(-1)
            where = places[:, None] + torch.stack([along / columns, down / rows], -1)
            looked = F.grid_sample(
                one.unflatten(3, size).flatten(0, 1), 2 * where.flatten(0, 1) - 1, mode="bilinear", align_corners=False
            )  # (B heads, width of a head, n, points)
            part = (looked.unflatten(0, (batch, self.heads)) * weight[:, :, None, :, level]).sum(4)
            found = part if found is None else found + part
        assert found is not None
        return self.output_proj(found.flatten(1, 2).transpose(1, 2).to(queries.dtype).reshape(batch, count, -1))


def centres(sizes: Sequence[Size], device: torch.device) -> Tensor:
    """(n, 2) x and y in [0, 1] of all cells of maps, row by row, one map after the other."""
    found = []
    for rows, columns in sizes:
        down = (torch.arange(rows, device=device) + 0.5) / rows
        along = (torch.arange(columns, device=device) + 0.5) / columns
        found.append(torch.stack([along.expand(rows, -1), down[:, None].expand(-1, columns)], 2).flatten(0, 1))
    return torch.cat(found)


def flat(level: Tensor) -> Tensor:
    """(B, c, h, w) -> (B, h w, c)."""
    return level.flatten(2).transpose(1, 2)


def convolved(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    norm = nn.BatchNorm2d(outputs, momentum=SLOW)
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), norm, nn.ReLU(inplace=True)]


@torch.no_grad()
def start(adapter: nn.Module) -> None:
    """The authors' start: linear N(0, 0.02), convolutions N(0, sqrt(2 / fan_out)), biases 0, the marks of the levels
    N(0, 1). A head looks along one direction, its points 1 to 4 cells away (`ms_deform_attn.py:63-81`).
    """
    for module in adapter.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, ViTAdapter):
            nn.init.normal_(module.level)
    for module in adapter.modules():
        if isinstance(module, DeformableAttention):
            turn = torch.arange(module.heads) * (2 * math.pi / module.heads)
            along = torch.stack([turn.cos(), turn.sin()], 1)
            along = along / along.abs().amax(1, keepdim=True)
            steps = torch.arange(1, POINTS + 1)[:, None] * along[:, None, None]  # (heads, 1, points, 2)
            nn.init.zeros_(module.sampling_offsets.weight)
            module.sampling_offsets.bias.copy_(steps.expand(-1, module.levels, -1, -1).flatten())
            nn.init.zeros_(module.attention_weights.weight)
            nn.init.xavier_uniform_(module.value_proj.weight)
            nn.init.xavier_uniform_(module.output_proj.weight)
