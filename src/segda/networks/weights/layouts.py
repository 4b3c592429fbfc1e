"""Checkpoints of other code bases: what they call the parts of our networks, one row a code base.

advent             ADVENT, ESL, MinEnt and AdaptSegNet: the state dict of DeepLab-v2 with one head or two
single             FDA and BDL: the same network with one head, by the name that ADVENT's auxiliary head has
dannet             DANNet's PSPNet, also what it starts from; what relights is in a file of its own (see `relit`)
dannet-deeplab     DANNet's DeepLab-v2, a variant of ADVENT's (see networks/deeplab.py)
advent-imagenet    the file that their trainings start from, DeepLab_resnet_pretrained_imagenet.pth: an encoder alone
daformer           DAFormer's Mix Transformer and sep-ASPP head in mmsegmentation; EB_DA, and MIC's DAFormer
daformer-...       any encoder with one of the other heads of DAFormer's experiments
refinenet          RefineNet-101 in torch, of Nekrasov's port, as DANNet starts from it
hrda               HRDA, and MIC's HRDA, on DAFormer's network
hrda-deeplab       the same on DeepLab-v2 with ResNet-101, of their comparisons
segformer          SegFormer's authors: whole networks, trained on Cityscapes or ADE20K
mit                their mit_b5.pth, trained on ImageNet: an encoder alone
vfm-uda            VFM-UDA: DINOv2 with a light decoder
vfm-uda-plusplus   VFM-UDA++: DINOv2 with ViT-Adapter and a pyramid
huggingface        a folder of transformers' SegformerForSemanticSegmentation, or its weights
huggingface-mit    the same of SegFormer's encoder alone: nvidia/mit-b5
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from segda.networks.weights.dino_names import ADAPTER, ADAPTER_TENSORS, LIGHT_DECODER, PYRAMID
from segda.networks.weights.names import (
    DEEP_STEM,
    HUB_STYLE,
    MIT,
    OFFICIAL_MIT,
    OPEN_MMLAB,
    PUBLISHED_MIT,
    USUAL_RESNET,
    Names,
    Style,
    to_ours,
)

CLASSIFIERS: Names = {
    "layer5.conv2d_list.S": "classifiers.aux.S",
    "layer6.conv2d_list.S": "classifiers.main.S",
}

SINGLE: Names = {"layer5.conv2d_list.S": "classifiers.main.S"}

PSPNET: Names = {
    "head.0.stages.S.1": "pooled.S",
    "head.0.bottleneck.0": "fuse.0",
    "head.0.bottleneck.1": "fuse.1",
    "head.1": "classify",
}

RELIGHTING: Names = {"model.B": "model.B", "model.B.conv_block.S": "model.B.conv_block.S"}
"""What relights: DANNet's names are ours."""

LIGHT = "light."
"""Stands here before the names of DANNet's second file."""


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


BLOCKS = (1, 2, 3, 4)
"""RefineNet's blocks, of the deepest map first, as Nekrasov's code numbers them."""

REFINENET: Names = {
    **{f"p_ims1d2_outl{g}_dimred": f"embed.{g - 1}" for g in BLOCKS},
    **{f"adapt_stage{g}_b2_joint_varout_dimred": f"join.{g - 2}" for g in BLOCKS[1:]},
    **{f"mflow_conv_g{g}_b3_joint_varout_dimred": f"lead.{g - 1}" for g in BLOCKS[:-1]},
    **{f"mflow_conv_g{g}_pool.0.{i}_outvar_dimred": f"pool.{g - 1}.{i - 1}" for g in BLOCKS for i in (1, 2, 3, 4)},
    **{
        f"{chain}_b.0.{i}_conv{place}": f"{ours}.{g - 1}.{i - 1}.{inner}"
        for g in BLOCKS
        for chain, ours, units in ((f"adapt_stage{g}", "adapt", (1, 2)), (f"mflow_conv_g{g}", "refine", (1, 2, 3)))
        for i in units
        for place, inner in (("", "first"), ("_relu_varout_dimred", "second"))
    },
    "clf_conv": "classify",
}


@dataclass(frozen=True)
class Part:
    """Where a part of the network begins in their names and in ours, and what its modules are called."""

    theirs: str
    ours: str
    style: Style


