"""Networks of FDA, BDL, MGCDA and DANNet with the weights that their values were recorded with (golden/classics).

theirs("cyc_G_A")       the authors' state dict of a network, by their names; weights.json lists them
single()                the segmentation network of FDA and BDL with the same weights
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from golden import Golden, filled
from segda.data.labels.spaces import space_named
from segda.networks import NETWORKS, DeepLabV2
from segda.networks.encoders.table import CAFFE_MEAN
from segda.networks.network import Network
from segda.networks.weights.layouts import LAYOUTS
from segda.networks.weights.names import to_ours
from segda.parts.adversary import Discriminator
from segda.recipes.build import build
from segda.scene import IGNORE

GOLDEN = Golden("classics")

CLASSES = space_named("cityscapes-19").classes


@cache
def theirs(net: str) -> Mapping[str, Tensor]:
    """The state dict of one of the recorded networks by the authors' names; to be copied, not to be changed."""
    row = GOLDEN.json("weights.json")[net]
    return MappingProxyType({name: GOLDEN.tensor(row["prefix"] + name, *rest) for name, *rest in row["entries"]})


def authors_dannet(style: str, spec: dict[str, Any], network: str) -> Network:
    """A network of DANNet's with the weights of `theirs(network)`, in training mode. Its images are recorded ones: they
    lack what the network would do to a photograph, so its mean is set to 0 and its deviation to 1.
    """
    ours = build(NETWORKS, spec, "network", class_names=space_named("cityscapes-19").classes)
    found, _ = to_ours(theirs(network), LAYOUTS[style].ours, GOLDEN.folder)
    own = ours.state_dict()
    plain = {name: torch.full_like(own[name], name != "mean") for name in ("mean", "scale", "deviation") if name in own}
    ours.load_state_dict({name: found[name] for name in own if name not in plain} | plain)
    return ours


def authors_translator(network: nn.Module, net: str) -> nn.Module:
    """A generator or discriminator with the weights of `theirs(net)`, without the averages that instance norm records
    there.
    """
    own = network.state_dict()
    network.load_state_dict({name: tensor for name, tensor in theirs(net).items() if name in own})
    return network


def single(net: str = "single") -> DeepLabV2:
    """Our DeepLab-v2 of one head with the weights of `theirs(net)`, in training mode."""
    translated, unknown = to_ours(theirs(net), LAYOUTS["single"].ours, GOLDEN.folder)
    assert not unknown
    constants = {"mean": torch.tensor(CAFFE_MEAN).view(3, 1, 1), "scale": torch.tensor(255.0)}
    return filled(
        lambda: DeepLabV2(CLASSES, encoder="101", weights="scratch", multi_level=False), translated | constants
    )


def by_their_names(network: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of `single()`, by the authors' names."""
    ours = dict(network.named_parameters()) | dict(network.named_buffers())
    return {name: ours[own] for name in theirs("single") for own in LAYOUTS["single"].ours(name)}


def labels(name: str, shape: tuple[int, ...], share: int) -> Tensor:
    """Classes from the set's generator; `share` of 1000 pixels ignored."""
    label = GOLDEN.integers(name, 0, len(CLASSES), shape)
    ignored = GOLDEN.integers(f"{name}.ignore", 0, 1000, shape) < share
    return torch.from_numpy(np.where(ignored, IGNORE, label))


def discriminator() -> Discriminator:
    """BDL's discriminator with its recorded weights. Their layers have names, ours numbers, in the same order."""
    ours = Discriminator(len(CLASSES), 64)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs("bdl_D").values(), strict=True)))
    return ours
