"""Networks by name. What a network must offer: network.py."""

from __future__ import annotations

from segda.networks.deeplab import DeepLabV2
from segda.networks.encoders import ENCODERS
from segda.networks.mit_daformer import MiTDAFormer
from segda.networks.network import Network
from segda.networks.resnet import RESNETS

NETWORKS: dict[str, type[Network]] = {
    "mit_daformer": MiTDAFormer,
    "deeplab_v2": DeepLabV2,
}

ENCODERS_OF: dict[str, tuple[str, ...]] = {
    "mit_daformer": tuple(ENCODERS),
    "deeplab_v2": tuple(RESNETS),
}
"""The values of each network's setting `encoder`."""
