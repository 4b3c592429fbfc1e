"""A network that wraps another, for tests: it looks at the image twice, at half its size and at a random box of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segda.networks.network import Head, Network, Output


class TwoScales(Network):
    """over: any network. detail: the weight of the box's own head. A learnt number a class weighs the scales.

    As HRDA does, the context sees all of the image, the detail a box in training and all quarters afterwards.
    """

    def __init__(self, class_names: Sequence[str], *, over: Network, detail: float):
        super().__init__()
        self.class_names = tuple(class_names)
        self.over = over
        self.stride, self.fill, self.align_corners = 2 * over.stride, over.fill, False
        self.origin = f"two scales of {over.origin}"
        self.heads = ("main", "detail")
        self.weight_of = {"main": 1 - detail, "detail": detail}
        self.attention = nn.Parameter(torch.zeros(self.classes, 1, 1))

    def features(self, image: Tensor) -> list[Tensor]:
        return list(self.over.features(halved(image)))

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        return self.over.decode(features)

    def fused(self, context: Tensor, detail: Tensor) -> Tensor:
        share = self.attention.sigmoid()
        return (1 - share) * context + share * detail

    def forward(self, image: Tensor) -> Output:
        height, width = image.shape[-2:]
        features = self.features(image)
        context = enlarged(self.decode(features), (height, width))
        top, left = (int(torch.randint(side // 2 + 1, ())) for side in (height, width))
        box = (top, left, height // 2, width // 2)
        inside = (..., slice(top, top + height // 2), slice(left, left + width // 2))
        seen = self.over(image[inside]).heads["main"]
        detail = seen.logits
        fused = context.clone()
        fused[inside] = self.fused(context[inside], detail)
        main = Head(fused, self.weight_of["main"], cells=fused)
        return Output({"main": main, "detail": Head(detail, self.weight_of["detail"], box, seen.cells)}, features)

    def infer(self, image: Tensor) -> Tensor:
        context = enlarged(self.decode(self.features(image)), image.shape[-2:])
        halves = [torch.cat([self.over.infer(part) for part in half.chunk(2, -1)], -1) for half in image.chunk(2, -2)]
        return self.fused(context, torch.cat(halves, -2))

    def low_res_logits(self, image: Tensor) -> Tensor:
        return self.infer(image)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        groups = self.over.groups()
        return groups | {"head": [*groups["head"], self.attention]}


def halved(image: Tensor) -> Tensor:
    return F.interpolate(image, scale_factor=0.5, mode="bilinear", align_corners=False)


def enlarged(logits: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(logits.float(), tuple(size), mode="bilinear", align_corners=False)
