"""Checkpoints of other code bases: what they call the parts of our networks, one row a code base.

advent             ADVENT, ESL, MinEnt and AdaptSegNet: the state dict of DeepLab-v2 with one head or two
advent-imagenet    the file that their trainings start from, DeepLab_resnet_pretrained_imagenet.pth: an encoder alone
daformer           DAFormer's Mix Transformer and sep-ASPP head in mmsegmentation
daformer-...       any encoder with one of the other heads of DAFormer's experiments
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from segda.networks.names import OFFICIAL_MIT, OPEN_MMLAB, USUAL_RESNET, Names, Style

CLASSIFIERS: Names = {
    "layer5.conv2d_list.S": "classifiers.aux.S",
    "layer6.conv2d_list.S": "classifiers.main.S",
}


def conv(theirs: str, ours: str) -> Names:
    """mmcv's module of a convolution and its norm, if it has one."""
    return {f"{theirs}.conv": f"{ours}.0", f"{theirs}.bn": f"{ours}.1"}


def separated(theirs: str, ours: str) -> Names:
    """mmcv's module of a depthwise convolution and a 1x1."""
    return conv(f"{theirs}.depthwise_conv", f"{ours}.0") | conv(f"{theirs}.pointwise_conv", f"{ours}.1")


def aspp(theirs: str, ours: str) -> Names:
    """A separable ASPP; of its branches the first is one convolution."""
    return (
        conv(f"{theirs}aspp_modules.0", f"{ours}branches.0")
        | separated(f"{theirs}aspp_modules.S", f"{ours}branches.S")
        | conv(f"{theirs}bottleneck", f"{ours}fuse")
    )


def relations(theirs: str, ours: str, layer: str) -> Names:
    """Interlaced attention; `layer` stands behind keys and queries that pass several convolutions."""
    names: Names = {}
    for relation, place in (("global_relation", "far"), ("local_relation", "near")):
        for project in ("key", "query"):
            names |= conv(f"{theirs}{relation}.{project}_project{layer}", f"{ours}{place}.{project}{layer or '.0'}")
        names |= {f"{theirs}{relation}.value_project": f"{ours}{place}.value"}
        names |= conv(f"{theirs}{relation}.output_project", f"{ours}{place}.out")
    return names


DAFORMER: Names = {"embed_layers.S.proj": "embed.S", "conv_seg": "classify"}

SEP_ASPP: Names = DAFORMER | aspp("fuse_layer.", "")

BOTTLENECK: Names = {"embed_layers.3.0": "deepest.0", **aspp("embed_layers.3.1.", "deepest.1.")}

DANET: Names = {
    "conv_seg": "classify.main",
    **{f"{one}_conv_seg": f"classify.{one}" for one in ("pam", "cam")},
    **{f"{one}.gamma": f"attend.{one}.gamma" for one in ("pam", "cam")},
    **{f"pam.{one}_project": f"attend.pam.{one}" for one in ("key", "query", "value")},
    **conv("pam_in_conv", "before.pam"),
    **conv("cam_in_conv", "before.cam"),
    **conv("pam_out_conv", "after.pam"),
    **conv("cam_out_conv", "after.cam"),
}

