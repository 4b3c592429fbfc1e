"""DAFormer's network: a Mix Transformer and the sep-ASPP decoder (Hoyer et al., CVPR 2022, sec. 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segda.errors import RecipeError
from segda.networks.decoders.daformer import SepASPP, upsample
from segda.networks.encoders.encoder import learning_groups, learning_layers
from segda.networks.encoders.table import encoder_row, of_family
from segda.networks.network import Head, Network, Output, refuse_smaller
from segda.networks.weights.load import load_encoder_weights


class MiTDAFormer(Network):
    """MiT encoder, sep-ASPP decoder, one head. Any image of at least 32 pixels a side.

    encoder: "tiny", "b0" .. "b5". freeze: true, or the number of its first blocks that do not learn, nor does its stem.
    weights: where the encoder starts from: "scratch", a name on the Hugging Face hub, a file or a folder
    (see networks/weights/load.py); `origin` says what was made of it.
    channels, dilations, dropout: of the decoder. drop_path: of the encoder's last block.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        encoder: str,
        weights: str,
        channels: int,
        dilations: Sequence[int],
        dropout: float,
        drop_path: float,
        freeze: bool | int = False,
    ):
        super().__init__()
        if channels < 1 or not dilations or min(dilations) < 1:
            raise RecipeError(
                f"network: channels {channels} and dilations {list(dilations)} must be positive whole numbers"
            )
        for key, rate in (("dropout", dropout), ("drop_path", drop_path)):
            if not 0 <= rate < 1:
                raise RecipeError(f"network.{key}: {rate} is not in [0, 1)")
        self.class_names = tuple(class_names)
        self.heads = ("main",)
        self.align_corners = False
        row = encoder_row(encoder, of_family("mit"))
        colours = row.normalisation
        self.smallest, self.fill = row.smallest, colours.mean
        self.encoder = row.build(encoder, drop_path=drop_path)
        self.stride = self.encoder.stride
        self.decoder = SepASPP(
            self.encoder.channels, self.classes, channels=channels, dilations=dilations, dropout=dropout
        )
        self.register_buffer("mean", torch.tensor(colours.mean).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(colours.deviation).view(3, 1, 1))
        self.origin = load_encoder_weights(self.encoder, weights)
        self.encoder.freeze(freeze)

    def features(self, image: Tensor) -> list[Tensor]:
        refuse_smaller(image, self.smallest, "mit_daformer")
        return self.encoder((image - self.mean) / self.deviation)

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        return self.decoder(features)

    def forward(self, image: Tensor) -> Output:
        features = self.features(image)
        # In the network's own type: under autocast the decoder's is bfloat16, too coarse to interpolate in.
        # Channels first again, as softmax and cross entropy want them: here there are sixteen times fewer to turn.
        logits = self.decode(features).to(self.mean.dtype, memory_format=torch.contiguous_format)
        return Output({"main": Head(upsample(logits, image.shape[-2:]), cells=logits)}, features)

    def infer(self, image: Tensor) -> Tensor:
        return self(image).logits

    def low_res_logits(self, image: Tensor) -> Tensor:
        """At the image's size already: mmsegmentation upsamples twice, to the input's size and then to the label's."""
        return self.infer(image)

    def blocks(self) -> list[nn.Module]:
        return self.encoder.blocks()

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """encoder: all but its layer norms; norm: those; head: the whole decoder, batch norm included."""
        return learning_groups(self.encoder, [self.decoder])

    def layers(self) -> list[list[nn.Parameter]]:
        return learning_layers(self.encoder)
