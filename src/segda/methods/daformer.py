"""DAFormer: DACS on a transformer, held near its ImageNet features (Hoyer et al., CVPR 2022, sec. 3).

Rare-class sampling and the warm-up of the learning rate, the paper's other two parts, are settings of the recipe.
As in the authors' code (lhoyer/DAFormer `dacs.py`), the loss is averaged over all pixels, ignored ones included.
`feature_distance: null` leaves the feature distance out, for a network that does not start from pretrained weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Unpack

from torch import Tensor

from segda.methods.method import Method
from segda.networks.network import Network
from segda.parts.entropy import entropy_summary
from segda.parts.losses import supervised
from segda.parts.self_training import CONSTANTS, PRODUCTS, HeldSettings, SelfTraining
from segda.scene import Batch, Scene


class DAFormer(Method):
    products: ClassVar = PRODUCTS
    constants = CONSTANTS

    def __init__(self, student: Network, **settings: Unpack[HeldSettings]):
        super().__init__()
        self.student = student
        self.parts = SelfTraining(student, **settings)

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

        pseudo, terms = self.labelled(batch)
        mixed = parts.mixed(batch, pseudo)
        output = self.student(mixed.image)
        terms["mix"] = supervised(output, mixed, over="all", share=share)
        yield terms | entropy_summary("mixed", output.logits)

    def labelled(self, batch: Batch) -> tuple[Scene, dict[str, Tensor]]:
        """The target with its pseudo-labels, and what the log says of them."""
        return self.parts.labelled(batch)