HEADS: dict[str, Names] = {
    "sep-aspp": SEP_ASPP,
    "conv1": DAFORMER | conv("fuse_layer", "fuse"),
    "aspp": DAFORMER
    | conv("fuse_layer.aspp_modules.S", "fuse.branches.S")
    | conv("fuse_layer.bottleneck", "fuse.fuse"),
    "isa-fusion": DAFORMER | conv("fuse_layer.in_conv", "fuse.before") | relations("fuse_layer.", "fuse.attend.", ""),
    "bottleneck-aspp": DAFORMER | BOTTLENECK | conv("fuse_layer", "fuse"),
    "segformer": {
        "linear_c.S.proj": "embed.S",
        **conv("linear_fuse", "fuse"),
        "linear_pred": "classify",
    },
    "upernet": {
        "conv_seg": "classify",
        **conv("psp_modules.S.1", "pooled.S"),
        **conv("bottleneck", "context"),
        **conv("lateral_convs.S", "lateral.S"),
        **conv("fpn_convs.S", "smooth.S"),
        **conv("fpn_bottleneck", "fuse"),
    },
    "deeplab-v2-reduced": {"aspp_modules.S.conv": "classify.S"},
    "deeplab-v3-plus": {
        "conv_seg": "classify",
        **conv("image_pool.1", "mean"),
        **aspp("", ""),
        **conv("c1_bottleneck", "fine"),
        **separated("sep_bottleneck.S", "refine.S"),
    },
    "danet": DANET,
    "isanet": {
        "conv_seg": "classify",
        **conv("in_conv", "before"),
        **relations("", "attend.", ".S"),
        **conv("out_conv", "after"),
    },
}
"""The decode heads of DAFormer's experiments: what mmsegmentation calls the parts of our decoders."""


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
    teacher: what stands before every name of the student's teacher, in checkpoints that hold several networks; others:
    what stands before the names of any of them that is not the student's.
    skips: beginnings of names, after what stands before them, that the authors' own code does not use.
    whole: False for an encoder alone.
    """

    network: str
    parts: tuple[Part, ...]
    around: str = r"(module\.)?"
    teacher: str | None = None
    others: str | None = None
    skips: tuple[str, ...] = ()
    whole: bool = True

    def inside(self, key: str, which: str) -> str | None:
        """The name inside the `which` network, the student or the teacher; None if the tensor is another's."""
        before = self.teacher if which == "teacher" else self.around
        if before is None or (which == "student" and self.others and re.match(self.others, key)):
            return None
        found = re.match(before, key)
        return key[found.end() :] if found else None

    def skipped(self, key: str, which: str) -> bool:
        """Whether their code does not use the tensor of the `which` network either."""
        inside = self.inside(key, which)
        return inside is not None and inside.startswith(self.skips)

    def ours(self, key: str, which: str = "student") -> tuple[str, ...]:
        """Our names of what is in their tensor `key`, usually one; () if it is none of the network's."""
        inside = self.inside(key, which)
        if inside is None:
            return ()
        key = inside
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


MIT_BACKBONE = Part("backbone.", "encoder.", Style(OFFICIAL_MIT, 1))
RESIDUAL_BACKBONE = Part("backbone.", "encoder.", Style(OPEN_MMLAB, 1))

TRAINING: dict[str, str] = {
    "around": r"(module\.)?(model\.)?",
    "teacher": r"(module\.)?ema_model\.",
    "others": r"(module\.)?(ema_model|imnet_model)\.",
}
"""A checkpoint of a training holds the student, its teacher, and the network as it started (of the anchor)."""


def head(names: Names) -> Part:
    return Part("decode_head.", "decoder.", Style(names))


LAYOUTS: dict[str, Layout] = {
    "advent": Layout("deeplab_v2", (Part("", "encoder.", Style(USUAL_RESNET, 1)), Part("", "", Style(CLASSIFIERS)))),
    "advent-imagenet": Layout(
        "deeplab_v2",
        (Part("Scale.", "encoder.", Style(USUAL_RESNET, 1)),),
        skips=("Scale.layer5.",),  # the classifier of another task [code, train.py]
        whole=False,
    ),
    "daformer": Layout("mit_daformer", (MIT_BACKBONE, head(SEP_ASPP)), **TRAINING),
    **{
        f"daformer-{name}": Layout(
            "encoder_decoder",
            (MIT_BACKBONE, RESIDUAL_BACKBONE, head(names)),
            # Of SegFormer's: the classifier of its base class, 128 channels wide, that nothing passes.
            skips=("decode_head.conv_seg.",) if name == "segformer" else (),
            **TRAINING,
        )
        for name, names in HEADS.items()
    },
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
