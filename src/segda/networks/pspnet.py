"""PSPNet: a dilated ResNet and its deepest map pooled to grids (Zhao et al., CVPR 2017), as DANNet's authors have it.

Their auxiliary head on the third stage (`dsn`) is left out: no loss ever reaches it (W-zx-Y/DANNet, train.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segda.networks.decoders.pyramid import PSP
from segda.networks.deeplab import upsample
from segda.networks.encoder_decoder import check_rate
from segda.networks.encoders.encoder import learning_groups, learning_layers
from segda.networks.encoders.table import encoder_row, of_family
from segda.networks.network import Head, Network, Output, lay_out, refuse_smaller
from segda.networks.weights.load import load_encoder_weights

CHANNELS = 512
SCALES = (1, 2, 3, 6)
"""Of the pooled maps, and the sides of their grids [code DANNet, pspnet.py]."""


class PSPNet(Network):
    """Dilated ResNet, output stride 8, one head. Any image of at least 16 pixels a side.

    encoder: "resnet101_deep" is the authors'; any other of its family. freeze: true, or the number of its first blocks
    that do not learn, nor does its stem.
    weights: where the encoder starts from: "scratch", a file or a folder (see networks/weights/load.py); `origin` says
    what was made of it. dropout: of whole channels before the classifier.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        encoder: str,
        weights: str,
        dropout: float,
        freeze: bool | int = False,
    ):
        super().__init__()
        row = encoder_row(encoder, of_family("residual"))
        check_rate("dropout", dropout, True, "pspnet")
        self.class_names = tuple(class_names)
        self.heads, self.align_corners = ("main",), True
        self.smallest, self.fill = row.smallest, row.normalisation.mean
        self.encoder = row.build(encoder)
        self.stride = self.encoder.stride
        self.decoder = PSP(self.encoder.channels, self.classes, channels=CHANNELS, scales=SCALES, dropout=dropout)
        self.register_buffer("mean", torch.tensor(row.normalisation.mean).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(row.normalisation.deviation).view(3, 1, 1))
        self.origin = load_encoder_weights(self.encoder, weights)
        self.encoder.freeze(freeze)
        lay_out(self, torch.channels_last)

    def features(self, image: Tensor) -> list[Tensor]:
        """Four maps; the decoder looks at the last one."""
        refuse_smaller(image, self.smallest, "pspnet")
        normalised = (image - self.mean) / self.deviation
        return self.encoder(normalised.contiguous(memory_format=torch.channels_last))

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        return self.decoder(features)

    def forward(self, image: Tensor) -> Output:
        features = self.features(image)
        cells = self.decode(features).to(self.mean.dtype)
        return Output({"main": Head(upsample(cells, image.shape[-2:]), cells=cells)}, features)

    def infer(self, image: Tensor) -> Tensor:
        return upsample(self.low_res_logits(image), image.shape[-2:])

    def low_res_logits(self, image: Tensor) -> Tensor:
        """At stride 8, as the authors evaluate: their logits are upsampled once, to the label's size."""
        return self.decode(self.features(image)).to(self.mean.dtype)

    def blocks(self) -> list[nn.Module]:
        return self.encoder.blocks()

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return learning_groups(self.encoder, [self.decoder])

    def layers(self) -> list[list[nn.Parameter]]:
        return learning_layers(self.encoder)
