"""EBDA: DAFormer with the entropy of the mixed images' prediction held at a level (vron8632/EB_DA).

The balance is mean((H - level)^2) over all pixels, H in nats: it keeps the network from being sure too early as well
as from staying unsure. The authors' code runs the mixed batch through the student a second time for it, with other
dropout draws; here it shares the forward pass of the mixed loss (`second_pass: true` does as they do).
`level: auto` follows a running statistic of H, which the authors' code keeps commented out. `masking` adds MIC's masked
pass, whose prediction may have a balance of its own (`masking.balance`).

On the small benchmarks that run here the term gained nothing in any variant that was tried (docs/results/ease.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Unpack

from torch import Tensor

from segda.errors import RecipeError
from segda.methods.method import Method
from segda.networks.network import Network
from segda.parts.entropy import Level, balance, distance, entropy, entropy_summary
from segda.parts.losses import supervised
from segda.parts.masking import MaskingSettings
from segda.parts.self_training import CONSTANTS, PRODUCTS, HeldSettings, SelfTraining
from segda.scene import Batch


class EBDA(Method):
    """balance_weight: factor of the balance.
    level: of the entropy, in nats; auto: a running statistic of it.
    level_statistic, level_quantile, level_momentum: of `level: auto`, see `Level`.
    balance_as: term, one of the loss; pixel_weight, what is far from the level weighs more in the mixed loss.
    second_pass: whether the balance has a pass of its own, as in the authors' code.
    masking: MIC's masked pass; None has none.
    """

    products: ClassVar = PRODUCTS
    constants = CONSTANTS

    def __init__(
        self,
        student: Network,
        *,
        balance_weight: float,
        level: float | Literal["auto"],
        level_statistic: Literal["mean", "quantile"] | None = None,
        level_quantile: float | None = None,
        level_momentum: float | None = None,
        balance_as: Literal["term", "pixel_weight"] = "term",
        second_pass: bool = False,
        masking: MaskingSettings | None = None,
        **settings: Unpack[HeldSettings],
    ):
        super().__init__()
        if second_pass and balance_as == "pixel_weight":
            raise RecipeError("method.second_pass has no effect with balance_as: pixel_weight; remove one of them")
        self.student = student
        self.parts = SelfTraining(student, masking=masking, **settings)
        self.level = Level(level, level_statistic, level_quantile, level_momentum)
        self.balance_weight = balance_weight
        self.balance_as = balance_as
        self.second_pass = second_pass

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        parts, share = self.parts, batch.share
        parts.follow(self.student, batch, t)
        source = parts.source(batch.source, share)
        start = parts.at_start(source, share)
        output = self.student(source.image)
        terms = {"source": supervised(output, source, over="all", share=share)} | parts.held(output, start)
        yield terms | entropy_summary("source", output.logits)
        if t < parts.begin:
            return

        pseudo, terms = parts.labelled(batch)
        mixed = parts.mixed(batch, pseudo)
        output = self.student(mixed.image)
        if self.balance_as == "pixel_weight":
            unsure = entropy(output.logits.detach())
            assert mixed.weight is not None
            weight = mixed.weight + self.balance_weight * distance(unsure, self.level.follow(unsure, share))
            mixed = mixed.replace(weight=weight)
        terms |= {"mix": supervised(output, mixed, over="all", share=share)} | entropy_summary("mixed", output.logits)
        if self.second_pass:
            yield terms
            output, terms = self.student(mixed.image), {}
        if self.balance_as == "term":
            unsure = entropy(output.logits)
            terms["balance"] = self.balance_weight * balance(unsure, self.level.follow(unsure, share))
        yield terms
        yield from parts.masked(self.student, batch, pseudo)
