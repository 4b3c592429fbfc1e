"""What an online method is, and what several of them do to a network's norms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from segda.errors import RecipeError
from segda.evaluation.certainty import upsampled
from segda.evaluation.inference import Size, View
from segda.evaluation.look import Eye, Sight
from segda.evaluation.statistics import norms_of
from segda.networks.network import Network


class Online(ABC):
    """A method around a network, which it changes. eye: how the network looks at images."""

    def __init__(self, eye: Eye):
        self.eye = eye
        self.network: Network = eye.network

    @abstractmethod
    def told(self, sight: Sight) -> Sequence[View]:
        """Learns from an image that the network has just seen; returns the views that are its prediction."""

    @abstractmethod
    def reset(self) -> None:
        """Forgets all that was learnt."""


class Learning(Online):
    """A method that learns by Adam: what does not learn is fixed, batch norms normalise by the image's own statistics.

    Where we part from the authors' code: the network is in evaluation mode but for these, so that nothing is dropped.
    """

    def __init__(self, eye: Eye, learns: Sequence[nn.Parameter], lr: float, betas: tuple[float, float]):
        super().__init__(eye)
        if self.network.least_images > 1:
            raise RecipeError(
                "this network has batch norm after pooling to one cell, which has nothing to compare in one image; "
                "adapt another, or use --method batchnorm"
            )
        use_own_statistics(self.network)
        self.network.requires_grad_(False)
        for parameter in learns:
            parameter.requires_grad_(True)
        self.learns = list(learns)
        self.optimiser = torch.optim.Adam(self.learns, lr=lr, betas=betas)
        self.start = [parameter.detach().clone() for parameter in self.learns]
        self.fresh = deepcopy(self.optimiser.state_dict())

    def descend(self, loss: Tensor) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    @torch.no_grad()
    def reset(self) -> None:
        for parameter, value in zip(self.learns, self.start, strict=True):
            parameter.copy_(value)
        self.optimiser.load_state_dict(deepcopy(self.fresh))


def use_own_statistics(network: Network) -> None:
    """From now on its batch norms normalise by the mean and variance of what they are given."""
    network.eval()
    for norm in norms_of(network):
        # In training mode also for convolutions that take a resting batch norm in, see EfficientNet-Lite.
        norm.training, norm.track_running_stats = True, False


def logits_of(view: View, size: Size) -> Tensor:
    """(C, H, W) for an image of that size; gradients are kept."""
    return torch.stack(list(upsampled(view, size)))


def detached(seen: Sequence[View]) -> list[View]:
    """The same views without gradients, as a prediction."""
    return [View(one.logits.detach(), one.align_corners, one.covers, one.weight, one.softmax) for one in seen]


def numbers(settings: dict[str, Any], where: str) -> None:
    """RecipeError for a number that makes no sense: not finite, or not above 0."""
    for name, value in settings.items():
        if not 0 < value < float("inf"):
            raise RecipeError(f"{where}.{name}: must be a number above 0 (got {value})")
