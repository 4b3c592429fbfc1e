"""The contract between networks and everything else: five functions and four facts.

    forward(image) -> Output        what is supervised in training
    infer(image) -> logits          what is used afterwards
    features(image) -> levels       the encoder's maps, finest first
    decode(features) -> logits      of the encoder's maps, at their own resolution
    groups() -> parameters          {"encoder": [...], "norm": [...], "head": [...]}

    class_names, stride, fill, origin

Images are `(B, 3, H, W)` RGB in [0, 1]; the network owns its normalisation (buffers) and its upsampling.
Concrete networks are not subclassed: to vary one, wrap it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from segda.scene import Box


@dataclass(frozen=True, slots=True)
class Head:
    """One supervised prediction: logits `(B, C, H, W)` at image size, its share of the loss, its box of the image."""

    logits: Tensor
    weight: float = 1.0
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """What a network says of a batch in training: named heads, `main` first, and the encoder's maps."""

    heads: dict[str, Head]
    features: Sequence[Tensor] = field(default=())

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
    """

    class_names: tuple[str, ...]
    stride: int
    fill: tuple[float, float, float]
    origin: str

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
    def groups(self) -> dict[str, list[nn.Parameter]]: ...