class Training(TypedDict):
    """What a Layout of several networks has, see there."""

    around: str
    teacher: str
    others: str


@dataclass(frozen=True)
class Layout:
    """How one code base names the tensors of a network of ours.

    networks: the row of NETWORKS, more than one for an encoder that several have. over: of a network around a network,
    the row of that one. decoder: of `encoder_decoder`, its row of HEADS. variant: of `deeplab_v2`. parts: all of it
    that is learnt. around: what may stand before every name.
    teacher: what stands before every name of the student's teacher, in checkpoints that hold several networks; others:
    what stands before the names of any of them that is not the student's.
    skips: beginnings of names, after what stands before them, that the authors' own code does not use.
    turned: our name of the 1x1 convolution over the stacked levels, where they stack the deepest first.
    encoder: of a file that holds an encoder alone, its family. folder: of Hugging Face's kind, with a configuration.
    only_with: the beginning of a name of theirs that any such file has, where without it names are another style's.
    """

    networks: tuple[str, ...]
    parts: tuple[Part, ...]
    decoder: str | None = None
    variant: str | None = None
    over: str | None = None
    around: str = r"(module\.)?"
    teacher: str | None = None
    others: str | None = None
    skips: tuple[str, ...] = ()
    turned: str | None = None
    encoder: str | None = None
    folder: bool = False
    only_with: str = ""

    @property
    def network(self) -> str:
        """Its networks, in words."""
        names = " or ".join(self.networks) + (f" of variant {self.variant}" if self.variant else "")
        names += f" over {self.over}" if self.over else ""
        return f"{names} with decoder {self.decoder.replace('-', '_')}" if self.decoder else names

    def holds(self, spec: Mapping[str, Any]) -> bool:
        """Whether its checkpoints are of the network that a recipe describes, or relights, as far as their names can
        tell.
        """
        spec = relit_in(spec)
        return (
            spec["name"] in self.networks
            and self.over in (None, spec.get("over", {}).get("name"))
            and self.decoder in (None, head_of((spec["over"] if self.over else spec).get("decoder", "")))
            and self.variant in (None, spec.get("variant", "advent"))
        )

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
        """Our names of what is in their tensor `key`, usually one; () if it is none of the network's, or skipped."""
        inside = self.inside(key, which)
        return () if inside is None or inside.startswith(self.skips) else self.ours_inside(inside)

    def ours_inside(self, name: str) -> tuple[str, ...]:
        """Of a name inside the network that is not skipped."""
        for part in self.parts:
            if name.startswith(part.theirs) and (names := part.style.ours(name.removeprefix(part.theirs))):
                return tuple(part.ours + one for one in names)
        return ()

    def theirs(self, key: str) -> tuple[str, int, int]:
        """(their name of our tensor `key`, which of its parts it is, of how many); ("", 0, 0) if they have none."""
        for part in self.parts:
            if key.startswith(part.ours):
                name, place, count = part.style.theirs(key.removeprefix(part.ours))
                if name:
                    return part.theirs + name, place, count
        return "", 0, 0


