"""Networks by name. What a network must offer: network.py."""

from __future__ import annotations

from segda.networks.deeplab import DeepLabV2
from segda.networks.encoder_decoder import ALL_ENCODERS, DECODERS, EncoderDecoder
from segda.networks.encoders.mit import ENCODERS
from segda.networks.encoders.resnet import RESNETS
from segda.networks.mit_daformer import MiTDAFormer
from segda.networks.network import Network

NETWORKS: dict[str, type[Network]] = {
    "mit_daformer": MiTDAFormer,
    "encoder_decoder": EncoderDecoder,
    "deeplab_v2": DeepLabV2,
}

CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "mit_daformer": {"encoder": tuple(ENCODERS)},
    "encoder_decoder": {"encoder": ALL_ENCODERS, "decoder": tuple(DECODERS)},
    "deeplab_v2": {"encoder": tuple(RESNETS)},
}
"""The values of those settings of each network that name a part."""
