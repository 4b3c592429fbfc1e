"""MiT: the Mix Transformers of SegFormer (Xie et al., NeurIPS 2021). The blocks are those of `transformers`, with
its scaled-dot-product attention; where it parts from the authors' code we set it right after building:

- layer norms have eps 1e-6 in blocks and at the end of stages, 1e-5 in patch embeddings and reduced attention
  (the library: 1e-5 everywhere);
- the random start is the authors', and a function of torch's global seed alone (the library's is not drawn);
- stochastic depth is drawn in float32: the library draws in the branch's type, and in bfloat16, under
  autocast, a number in [0, 1) has too few values for a rate of 0.01.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segda.networks.dropout import DropPath
from segda.networks.encoders.encoder import Encoder, Layer


@dataclass(frozen=True)
class MiTSize:
    """One size of Mix Transformer: channels, blocks and attention heads of its four stages."""

    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]


MITS: dict[str, MiTSize] = {
    "tiny": MiTSize((16, 32, 64, 96), (1, 1, 1, 1), (1, 2, 4, 6)),  # ours, for tests and demonstrations
    "b0": MiTSize((32, 64, 160, 256), (2, 2, 2, 2), (1, 2, 5, 8)),
    "b1": MiTSize((64, 128, 320, 512), (2, 2, 2, 2), (1, 2, 5, 8)),
    "b2": MiTSize((64, 128, 320, 512), (3, 4, 6, 3), (1, 2, 5, 8)),
    "b3": MiTSize((64, 128, 320, 512), (3, 4, 18, 3), (1, 2, 5, 8)),
    "b4": MiTSize((64, 128, 320, 512), (3, 8, 27, 3), (1, 2, 5, 8)),
    "b5": MiTSize((64, 128, 320, 512), (3, 6, 40, 3), (1, 2, 5, 8)),
}


class MiT(Encoder):
    """(B, 3, H, W) normalised image -> four maps (B, channels[i], h, w) of strides 4, 8, 16, 32.

    Each map is the layer-normalised end of a stage; the next stage starts from it. h = ceil(H / stride).
    drop_path: rate of stochastic depth in the last block; it grows linearly from 0 in the first block of all.
    """

    stride = 32

    def __init__(self, name: str, *, drop_path: float):
        super().__init__()
        # Costs seconds, and is not needed to name what exists. The sub-module alone is a third cheaper.
        from transformers.initialization import no_init_weights
        from transformers.models.segformer.configuration_segformer import SegformerConfig
        from transformers.models.segformer.modeling_segformer import SegformerModel

        row = MITS[name]
        self.name = name
        self.channels = row.channels
        config = SegformerConfig(  # type: ignore[call-arg]  # of all models, and so in the library's `**kwargs`
            hidden_sizes=list(row.channels),
            depths=list(row.depths),
            num_attention_heads=list(row.heads),
            sr_ratios=[8, 4, 2, 1],
            mlp_ratios=[4, 4, 4, 4],
            attn_implementation="sdpa",
        )
        # The library's own random start would draw from the generator.
        with no_init_weights():
            self.stages = SegformerModel(config).stages
        self.train()

        blocks = self.blocks()
        for k, block in enumerate(blocks):
            block.drop_path = DropPath(drop_path * k / (len(blocks) - 1))
        norms = [block.get_submodule(f"layernorm_{place}") for block in blocks for place in ("before", "after")]
        for norm in (*norms, *(stage.get_submodule("layer_norm") for stage in self.stages)):
            assert isinstance(norm, nn.LayerNorm)
            norm.eps = 1e-6
        start(self)

    def blocks(self) -> list[nn.Module]:
        """All blocks, first to last."""
        return [block for stage in self.stages for block in stage.get_submodule("blocks").children()]

    def layers(self) -> list[Layer]:
        layers: list[Layer] = []
        for stage in self.stages:
            embed, norm = stage.get_submodule("patch_embeddings"), stage.get_submodule("layer_norm")
            first, *others = ([block] for block in stage.get_submodule("blocks").children())
            # Before the first block of all stands the stem, which is a layer of its own.
            layers += [[embed, *first], *others] if layers else [[embed], first, *others]
            layers[-1] = [*layers[-1], norm]
        return layers

    def forward(self, image: Tensor) -> list[Tensor]:
        levels: list[Tensor] = []
        for stage in self.stages:
            levels.append(stage(levels[-1] if levels else image))
        return levels


@torch.no_grad()
def start(encoder: nn.Module) -> None:
    """The authors' start: linear N(0, 0.02), convolution N(0, sqrt(2 / fan_out)), biases 0, layer norm 1, 0.

    fan_out = kernel area x output channels / groups. (They call the first one truncated: at 100 sigma.)
    """
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            fan_out = height * width * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        else:
            assert not list(module.parameters(recurse=False)), f"no rule to start a {type(module).__name__}"
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
