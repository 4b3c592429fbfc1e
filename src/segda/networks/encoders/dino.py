"""DINOv2 and DINOv3: vision transformers and ConvNeXts that learnt from images alone (Oquab et al., TMLR 2024; Simeoni
et al., 2025). The blocks are those of `transformers`; where it parts from the authors' code we follow that:

- DINOv2 without registers enlarges its grid of positions by a scale of (cells + 0.1) / 37, those with registers by the
  size, smoothing what they shrink (facebookresearch/dinov2 `vision_transformer.py`); the library asks for the size both
  times, which gives other positions;
- DINOv3 stretches its coordinates at random while it pretrains; the library does so in every training. Here they stay.

The random start is a function of torch's global seed alone: weights N(0, 0.02), cut at two deviations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segda.networks.encoders.encoder import Encoder, Layer
from segda.networks.encoders.tuning import RefiningTokens, low_rank


@dataclass(frozen=True)
class ViTSize:
    """One vision transformer: channels, blocks, attention heads, tokens besides the class's that belong to no patch.

    positions: cells a side of DINOv2's learnt grid. gated: whether its MLP is SwiGLU.
    """

    width: int
    depth: int
    heads: int
    registers: int = 0
    positions: int = 37
    gated: bool = False


DINOV2S: dict[str, ViTSize] = {
    "dinov2_tiny": ViTSize(64, 4, 1, positions=8),  # ours, for tests and demonstrations
    "dinov2_s": ViTSize(384, 12, 6),
    "dinov2_b": ViTSize(768, 12, 12),
    "dinov2_l": ViTSize(1024, 24, 16),
    "dinov2_tiny_reg": ViTSize(64, 4, 1, registers=2, positions=8),  # ours
    "dinov2_s_reg": ViTSize(384, 12, 6, registers=4),
    "dinov2_b_reg": ViTSize(768, 12, 12, registers=4),
    "dinov2_l_reg": ViTSize(1024, 24, 16, registers=4),
}

DINOV3S: dict[str, ViTSize] = {
    "dinov3_tiny": ViTSize(64, 4, 1, registers=2, gated=True),  # ours
    "dinov3_s_plus": ViTSize(384, 12, 6, registers=4, gated=True),
    "dinov3_b": ViTSize(768, 12, 12, registers=4),
    "dinov3_l": ViTSize(1024, 24, 16, registers=4),
}


@dataclass(frozen=True)
class ConvNeXtSize:
    """One ConvNeXt: channels and blocks of its four stages."""

    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


CONVNEXTS: dict[str, ConvNeXtSize] = {
    "dinov3_convnext_micro": ConvNeXtSize((16, 24, 32, 48), (1, 1, 2, 1)),  # ours
    "dinov3_convnext_tiny": ConvNeXtSize((96, 192, 384, 768), (3, 3, 9, 3)),
    "dinov3_convnext_small": ConvNeXtSize((96, 192, 384, 768), (3, 3, 27, 3)),
    "dinov3_convnext_base": ConvNeXtSize((128, 256, 512, 1024), (3, 3, 27, 3)),
    "dinov3_convnext_large": ConvNeXtSize((192, 384, 768, 1536), (3, 3, 27, 3)),
}

PATCH_V2, PATCH_V3 = 14, 16
WIDER = 4
"""An MLP has so many times the channels."""


class Tokens(NamedTuple):
    """What goes from block to block.

    every: (B, prefix + h w, c), the patches row by row after the class token and the registers. rows, columns: h, w.
    beside: what each block takes besides.
    """

    every: Tensor
    rows: int
    columns: int
    beside: dict[str, Any]


class ViT(Encoder):
    """(B, 3, H, W) normalised image of whole patches -> one map (B, width, H / patch, W / patch).

    The map is the layer-normalised end of all blocks, of the patches alone.
    hidden: (B, h, w) bool: the patches that the model's mask token replaces, before they have a position.
    """

    patch: int
    embeddings: nn.Module
    layer: nn.ModuleList
    norm: nn.Module

    def __init__(self, name: str, size: ViTSize):
        super().__init__()
        self.tuning: RefiningTokens | None = None
        self.name, self.size = name, size
        self.channels, self.stride = (size.width,), self.patch
        self.prefix = 1 + size.registers
        """Tokens before those of the patches."""

    def blocks(self) -> list[nn.Module]:
        """All blocks, first to last."""
        return list(self.layer)

    def layers(self) -> list[Layer]:
        *first, last = ([block] for block in self.layer)
        return [[self.embeddings], *first, [*last, self.norm]]

    def forward(self, image: Tensor, hidden: Tensor | None = None) -> list[Tensor]:
        tokens = self.embedded(image, hidden)
        every = self.through(range(len(self.layer)), tokens.every, tokens)
        return [as_map(self.norm(every)[:, self.prefix :], tokens.rows, tokens.columns)]

    def through(self, blocks: range, every: Tensor, tokens: Tokens) -> Tensor:
        """What comes out of some blocks, one after the other."""
        for k in blocks:
            every = self.layer[k](every, **tokens.beside)
            if self.tuning is not None:
                every = self.tuning(every, self.prefix, k)
        return every

    def tune(self, *, tokens: int | None, rank: int) -> None:
        """Freezes all of it and gives it what learns: tokens after each block, or without them low-rank changes."""
        self.freeze(True)
        if tokens is None:
            low_rank(self.blocks(), rank)
        else:
            self.tuning = RefiningTokens(len(self.layer), self.size.width, self.patch, count=tokens, rank=rank)

    def embedded(self, image: Tensor, hidden: Tensor | None = None) -> Tokens:
        """What goes into the first block."""
        rows, columns = (side // self.patch for side in image.shape[-2:])
        cells = self.patches(image)
        token = dict(self.embeddings.named_parameters(recurse=False)).get("mask_token")
        if hidden is not None:
            assert token is not None, "it has been cut"
            cells = torch.where(hidden.flatten(1)[..., None], token.to(cells.dtype), cells)
        elif token is not None and token.requires_grad and self.training:
            # It learns from the passes that hide patches; in a step without one its gradient is 0, not missing.
            cells = cells + 0 * token
        others = [self.embeddings.get_parameter("cls_token")]
        if self.size.registers:
            others.append(self.embeddings.get_parameter("register_tokens"))
        return self.placed(cells, [one.expand(image.shape[0], -1, -1) for one in others], rows, columns, image)

    def cut(self) -> None:
        """Drops what `forward` alone uses, for a network that goes through the blocks itself: last norm, mask token."""
        self.norm = nn.Identity()
        del self.embeddings.mask_token

    def patches(self, image: Tensor) -> Tensor:
        """(B, h w, width)"""
        raise NotImplementedError

    def placed(self, cells: Tensor, others: Sequence[Tensor], rows: int, columns: int, image: Tensor) -> Tokens:
        """The tokens, knowing where they are."""
        raise NotImplementedError


class DINOv2(ViT):
    patch = PATCH_V2

    def __init__(self, name: str):
        super().__init__(name, DINOV2S[name])
        from transformers.initialization import no_init_weights

        model: Any
        with no_init_weights():
            # Costs seconds, and is not needed to name what exists.
            if self.size.registers:
                from transformers.models.dinov2_with_registers import modeling_dinov2_with_registers as registers

                settings = self.settings(num_register_tokens=self.size.registers)
                model = registers.Dinov2WithRegistersModel(registers.Dinov2WithRegistersConfig(**settings))
            else:
                from transformers.models.dinov2 import modeling_dinov2 as plain

                model = plain.Dinov2Model(plain.Dinov2Config(**self.settings()))
        self.embeddings, self.layer, self.norm = model.embeddings, model.encoder.layer, model.layernorm
        self.train()
        start(self)

    @property
    def any_size(self) -> bool:  # type: ignore[override]  # a constant of the others
        """Not without registers: no format has the authors' scale of positions, which is not that of the sizes."""
        return bool(self.size.registers)

    def settings(self, **others: Any) -> dict[str, Any]:
        size = self.size
        return {
            "hidden_size": size.width, "num_hidden_layers": size.depth, "num_attention_heads": size.heads,
            "mlp_ratio": WIDER, "patch_size": PATCH_V2, "image_size": size.positions * PATCH_V2,
            "layer_norm_eps": 1e-6, "attn_implementation": "sdpa", **others,
        }  # fmt: skip

    def patches(self, image: Tensor) -> Tensor:
        return self.embeddings.get_submodule("patch_embeddings")(image)

    def placed(self, cells: Tensor, others: Sequence[Tensor], rows: int, columns: int, image: Tensor) -> Tokens:
        positions = self.embeddings.get_parameter("position_embeddings").float()
        first, *registers = others
        cells = cells + self.resampled(positions[:, 1:], rows, columns)
        return Tokens(torch.cat([first + positions[:, :1], *registers, cells], 1), rows, columns, {})

    def resampled(self, positions: Tensor, rows: int, columns: int) -> Tensor:
        """The learnt positions (1, side x side, c) at another grid, (1, rows x columns, c)."""
        side = self.size.positions
        if rows == columns == side:
            return positions
        grid = positions.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        if self.size.registers:
            grid = F.interpolate(grid, (rows, columns), mode="bicubic", antialias=True)
        else:
            scale = ((rows + 0.1) / side, (columns + 0.1) / side)
            grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        return grid.flatten(2).transpose(1, 2)


