"""DANNet's network: one that relights the image first, around any other (Wu et al., CVPR 2021, sec. 3.2 and 3.6).

What relights is CycleGAN's generator with batch norm and few blocks, as in the authors' code (W-zx-Y/DANNet,
network/relighting.py): of a normalised image x it makes a light r in (-1, 1), and the network around which it stands
sees x + r. It is part of the network, and so is saved, evaluated and exported with it.

So is what the authors call probability re-weighting: logits times a number a class, more for rare ones
(evaluate.py:86), for what is used afterwards, not for training. As the authors' it multiplies logits, of whatever sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segda.errors import RecipeError, nearest
from segda.networks.encoders.table import IMAGENET
from segda.networks.network import Network, Output, refuse_smaller
from segda.networks.translator import MULTIPLE, SMALLEST, Generator, at_any_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Lit(Output):
    """What is said of a relit image, with the image before it, normalised, and its light, both (B, 3, H, W)."""

    seen: Tensor
    light: Tensor


class Relit(Network):
    """over: any network; it sees the relit image. Any image that it takes, of at least 8 pixels a side.

    width, blocks: of what relights, see Generator.
    frequencies: the share of each class in the source's labelled pixels, by its name; null for one that never occurs.
    spread: how far the weights of rare classes are from those of frequent ones in what is used afterwards, see
    `weights`. Both null: logits stay as they are.
    """

    mean: Tensor
    deviation: Tensor
    rarity: Tensor

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        over: Network,
        width: int,
        blocks: int,
        frequencies: Mapping[str, float | None] | None,
        spread: float | None,
    ):
        super().__init__()
        for key, value in (("width", width), ("blocks", blocks)):
            if value < 1:
                raise RecipeError(f"network.{key}: {value} is below 1")
        if (frequencies is None) != (spread is None):
            raise RecipeError(
                "network.spread: goes with network.frequencies, of which the weights are made; give both, or neither"
            )
        self.class_names = tuple(class_names)
        self.over = over
        self.stride, self.fill, self.align_corners = max(over.stride, MULTIPLE), over.fill, over.align_corners
        self.heads = over.heads
        self.relighting = Generator(width=width, blocks=blocks, upsampling="transposed", norm="batch")
        self.origin = f"{over.origin}; relighting: random start"
        self.weighs, self.spread = frequencies is not None, spread or 0.0
        # Both are of the recipe and of ImageNet, not learnt: no file holds them.
        rarity = torch.zeros(self.classes) if frequencies is None else log_rarity(frequencies, self.class_names)
        refuse_spread("network.spread", self.spread, rarity)
        self.register_buffer("rarity", rarity, persistent=False)
        for name, colour in (("mean", IMAGENET.mean), ("deviation", IMAGENET.deviation)):
            self.register_buffer(name, torch.tensor(colour).view(3, 1, 1), persistent=False)

    # Light

    def normalised(self, image: Tensor) -> Tensor:
        """RGB in [0, 1] as what relights sees it: less ImageNet's mean, over its deviation."""
        return (image - self.mean) / self.deviation

    def light(self, seen: Tensor) -> Tensor:
        """The light of a normalised image, the same shape."""
        refuse_smaller(seen, SMALLEST, "relit")
        return at_any_size(self.relighting, seen).to(self.mean.dtype)

    def relit(self, image: Tensor) -> Tensor:
        """RGB in [0, 1] -> the image in its light, which may leave [0, 1]."""
        return image + self.light(self.normalised(image)) * self.deviation

    # Weights

    def weights(self, spread: float) -> Tensor:
        """(C,) what classes weigh: 1 in the mean, `spread` their standard deviation, rare ones more."""
        return 1 + spread * self.rarity

    def weighted(self, logits: Tensor) -> Tensor:
        return logits * self.weights(self.spread).view(-1, 1, 1) if self.weighs else logits

    # The contract

    def features(self, image: Tensor) -> list[Tensor]:
        return self.over.features(self.relit(image))

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        return self.over.decode(features)

    def forward(self, image: Tensor) -> Lit:
        seen = self.normalised(image)
        light = self.light(seen)
        output = self.over(image + light * self.deviation)
        return Lit(output.heads, output.features, seen=seen, light=light)

    def infer(self, image: Tensor) -> Tensor:
        return self.weighted(self.over.infer(self.relit(image)))

    def low_res_logits(self, image: Tensor) -> Tensor:
        return self.weighted(self.over.low_res_logits(self.relit(image)))

    def blocks(self) -> list[nn.Module]:
        """Of the network inside, and what relights as a whole: its maps are as large as the image."""
        return [self.relighting, *self.over.blocks()]

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Those of the network inside; light: what relights, which learns at the encoder's rate."""
        return self.over.groups() | {"light": list(self.relighting.parameters())}


def refuse_spread(key: str, spread: float, rarity: Tensor) -> None:
    """RecipeError for one with which frequent classes would weigh more than rare ones, or a class nothing or less."""
    if spread < 0:
        raise RecipeError(f"{key}: {spread:g} is below 0, and rare classes would weigh less than frequent ones")
    lowest = -rarity.min().item()
    if spread * lowest >= 1:
        raise RecipeError(
            f"{key}: with {spread:g} the most frequent class would weigh {1 - spread * lowest:.3g}, not above 0; give "
            f"less than {1 / lowest:.3g}"
        )


def log_rarity(frequencies: Mapping[str, float | None], class_names: Sequence[str]) -> Tensor:
    """(mean(ln f) - ln f_c) / std(ln f) of each class's frequency f_c, std over n - 1: 0 in the mean, 1 in deviation.

    (C,) float32; 0 for a class that never occurs (null), which mean and deviation leave out, and for all where they are
    equally frequent. Wu et al. 2021, eq. 9; W-zx-Y/DANNet train.py:102. RecipeError unless each class is named once.
    """
    for name in frequencies:
        if name not in class_names:
            raise RecipeError(f"network.frequencies: unknown class {name!r}{nearest(name, class_names)}")
    if missing := [name for name in class_names if name not in frequencies]:
        raise RecipeError(
            f"network.frequencies: {len(frequencies)} of {len(class_names)} classes; missing {', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}: give each one's share of the pixels, or null"
        )
    for name, share in frequencies.items():
        if share is not None and not 0 < share <= 1:
            raise RecipeError(
                f"network.frequencies.{name}: {share} is no share of the pixels, in (0, 1]; or write null"
            )
    shares = [frequencies[name] for name in class_names]
    known = torch.tensor([share is not None for share in shares])
    logs = torch.tensor([1.0 if share is None else share for share in shares], dtype=torch.float64).log()
    there = logs[known]
    spread = there.std() if len(there) > 1 else torch.zeros(())
    if spread == 0:
        return torch.zeros(len(shares))
    return torch.where(known, (there.mean() - logs) / spread, 0.0).float()
