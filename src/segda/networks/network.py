"""The contract between networks and everything else: six functions and six facts.

    forward(image) -> Output          what is supervised in training
    infer(image) -> logits            what is used afterwards, at the image's size
    low_res_logits(image) -> logits   the same before its last upsampling; evaluation brings them to a label's size
    features(image) -> levels         the encoder's maps, finest first; a decoder may have the last one enlarged
    decode(features) -> logits        of the encoder's maps, at their own resolution
    groups() -> parameters            by name: "head" for what is no encoder, any other names for parts of the encoder

and, if it likes, blocks() -> modules of the encoder, whose maps may be computed again to save memory
(activation_checkpointing.py), and whose weights are gathered one block at a time (distributed/sharding.py).

    class_names, stride, fill, origin, heads, align_corners

Images are `(B, 3, H, W)` RGB in [0, 1]; the network owns its normalisation (buffers) and its upsampling.
Concrete networks are not subclassed: to vary one, wrap it. A wrapper is a network with an argument that is one,
`over: Network`; in a recipe that argument is a block of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from segda.errors import DataError, RecipeError
from segda.scene import Box


@dataclass(frozen=True, slots=True)
class Head:
    """One supervised prediction.

    logits: `(B, C, H, W)` at image size. weight: its share of the loss. box: its part of the image; None: all.
    cells: `(B, C, h, w)`, the logits before their upsampling, for methods that look at these; None where a network
    does not tell.
    """

    logits: Tensor
    weight: float = 1.0
    box: Box | None = None
    cells: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """What a network says of a batch in training: named heads, `main` first, the encoder's maps, and which of its maps
    the feature distance holds; none named: the last of `features`.
    """

    heads: dict[str, Head]
    features: Sequence[Tensor] = field(default=())
    held: Sequence[Tensor] = field(default=())

    @property
    def logits(self) -> Tensor:
        """The logits of the main head, `(B, C, H, W)`."""
        return self.heads["main"].logits


class Network(nn.Module, ABC):
    """See the module's doc string.

    class_names: names of the C classes, in the order of the logits' channels.
    stride: pixels per cell of the deepest feature map; image sides should be multiples of it.
    fill: RGB in [0, 1] of a pixel that the network sees as zero (its normalisation's mean).
    origin: what its weights started from, in one line for the log.
    heads: names of the heads in `forward`'s output, "main" first.
    align_corners: how its logits are upsampled (torch's `interpolate`, bilinear).
    """

    class_names: tuple[str, ...]
    stride: int
    fill: tuple[float, float, float]
    origin: str
    heads: tuple[str, ...]
    align_corners: bool

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @abstractmethod
    def features(self, image: Tensor) -> list[Tensor]: ...

    @abstractmethod
    def decode(self, features: Sequence[Tensor]) -> Tensor: ...

    @abstractmethod
    def forward(self, image: Tensor) -> Output: ...

    @abstractmethod
    def infer(self, image: Tensor) -> Tensor: ...

    @abstractmethod
    def low_res_logits(self, image: Tensor) -> Tensor: ...

    @abstractmethod
    def groups(self) -> dict[str, list[nn.Parameter]]: ...

    def held(self, image: Tensor) -> list[Tensor]:
        """The maps (B, D, h, w) that the feature distance holds, those of `Output.held`; a cell of each is a whole part
        of the image.
        """
        return [self.features(image)[-1]]

    def blocks(self) -> list[nn.Module]:
        """Modules that hold most of the encoder's maps, none inside another; what each says depends on its inputs,
        its weights and torch's random draws alone. A wrapper's are those of the networks that it wraps.
        """
        return [block for network in self.wrapped() for block in network.blocks()]

    def layers(self) -> list[list[nn.Parameter]]:
        """What learns of the encoder, layer by layer, the stem first, for rates that fall towards it
        (`optim.layer_decay`); none where nobody has said. A wrapper's are those of the one network that it wraps.
        """
        wrapped = self.wrapped()
        return wrapped[0].layers() if len(wrapped) == 1 else []

    @property
    def any_size(self) -> bool:
        """Whether one graph of operations does for images of every size; a wrapper's is that of the networks inside."""
        return all(network.any_size for network in self.wrapped())

    @property
    def least_images(self) -> int:
        """How many images a step of training must have; two where batch norm sees one cell of each."""
        return max((network.least_images for network in self.wrapped()), default=1)

    def wrapped(self) -> list[Network]:
        """The networks inside, but for those inside them."""
        return list(dict.fromkeys(network for child in self.children() for network in outermost(child)))


def outermost(module: nn.Module) -> list[Network]:
    """The networks of a module, itself perhaps, that are inside no other network."""
    if isinstance(module, Network):
        return [module]
    return list(dict.fromkeys(network for child in module.children() for network in outermost(child)))


def lay_out(module: nn.Module, layout: torch.memory_format) -> None:
    """Puts the module's weights of four dimensions into a memory format."""
    module.to(memory_format=layout)  # type: ignore[call-overload]  # torch's own types do not know it


def refuse_smaller(image: Tensor, side: int, network: str) -> None:
    """DataError for images (..., H, W) with fewer than `side` pixels on a side."""
    height, width = image.shape[-2:]
    if min(height, width) < side:
        raise DataError(
            f"image of {height} x {width} pixels (height x width): network {network} needs {side} on each side; "
            "enlarge it"
        )


def of_each_head(network: Network, setting: str, values: Mapping[str, float | None]) -> dict[str, float]:
    """A method's setting that has one value for each head, in the heads' order; RecipeError when it has others. None
    takes out a head that the network does not have, as where a recipe uses a block for a network with two.
    """
    given = {head: value for head, value in values.items() if value is not None}
    if set(given) != set(network.heads):
        raise RecipeError(
            f"method.{setting}: is for {', '.join(given) or 'no head'}, but the network's heads are "
            f"{', '.join(network.heads)}; give one value for each"
        )
    return {head: given[head] for head in network.heads}
