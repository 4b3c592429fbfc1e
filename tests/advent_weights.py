"""ADVENT's networks with the weights that its values were recorded with (golden/advent_esl; its README has the recipe).

theirs("deeplab")       the authors' state dict of the network, by their names
theirs("d_main")        of a discriminator
network()               our network with the same weights, for recorded images
recorded("deeplab.input.a", (1, 3, 65, 129))    such an image
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor

from golden import Golden, filled
from segda.data.labels.spaces import space_named
from segda.networks import DeepLabV2
from segda.networks.weights.layouts import LAYOUTS
from segda.networks.weights.names import to_ours

GOLDEN = Golden("advent_esl")

CLASSES = space_named("cityscapes-19").classes

PREFIXES = {"deeplab": "", "d_aux": "d_aux.", "d_main": "d_main.", "model2": "model2."}
"""What the generator's name of a tensor begins with, before the authors' name."""


def entries(kind: str) -> list[tuple[str, list[int], str]]:
    """Name, shape and kind of the authors' tensors."""
    return GOLDEN.json("weights.json")["deeplab" if kind == "model2" else kind]["entries"]


@cache
def theirs(kind: str) -> Mapping[str, Tensor]:
    """A state dict by the authors' names: "deeplab", "d_aux", "d_main", or "model2", a second DeepLab; to be copied,
    not to be changed.
    """
    made = {name: GOLDEN.tensor(PREFIXES[kind] + name, shape, row) for name, shape, row in entries(kind)}
    return MappingProxyType(made)


def network(kind: str = "deeplab", *, multi_level: bool = True) -> DeepLabV2:
    """Our ResNet-101 network with `theirs(kind)`, in training mode. Its images are `recorded` ones.

    Those lack what the network would do to a photograph, so its mean is set to 0 and its scale to 1.
    """
    tensors = theirs(kind)
    if not multi_level:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("layer5.")}
    heads = {"multi_level": multi_level, "aux_weight": 0.1 if multi_level else None}
    translated, unknown = to_ours(tensors, LAYOUTS["advent"].ours, GOLDEN.folder)
    assert not unknown
    constants = {"mean": torch.zeros(3, 1, 1), "scale": torch.ones(())}
    return filled(lambda: DeepLabV2(CLASSES, encoder="101", weights="scratch", **heads), translated | constants)


def recorded(name: str, shape: tuple[int, ...]) -> Tensor:
    """A recorded image: drawn as blue, green, red with the mean taken off, given as our networks want it, red first."""
    return torch.from_numpy(GOLDEN.normal(name, shape)).flip(1)
