"""Checkpoints of other code bases: what they call the parts of our networks, one row a code base.

advent             ADVENT, ESL, MinEnt and AdaptSegNet: the state dict of DeepLab-v2 with one head or two
advent-imagenet    the file that their trainings start from, DeepLab_resnet_pretrained_imagenet.pth: an encoder alone
daformer           DAFormer's Mix Transformer and sep-ASPP head in mmsegmentation
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from segda.networks.names import OFFICIAL_MIT, USUAL_RESNET, Names, Style

CLASSIFIERS: Names = {
    "layer5.conv2d_list.S": "classifiers.aux.S",
    "layer6.conv2d_list.S": "classifiers.main.S",
}

SEP_ASPP: Names = {
    "embed_layers.S.proj": "embed.S",
    "fuse_layer.aspp_modules.0.conv": "branches.0.0",
    "fuse_layer.aspp_modules.0.bn": "branches.0.1",
    "fuse_layer.aspp_modules.S.depthwise_conv.conv": "branches.S.0.0",
    "fuse_layer.aspp_modules.S.depthwise_conv.bn": "branches.S.0.1",
    "fuse_layer.aspp_modules.S.pointwise_conv.conv": "branches.S.1.0",
    "fuse_layer.aspp_modules.S.pointwise_conv.bn": "branches.S.1.1",
    "fuse_layer.bottleneck.conv": "fuse.0",
    "fuse_layer.bottleneck.bn": "fuse.1",
    "conv_seg": "classify",
}


@dataclass(frozen=True)
class Part:
    """Where a part of the network begins in their names and in ours, and what its modules are called."""

    theirs: str
    ours: str
    style: Style


@dataclass(frozen=True)
class Layout:
    """How one code base names the tensors of a network of ours.

    network: its row of NETWORKS. parts: all of it that is learnt. around: what may stand before every name.
    skips: beginnings of names that the authors' own code leaves out when it loads the file.
    whole: False for an encoder alone.
    """

    network: str
    parts: tuple[Part, ...]
    around: str = r"(module\.)?"
    skips: tuple[str, ...] = ()
    whole: bool = True

    def ours(self, key: str) -> tuple[str, ...]:
        """Our names of what is in their tensor `key`, usually one; () if it is none of the network's."""
        key = key[re.match(self.around, key).end() :]
        for part in self.parts:
            if key.startswith(part.theirs) and (names := part.style.ours(key.removeprefix(part.theirs))):
                return tuple(part.ours + name for name in names)
        return ()

    def theirs(self, key: str) -> tuple[str, int, int]:
        """(their name of our tensor `key`, which of its parts it is, of how many); ("", 0, 0) if they have none."""
        for part in self.parts:
            if key.startswith(part.ours):
                name, place, count = part.style.theirs(key.removeprefix(part.ours))
                if name:
                    return part.theirs + name, place, count
        return "", 0, 0


LAYOUTS: dict[str, Layout] = {
    "advent": Layout("deeplab_v2", (Part("", "encoder.", Style(USUAL_RESNET, 1)), Part("", "", Style(CLASSIFIERS)))),
    "advent-imagenet": Layout(
        "deeplab_v2",
        (Part("Scale.", "encoder.", Style(USUAL_RESNET, 1)),),
        skips=("Scale.layer5.",),  # the classifier of another task [code, train.py]
        whole=False,
    ),
    "daformer": Layout(
        "mit_daformer",
        (Part("backbone.", "encoder.", Style(OFFICIAL_MIT, 1)), Part("decode_head.", "decoder.", Style(SEP_ASPP))),
        around=r"(module\.)?(model\.)?",
    ),
}


def to_theirs(tensors: Mapping[str, Tensor], layout: Layout) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by our names -> (by theirs, our names that have none there)."""
    parts: dict[str, dict[int, Tensor]] = {}
    unknown = []
    for key, tensor in tensors.items():
        name, place, _ = layout.theirs(key)
        if name:
            parts.setdefault(name, {})[place] = tensor
        else:
            unknown.append(key)
    joined = {
        name: next(iter(pieces.values())) if len(pieces) == 1 else torch.cat([pieces[i] for i in sorted(pieces)])
        for name, pieces in parts.items()
    }
    return joined, unknown
