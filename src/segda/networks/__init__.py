"""Networks by name. What a network must offer: network.py."""

from __future__ import annotations

from segda.networks.mit_daformer import MiTDAFormer
from segda.networks.network import Network

NETWORKS: dict[str, type[Network]] = {
    "mit_daformer": MiTDAFormer,
}