class DINOv3(ViT):
    patch = PATCH_V3

    def __init__(self, name: str):
        super().__init__(name, DINOV3S[name])
        from transformers.initialization import no_init_weights
        from transformers.models.dinov3_vit.configuration_dinov3_vit import DINOv3ViTConfig
        from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTModel

        size = self.size
        config = DINOv3ViTConfig(  # type: ignore[call-arg]  # of all models, and so in the library's `**kwargs`
            hidden_size=size.width,
            num_hidden_layers=size.depth,
            num_attention_heads=size.heads,
            intermediate_size=WIDER * size.width,
            patch_size=PATCH_V3,
            num_register_tokens=size.registers,
            use_gated_mlp=size.gated,
            hidden_act="silu" if size.gated else "gelu",
            layer_norm_eps=1e-5,
            pos_embed_rescale=None,
            attn_implementation="sdpa",
        )
        with no_init_weights():
            model = DINOv3ViTModel(config)
        self.embeddings, self.layer, self.norm = model.embeddings, model.model.layer, model.norm
        self.rotation = model.rope_embeddings
        self.train()
        start(self)

    def patches(self, image: Tensor) -> Tensor:
        return self.embeddings.get_submodule("patch_embeddings")(image).flatten(2).transpose(1, 2)

    def placed(self, cells: Tensor, others: Sequence[Tensor], rows: int, columns: int, image: Tensor) -> Tokens:
        every = torch.cat([*(one.to(cells.dtype) for one in others), cells], 1)
        return Tokens(every, rows, columns, {"position_embeddings": self.rotation(image)})


