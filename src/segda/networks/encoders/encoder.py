"""The face of encoders: an image to maps of features, and the layers that they are made of.

A class of encoders has `name`, `channels`, `stride` and `forward(image) -> maps, finest first`, and says what its
blocks and its layers are. What else is to know of one, its row in the table says (table.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from torch import Tensor, nn

from segda.errors import RecipeError

Layer = Sequence[nn.Module | nn.Parameter]

Norm = Literal["trained", "frozen"]
"""Whether an encoder's batch norm learns its statistics, or keeps those that it started with (its weight and bias learn
in both)."""


class Encoder(nn.Module):
    """name: its row of ENCODERS. channels: of its maps. stride: pixels per cell of the last one.

    any_size: whether one graph of operations does for images of every size.
    frozen: so many of its first layers do not learn, and their batch norms keep what they know. batch_norm: see Norm.
    """

    name: str
    channels: tuple[int, ...]
    stride: int
    any_size: bool = True
    frozen: int = 0
    batch_norm: Norm = "trained"

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised image -> maps (B, channels[i], h, w)."""
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """Modules that hold most of the maps, see `Network.blocks`."""
        raise NotImplementedError

    def layers(self) -> list[Layer]:
        """All that it is made of, in the order of computation: the stem (all before the first block), then a layer for
        each block, with what stands between it and the next one.
        """
        raise NotImplementedError

    def freeze(self, which: bool | int) -> None:
        """True: nothing learns any more; a number: neither stem nor so many first blocks. RecipeError where it has
        fewer.
        """
        layers = self.layers()
        blocks = len(layers) - 1
        if which is not True and not 0 <= which <= blocks:
            raise RecipeError(
                f"network.freeze: {which}: encoder {self.name} has {blocks} blocks; give a number up to that, or true "
                "for all of it"
            )
        self.frozen = len(layers) if which is True else which + 1 if which else 0
        for part in self.still():
            part.requires_grad_(False)
        self.train(self.training)

    def still(self) -> list[nn.Module | nn.Parameter]:
        """The parts that do not learn because they are frozen."""
        return [part for layer in self.layers()[: self.frozen] for part in layer]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self.still():
            if isinstance(part, nn.Module):
                part.eval()
        for module in self.modules() if self.batch_norm == "frozen" else ():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def frozen_weights(module: nn.Module) -> set[nn.Parameter]:
    """The weights of all frozen layers of the encoders in a module."""
    return {
        weight
        for encoder in module.modules()
        if isinstance(encoder, Encoder)
        for part in encoder.still()
        for weight in weights_of(part)
        if not weight.requires_grad  # what tunes a frozen layer learns
    }


def learning_layers(encoder: Encoder) -> list[list[nn.Parameter]]:
    """What learns of each layer, the stem first; nothing of the frozen ones."""
    return [
        [weight for part in layer for weight in weights_of(part) if weight.requires_grad] for layer in encoder.layers()
    ]


def learning_groups(encoder: Encoder, head: Sequence[nn.Module]) -> dict[str, list[nn.Parameter]]:
    """encoder: what learns of it but its layer norms; norm: those; head: all of the modules `head`.

    Batch norm of an encoder is in `encoder`: DAFormer's authors leave out of weight decay what is called "norm".
    """
    norms = {
        weight for module in encoder.modules() if isinstance(module, nn.LayerNorm) for weight in module.parameters()
    }
    learning = [weight for weight in encoder.parameters() if weight.requires_grad]
    groups = {
        "encoder": [weight for weight in learning if weight not in norms],
        "norm": [weight for weight in learning if weight in norms],
        "head": [weight for module in head for weight in module.parameters()],
    }
    return {name: weights for name, weights in groups.items() if weights}


def weights_of(part: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    return [part] if isinstance(part, nn.Parameter) else list(part.parameters())
