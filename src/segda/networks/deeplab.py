"""DeepLab-v2: a dilated ResNet and one or two sums of dilated convolutions (Chen et al., PAMI 2018).

With two heads it is the network of AdaptSegNet (Tsai et al., CVPR 2018, sec. 4.2), ADVENT and ESL, `advent/model/
deeplabv2.py`: the auxiliary head looks at the third stage, the main one at the fourth, and each is upsampled with its
corners aligned.

DANNet's authors have it in a variant (W-zx-Y/DANNet, network/deeplab.py), which their weights need: a head ends after
its second dilation, the stem's batch norm learns, and images are RGB, normalised as ImageNet's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segda.errors import RecipeError
from segda.networks.encoders.encoder import learning_layers
from segda.networks.encoders.resnet import Bottleneck, ResNet, init_weights
from segda.networks.encoders.table import CAFFE_MEAN, IMAGENET, encoder_row, of_family
from segda.networks.network import Head, Network, Output, lay_out, refuse_smaller
from segda.networks.weights.load import load_encoder_weights

DILATIONS = (6, 12, 18, 24)
"""Of a head's four convolutions [code, deeplabv2.py]. DANNet's heads return after the second [code DANNet,
deeplab.py:98]."""


class Classifier(nn.ModuleList):
    """3x3 convolutions with bias, one a dilation, n in all, added up: (B, c, h, w) -> (B, C, h, w).

    Computed as what it is: one 1x1 convolution that gives each of the n x 9 taps its C channels, which are then moved
    to where they belong and added. On CPUs this is two to four times faster, there and back, than dilated
    convolutions to so few channels. The sum is float32 also under autocast, where a convolution's result is not.
    """

    def __init__(self, width: int, classes: int, dilations: Sequence[int]):
        super().__init__(nn.Conv2d(width, classes, 3, padding=dilation, dilation=dilation) for dilation in dilations)
        init_weights(self)

    def convolutions(self) -> list[nn.Conv2d]:
        return [branch for branch in self if isinstance(branch, nn.Conv2d)]

    def forward(self, cells: Tensor) -> Tensor:
        size, branches = cells.shape[-2:], self.convolutions()
        # A convolution takes the neighbour at +d, fold puts to +d: hence the taps in reverse.
        weight = torch.stack([branch.weight for branch in branches]).flip(-2, -1)  # (n, C, c, 3, 3)
        weight = weight.permute(0, 1, 3, 4, 2).flatten(0, 3)  # (9 n C, c)
        taps = F.conv2d(cells, weight[:, :, None, None]).to(weight.dtype)
        taps = taps.flatten(2).unflatten(1, (len(self), -1))  # (B, n, 9 C, h w)
        parts = zip(taps.unbind(1), (branch.dilation for branch in branches), strict=True)
        logits = reduce(
            torch.add, (F.fold(tap, size, 3, dilation=dilation, padding=dilation) for tap, dilation in parts)
        )
        biases = (branch.bias for branch in branches if branch.bias is not None)
        return logits + reduce(torch.add, biases).view(-1, 1, 1)


class DeepLabV2(Network):
    """Dilated ResNet, output stride 8, one head or two. Any image of at least 8 pixels a side.

    encoder: "small", "50", "101" (quotes are not needed). freeze: true, or the number of its first blocks that do not
    learn, nor does its stem.
    weights: where the encoder starts from: "scratch", the authors' DeepLab_resnet_pretrained_imagenet.pth, a ResNet
    file of torchvision or timm, a name on the Hugging Face hub, a folder (see weights/load.py); `origin` says what was
    made of it. Files of torchvision and of the hub were trained with the stride on the 3x3 and on RGB of mean 0 and
    deviation 1; here they are the start of a network with the stride on the 1x1 that sees BGR in 0..255 less its mean.
    multi_level: an auxiliary head on the third stage.
    aux_weight: its share of the loss; given with it, else not.
    variant: "advent", or "dannet" for the weights of DANNet's authors.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        encoder: str | int,
        weights: str,
        multi_level: bool,
        aux_weight: float | None = None,
        freeze: bool | int = False,
        variant: Literal["advent", "dannet"] = "advent",
    ):
        super().__init__()
        if multi_level != (aux_weight is not None):
            raise RecipeError(
                "network.aux_weight: is the auxiliary head's share of the loss; "
                + ("multi_level: true needs it" if multi_level else "remove it, or set multi_level: true")
            )
        if aux_weight is not None and not aux_weight > 0:
            raise RecipeError(f"network.aux_weight: {aux_weight} is not above 0; for one head set multi_level: false")
        self.class_names = tuple(class_names)
        self.heads = ("main", "aux") if multi_level else ("main",)
        self.align_corners = True
        self.weight_of = {"main": 1.0} | ({} if aux_weight is None else {"aux": aux_weight})
        row = encoder_row(str(encoder), of_family("resnet"))
        self.variant, colours = variant, IMAGENET if variant == "dannet" else row.normalisation
        self.smallest, self.fill = row.smallest, colours.mean
        built = row.build(str(encoder))
        assert isinstance(built, ResNet)
        self.encoder = built
        self.stride = self.encoder.stride
        level, dilations = {"main": 3, "aux": 2}, DILATIONS[:2] if variant == "dannet" else DILATIONS
        self.classifiers = nn.ModuleDict(
            {head: Classifier(self.encoder.channels[level[head]], self.classes, dilations) for head in self.heads}
        )
        if variant == "dannet":
            self.encoder.bn1.requires_grad_(True)
            deviation = torch.tensor(IMAGENET.deviation).view(3, 1, 1)
            self.register_buffer("mean", torch.tensor(IMAGENET.mean).view(3, 1, 1) / deviation)
            self.register_buffer("scale", 1 / deviation)
        else:
            self.register_buffer("mean", torch.tensor(CAFFE_MEAN).view(3, 1, 1))
            self.register_buffer("scale", torch.tensor(255.0))
        self.origin = load_encoder_weights(self.encoder, weights)
        self.encoder.freeze(freeze)
        lay_out(self, torch.channels_last)

    def features(self, image: Tensor) -> list[Tensor]:
        """Four maps of strides 4, 8, 8, 8; the last two are what the heads look at."""
        refuse_smaller(image, self.smallest, "deeplab_v2")
        normalised = (image if self.variant == "dannet" else image.flip(1)) * self.scale - self.mean
        return self.encoder(normalised.contiguous(memory_format=torch.channels_last))

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        return self.classifiers["main"](features[-1])

    def forward(self, image: Tensor) -> Output:
        features = self.features(image)
        cells = {"main": self.decode(features)}
        if "aux" in self.heads:
            cells["aux"] = self.classifiers["aux"](features[-2])
        size = image.shape[-2:]
        heads = {
            head: Head(upsample(logits, size), self.weight_of[head], cells=logits) for head, logits in cells.items()
        }
        return Output(heads, features)

    def infer(self, image: Tensor) -> Tensor:
        return upsample(self.low_res_logits(image), image.shape[-2:])

    def low_res_logits(self, image: Tensor) -> Tensor:
        """At stride 8, as the authors evaluate: their logits are upsampled once, to the label's size."""
        return self.decode(self.features(image))

    def blocks(self) -> list[nn.Module]:
        return self.encoder.blocks()

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """stem: the first convolution; blocks: those inside bottlenecks; shortcuts: those beside them; head: the heads.

        Without batch norm, which is not trained, but for the stem's of DANNet's. Apart because the authors' optimiser
        updates them once, three times and four times a step (see `backbone_updates` in training/optim.py).
        """
        blocks = [block for block in self.encoder.blocks() if isinstance(block, Bottleneck)]
        inside = [convolution for block in blocks for convolution in (block.conv1, block.conv2, block.conv3)]
        beside = [module for block in blocks for module in block.shortcut if isinstance(module, nn.Conv2d)]
        groups = {
            "stem": [*self.encoder.conv1.parameters(), *self.encoder.bn1.parameters()],
            "blocks": [weight for convolution in inside for weight in convolution.parameters()],
            "shortcuts": [weight for convolution in beside for weight in convolution.parameters()],
            "head": list(self.classifiers.parameters()),
        }
        learning = {name: [weight for weight in weights if weight.requires_grad] for name, weights in groups.items()}
        return {name: weights for name, weights in learning.items() if weights}

    def layers(self) -> list[list[nn.Parameter]]:
        return learning_layers(self.encoder)


def upsample(cells: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear to `size`, corners aligned: (B, C, h, w) -> (B, C, *size). To the same size it is the identity."""
    return F.interpolate(cells, tuple(size), mode="bilinear", align_corners=True)
