"""A trained network of another run, handed to a method: it never learns, and it never changes its mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import Tensor, nn

from segda.networks.network import Network, Output


class Given(Network):
    """What the recipe's `given` names, under `name` there. As the network itself, but frozen and in evaluation mode.

    Gradients pass through it to what it is asked about. A checkpoint holds but its hash.
    """

    def __init__(self, name: str, network: Network):
        super().__init__()
        self.name = name
        self.network = network.requires_grad_(False)
        self.class_names, self.stride, self.fill = network.class_names, network.stride, network.fill
        self.origin, self.heads, self.align_corners = network.origin, network.heads, network.align_corners
        self.eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def forward(self, image: Tensor) -> Output:
        return self.network(image)

    def features(self, image: Tensor) -> list[Tensor]:
        return self.network.features(image)

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        return self.network.decode(features)

    def infer(self, image: Tensor) -> Tensor:
        return self.network.infer(image)

    def low_res_logits(self, image: Tensor) -> Tensor:
        return self.network.low_res_logits(image)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Nothing of it learns."""
        return {}


class Absent(Network):
    """In place of a given network that nobody will ask."""

    stride, fill, origin, heads, align_corners = 1, (0.0, 0.0, 0.0), "", ("main",), False

    def __init__(self, class_names: Sequence[str]):
        super().__init__()
        self.class_names = tuple(class_names)

    def features(self, image: Tensor) -> list[Tensor]:
        raise AssertionError("a network that was not lent is asked")

    forward = infer = low_res_logits = decode = features  # type: ignore[assignment]

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """It has nothing."""
        return {}


def given_in(method: nn.Module) -> dict[str, Given]:
    """The given networks of a method, by the names of their modules."""
    return {name: module for name, module in method.named_modules() if isinstance(module, Given)}
