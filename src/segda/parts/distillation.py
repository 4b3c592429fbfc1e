"""Feature distance to a frozen foundation model: what the student's deepest map says of an image, through a small head,
stays near what another encoder says (Englert and Dubbelman, VFM-UDA++, ICCV workshops 2025).

The frozen encoder sees the image at a size of its own. As in the authors' code (tue-mps/vfm-uda-plusplus `uda.py`,
`distill_feature_head.py`) the student sees it recoloured, the frozen encoder does not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from segda.errors import RecipeError, WeightsError
from segda.networks.decoders.daformer import upsample
from segda.networks.decoders.vfm import ChannelNorm
from segda.networks.encoders.table import encoder_row, of_family
from segda.networks.network import Network
from segda.networks.weights.load import load_encoder_weights
from segda.parts.photometric import Colours

SMOOTH, COSINE = 0.1, 0.9
"""Shares of the two distances [code VFM-UDA++, uda.py]."""


class DistillationSettings(BaseModel):
    """What the student's features are held near to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str
    """A row of ENCODERS, a vision transformer."""
    weights: str
    """Where it comes from, as `network.weights` has it."""
    side: int = Field(ge=14)
    """Pixels a side of the images that it sees, whole patches."""
    weight: float = Field(gt=0)
    """Factor of the distance on each domain's images."""
    photometric: Colours
    """How the student's images are recoloured."""


class Frozen(nn.Module):
    """The other encoder, which never learns."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, settings: DistillationSettings):
        super().__init__()
        row = encoder_row(settings.encoder, of_family("dinov2", "dinov3"))
        if settings.side % row.multiple:
            raise RecipeError(
                f"method.distillation.side: {settings.side} is no multiple of {row.multiple}, the patches of encoder "
                f"{settings.encoder}"
            )
        self.side = settings.side
        self.channels = row.channels[-1]
        self.encoder = row.build(settings.encoder).eval()
        try:
            self.origin = load_encoder_weights(self.encoder, settings.weights)
        except WeightsError as error:  # which speaks of the student's
            raise WeightsError(str(error).replace("network.weights", "method.distillation.weights")) from error
        self.register_buffer("mean", torch.tensor(row.normalisation.mean).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(row.normalisation.deviation).view(3, 1, 1))
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> Frozen:
        self.training = mode
        return self

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D, h, w)."""
        small = upsample(image, (self.side, self.side))
        return self.encoder((small - self.mean) / self.deviation)[-1]


class DistillHead(nn.Module):
    """The student's deepest map (B, c, h, w) -> (B, D, *size)."""

    def __init__(self, channels: int, outputs: int):
        super().__init__()
        self.project = nn.Sequential(
            nn.Conv2d(channels, 4 * channels, 1),
            ChannelNorm(4 * channels),
            nn.GELU(),
            nn.Conv2d(4 * channels, outputs, 1),
        )

    def forward(self, level: Tensor, size: tuple[int, int]) -> Tensor:
        return upsample(self.project(level), size)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"head": list(self.parameters())}


@torch.no_grad()
def deepest_channels(network: Network) -> int:
    """The channels of a network's deepest map."""
    training = network.training
    small = torch.zeros(1, 3, 4 * network.stride, 4 * network.stride)
    channels = network.eval().features(small)[-1].shape[1]
    network.train(training)
    return channels


def distance(features: Tensor, frozen: Tensor) -> Tensor:
    """The mean over positions of 0.1 times the mean smooth L1 distance over channels and 0.9 (1 - cosine).

    (B, D, h, w) twice; the bend of smooth L1 is at 1.
    """
    features, frozen = features.float(), frozen.float()
    smooth = F.smooth_l1_loss(features, frozen, reduction="none").mean(1)
    return (SMOOTH * smooth + COSINE * (1 - F.cosine_similarity(features, frozen))).mean()
