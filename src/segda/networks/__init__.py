"""Networks by name. What a network must offer: network.py."""

from __future__ import annotations

from segda.networks.deeplab import DeepLabV2
from segda.networks.encoder_decoder import DECODERS, EncoderDecoder
from segda.networks.encoders.pyramids import PYRAMIDS
from segda.networks.encoders.table import ENCODERS, of_family
from segda.networks.hrda import ATTENTIONS, HRDA
from segda.networks.mit_daformer import MiTDAFormer
from segda.networks.network import Network
from segda.networks.pspnet import PSPNet
from segda.networks.relit import Relit
from segda.networks.vfm import VFM

NETWORKS: dict[str, type[Network]] = {
    "mit_daformer": MiTDAFormer,
    "encoder_decoder": EncoderDecoder,
    "deeplab_v2": DeepLabV2,
    "pspnet": PSPNet,
    "relit": Relit,
    "hrda": HRDA,
    "vfm": VFM,
}

CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "mit_daformer": {"encoder": of_family("mit")},
    "encoder_decoder": {"encoder": tuple(ENCODERS), "decoder": tuple(DECODERS), "pyramid": tuple(PYRAMIDS)},
    "deeplab_v2": {"encoder": of_family("resnet")},
    "pspnet": {"encoder": of_family("residual")},
    "relit": {},
    "hrda": {"attention": ATTENTIONS},
    "vfm": {"encoder": of_family("dinov2", "dinov3")},
}
"""The values of those settings of each network that name a part."""
