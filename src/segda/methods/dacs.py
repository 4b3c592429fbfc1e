"""DACS: self-training on source classes pasted into the target (Tranheden et al., WACV 2021, algorithm 1).

As in the authors' code (vikolss/DACS), a mixed pixel that comes from the target weighs the share of confident pixels
of the batch. `classes_of: image` is what the paper says; DAFormer's code lists the classes of the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Unpack

from torch import Tensor

from segda.methods.method import Method
from segda.networks.network import Network
from segda.parts.entropy import entropy_summary
from segda.parts.losses import supervised
from segda.parts.self_training import PRODUCTS, MixSettings, SelfTraining
from segda.scene import Batch


class DACS(Method):
    products: ClassVar = PRODUCTS

    def __init__(self, student: Network, **settings: Unpack[MixSettings]):
        super().__init__()
        self.student = student
        self.parts = SelfTraining(student, **settings)

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        parts, share = self.parts, batch.share
        parts.follow(self.student, batch, t)
        source = parts.source(batch.source, share)
        output = self.student(source.image)
        terms = {"source": supervised(output, source, over="all", share=share)}
        yield terms | entropy_summary("source", output.logits)
        if t < parts.begin:
            return

        pseudo, terms = parts.labelled(batch)
        mixed = parts.mixed(batch, pseudo)
        output = self.student(mixed.image)
        terms["mix"] = supervised(output, mixed, over="all", share=share)
        yield terms | entropy_summary("mixed", output.logits)