class ConvNeXt(Encoder):
    """(B, 3, H, W) normalised image, sides multiples of 32 -> four maps (B, channels[i], h, w) of strides 4, 8, 16, 32.

    The last map is layer-normalised, the others are not, as the authors give them (`get_intermediate_layers`).
    """

    stride = 32

    def __init__(self, name: str):
        super().__init__()
        from transformers.initialization import no_init_weights
        from transformers.models.dinov3_convnext.configuration_dinov3_convnext import DINOv3ConvNextConfig
        from transformers.models.dinov3_convnext.modeling_dinov3_convnext import DINOv3ConvNextModel

        row = CONVNEXTS[name]
        self.name, self.channels = name, row.channels
        config = DINOv3ConvNextConfig(hidden_sizes=list(row.channels), depths=list(row.depths))
        with no_init_weights():
            model = DINOv3ConvNextModel(config)
        self.stages, self.norm = model.model.stages, model.layer_norm
        self.train()
        start(self)

    def blocks(self) -> list[nn.Module]:
        """All blocks, first to last."""
        return [block for stage in self.stages for block in stage.get_submodule("layers").children()]

    def layers(self) -> list[Layer]:
        layers: list[Layer] = []
        for stage in self.stages:
            before = stage.get_submodule("downsample_layers")
            first, *others = ([block] for block in stage.get_submodule("layers").children())
            # Before the first block of all stands the stem, which is a layer of its own.
            layers += [[before, *first], *others] if layers else [[before], first, *others]
        layers[-1] = [*layers[-1], self.norm]
        return layers

    def forward(self, image: Tensor) -> list[Tensor]:
        levels: list[Tensor] = []
        for stage in self.stages:
            levels.append(stage(levels[-1] if levels else image))
        levels[-1] = self.norm(levels[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return levels


def as_map(cells: Tensor, rows: int, columns: int) -> Tensor:
    """Tokens row by row (B, h w, c) -> (B, c, h, w)."""
    return cells.transpose(1, 2).unflatten(2, (rows, columns))


TOKENS = ("cls_token", "register_tokens", "position_embeddings")


@torch.no_grad()
def start(encoder: Encoder) -> None:
    """Weights, class token, registers and positions N(0, 0.02) cut at two deviations, biases and mask token 0, norms 1
    and 0, scales of layers 1.

    The mask token does not learn unless somebody says so: most methods never show it.
    """
    for module in encoder.modules():
        own = dict(module.named_parameters(recurse=False))
        for name, weight in own.items():
            if name in TOKENS or (name == "weight" and isinstance(module, nn.Linear | nn.Conv2d)):
                nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04)
            elif name in ("bias", "mask_token"):
                nn.init.zeros_(weight)
            else:
                assert name in ("lambda1", "gamma") or isinstance(module, nn.LayerNorm), f"no rule to start {name}"
                nn.init.ones_(weight)
        if "mask_token" in own:
            own["mask_token"].requires_grad_(False)