def relit_in(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The network that is relit, in the spec of one that does; of any other, itself."""
    return spec["over"] if spec["name"] == "relit" else spec


def relit(layout: Layout) -> Layout:
    """The layout of a network inside `relit`: its names, and those of the second file, with LIGHT before them."""
    inside = (replace(part, ours=f"over.{part.ours}") for part in layout.parts)
    turned = None if layout.turned is None else f"over.{layout.turned}"
    return replace(layout, parts=(*inside, Part(LIGHT, "relighting.", Style(RELIGHTING))), turned=turned)


def head_of(decoder: str) -> str:
    """The row of HEADS of a row of DECODERS: channels and the size of the deepest map are in no name."""
    return decoder.removesuffix("_256").removesuffix("_enlarged").replace("_", "-")


MIT_BACKBONE = Part("backbone.", "encoder.", Style(OFFICIAL_MIT, 1))
RESIDUAL_BACKBONE = Part("backbone.", "encoder.", Style(OPEN_MMLAB, 1))

USUAL_ENCODER = Part("", "encoder.", Style(USUAL_RESNET, 1))

TRAINING: Training = {
    "around": r"(module\.)?(model\.)?",
    "teacher": r"(module\.)?ema_model\.",
    "others": r"(module\.)?(ema_model|imnet_model|mic\.teacher)\.",
}
"""A checkpoint of a training holds the student, its teacher, and the network as it started (for the feature distance);
MIC's may
hold a second teacher, of the masked images."""

VFM_TRAINING: Training = {
    "around": r"(module\.)?(network\.)?",
    "teacher": r"(module\.)?network_ema\.",
    "others": r"(module\.)?network_(ema|feature_extractor|feature_head)\.",
}
"""Beside student and teacher a checkpoint of VFM-UDA++ holds the frozen encoder, and the head on the student's features
that is compared with it; neither is of the network."""

UNUSED = ("decode_head.conv_seg.",)
"""Of SegFormer's head: the classifier of its base class, 128 channels wide, that nothing passes."""

STACKED = "decoder.fuse.0.weight"

PUBLISHED_HEAD: Names = {
    "linear_c.S.proj": "embed.S",
    "linear_projections.S.proj": "embed.S",  # since transformers 5, which writes the name above into files
    "linear_fuse": "fuse.0",
    "batch_norm": "fuse.1",
    "classifier": "classify",
}


def head(names: Names) -> Part:
    return Part("decode_head.", "decoder.", Style(names))


LAYOUTS: dict[str, Layout] = {
    "advent": Layout(
        ("deeplab_v2",), (USUAL_ENCODER, Part("", "", Style(CLASSIFIERS))), variant="advent", only_with="layer6."
    ),
    "single": Layout(("deeplab_v2",), (USUAL_ENCODER, Part("", "", Style(SINGLE))), variant="advent"),
    "dannet": Layout(
        ("pspnet",),
        (Part("", "encoder.", Style(DEEP_STEM, 1)), Part("", "decoder.", Style(PSPNET))),
        skips=("fc.", "dsn."),  # of ImageNet; without a loss [code DANNet, train.py]
    ),
    "dannet-deeplab": Layout(
        ("deeplab_v2",),
        (USUAL_ENCODER, Part("", "", Style(CLASSIFIERS))),
        variant="dannet",
        only_with="layer6.",
        # Without a loss; beyond the early return [code DANNet, train.py, deeplab.py:98].
        skips=("fc.", "layer5.", "layer6.conv2d_list.2.", "layer6.conv2d_list.3."),
    ),
    "advent-imagenet": Layout(
        ("deeplab_v2",),
        (Part("Scale.", "encoder.", Style(USUAL_RESNET, 1)),),
        skips=("Scale.layer5.",),  # the classifier of another task [code, train.py]
        encoder="resnet",
    ),
    "daformer": Layout(("mit_daformer",), (MIT_BACKBONE, head(SEP_ASPP)), **TRAINING),
    **{
        f"daformer-{name}": Layout(
            ("encoder_decoder",),
            (MIT_BACKBONE, RESIDUAL_BACKBONE, head(names)),
            name,
            skips=UNUSED if name == "segformer" else (),
            **TRAINING,
        )
        for name, names in HEADS.items()
    },
    "refinenet": Layout(
        ("encoder_decoder",),
        (Part("", "encoder.", Style(OPEN_MMLAB, 1)), Part("", "decoder.", Style(REFINENET))),
        "refinenet",
        skips=("fc.",),  # [code of DANNet, network/refinenet.py]
    ),
    "hrda": Layout(
        ("hrda",),
        (
            Part("backbone.", "over.encoder.", Style(OFFICIAL_MIT, 1)),
            Part("decode_head.head.", "over.decoder.", Style(SEP_ASPP)),
            Part("decode_head.scale_attention.", "attention.", Style(HEADS["conv1"])),
        ),
        over="mit_daformer",
        **TRAINING,
    ),
    "hrda-deeplab": Layout(
        ("hrda",),
        (
            Part("backbone.", "over.encoder.", Style(OPEN_MMLAB, 1)),
            Part("decode_head.head.", "over.decoder.", Style(HEADS["deeplab-v2-reduced"])),
            Part("decode_head.scale_attention.", "attention.", Style(HEADS["deeplab-v2-reduced"])),
        ),
        "deeplab-v2-reduced",
        over="encoder_decoder",
        **TRAINING,
    ),
    "vfm-uda": Layout(
        ("vfm",),
        (Part("encoder.", "encoder.", HUB_STYLE), Part("", "decoder.", Style(LIGHT_DECODER))),
        "light",
        skips=("token_masking.",),  # the encoder's own token once more
        **VFM_TRAINING,
    ),
    "vfm-uda-plusplus": Layout(
        ("vfm",),
        (
            Part("encoder.", "encoder.", HUB_STYLE),
            Part("encoder.", "adapter.", Style(ADAPTER, tensors=ADAPTER_TENSORS)),
            Part("", "decoder.", Style(PYRAMID)),
        ),
        "adapter",
        **VFM_TRAINING,
    ),
    "segformer": Layout(
        ("encoder_decoder",),
        (
            MIT_BACKBONE,
            Part("decode_head.", "decoder.", Style({"linear_cS.proj": "embed.S"}, 1)),
            Part("decode_head.", "decoder.", Style({**conv("linear_fuse", "fuse"), "linear_pred": "classify"})),
        ),
        "segformer",
        skips=UNUSED,
        turned=STACKED,
    ),
    "mit": Layout(
        ("mit_daformer", "encoder_decoder"),
        (Part("", "encoder.", Style(OFFICIAL_MIT, 1)),),
        skips=("head.",),  # the classifier of ImageNet
        encoder="mit",
    ),
    "huggingface": Layout(
        ("encoder_decoder",),
        (
            Part("segformer.encoder.", "encoder.", Style(PUBLISHED_MIT)),
            Part("segformer.", "encoder.", Style(MIT)),
            head(PUBLISHED_HEAD),
        ),
        "segformer",
        turned=STACKED,
        folder=True,
    ),
    "huggingface-mit": Layout(
        ("mit_daformer", "encoder_decoder"),
        (Part("encoder.", "encoder.", Style(PUBLISHED_MIT)), Part("", "encoder.", Style(MIT))),
        around=r"(segformer\.)?",
        skips=("classifier.",),  # of ImageNet
        encoder="mit",
        folder=True,
    ),
}


def turned(weight: Tensor) -> Tensor:
    """A convolution over four stacked levels, (c, 4 e, 1, 1), for the opposite order of the levels."""
    return torch.cat(weight.chunk(4, dim=1)[::-1], dim=1)


def styles_of(keys: Iterable[str], which: str = "student", styles: Iterable[str] | None = None) -> list[str]:
    """The styles, of all or of `styles`, that a file with these names may have.

    Those of whose network there is something in every part, and of these the ones that leave the fewest names over.
    FDA's head has the name of ADVENT's auxiliary one, but never beside ADVENT's main one.
    """
    left: dict[str, int] = {}
    for style in styles or LAYOUTS:
        layout = LAYOUTS[style]
        every = (layout.inside(key, which) for key in keys)
        inside = [name for name in every if name is not None and not name.startswith(layout.skips)]
        if not any(name.startswith(layout.only_with) for name in inside):
            continue
        names = [layout.ours_inside(name) for name in inside]
        places = {name.removeprefix("over.").startswith("encoder.") for found in names for name in found}
        if places == ({True} if layout.encoder else {True, False}):
            left[style] = names.count(())
    return [style for style, count in left.items() if count == min(left.values())]


def from_theirs(
    tensors: Mapping[str, Tensor], layout: Layout, which: str, file: Path
) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by their names -> (those of the `which` network by ours, their names that have none here)."""
    found, unknown = to_ours(tensors, lambda key: layout.ours(key, which), file)
    return {name: turned(tensor) if name == layout.turned else tensor for name, tensor in found.items()}, unknown


def to_theirs(tensors: Mapping[str, Tensor], layout: Layout) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by our names -> (by theirs, our names that have none there)."""
    parts: dict[str, dict[int, Tensor]] = {}
    unknown = []
    for key, tensor in tensors.items():
        name, place, _ = layout.theirs(key)
        if name:
            parts.setdefault(name, {})[place] = turned(tensor) if key == layout.turned else tensor
        else:
            unknown.append(key)
    joined = {
        name: next(iter(pieces.values())) if len(pieces) == 1 else torch.cat([pieces[i] for i in sorted(pieces)])
        for name, pieces in parts.items()
    }
    return joined, unknown
