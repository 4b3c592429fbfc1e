"""The smallest network that trains: for benchmarks of what a training does to its files, not of what it learns."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate

from segda.networks.network import Head, Network, Output


class TwoConvolutions(Network):
    """Four tensors: a convolution of 4 x 4 pixels in place of an encoder, one of 1 x 1 in place of a decoder."""

    def __init__(self, class_names: Sequence[str], *, channels: int):
        super().__init__()
        self.class_names = tuple(class_names)
        self.stride, self.fill, self.origin = 4, (0.5, 0.5, 0.5), "two_convolutions: random start"
        self.heads, self.align_corners = ("main",), False
        self.encoder = nn.Conv2d(3, channels, 4, stride=4)
        self.decoder = nn.Conv2d(channels, self.classes, 1)

    def features(self, image: Tensor) -> list[Tensor]:
        return [self.encoder(image - 0.5).relu()]

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        return self.decoder(features[-1])

    def forward(self, image: Tensor) -> Output:
        features = self.features(image)
        cells = self.decode(features).float()
        logits = interpolate(cells, image.shape[-2:], mode="bilinear", align_corners=False)
        return Output({"main": Head(logits, cells=cells)}, features)

    def infer(self, image: Tensor) -> Tensor:
        return self.forward(image).logits

    def low_res_logits(self, image: Tensor) -> Tensor:
        return self.decode(self.features(image))

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"encoder": [*self.encoder.parameters()], "head": [*self.decoder.parameters()]}
