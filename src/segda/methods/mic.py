"""MIC: DAFormer with a pass over masked images (Hoyer et al., CVPR 2023, sec. 3).

The masked pass follows that of the mix, before the optimiser's step; it has the mix's pseudo-labels and weights, but
neither pasted classes nor the mix's recolouring (lhoyer/MIC `dacs.py`, `masking_consistency_module.py`).
`feature_distance: null` makes it DACS with masks. On HRDA's network it is the paper's MIC(HRDA).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Unpack

from torch import Tensor

from segda.methods.method import Method
from segda.networks.network import Network
from segda.parts.entropy import entropy_summary
from segda.parts.losses import supervised
from segda.parts.masking import MaskingSettings
from segda.parts.self_training import CONSTANTS, PRODUCTS, HeldSettings, SelfTraining
from segda.scene import Batch


class MIC(Method):
    """masking: what is masked and how, see parts/masking.py."""

    products: ClassVar = PRODUCTS
    constants = CONSTANTS

    def __init__(self, student: Network, *, masking: MaskingSettings, **settings: Unpack[HeldSettings]):
        super().__init__()
        self.student = student
        self.parts = SelfTraining(student, masking=masking, **settings)

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
        terms["mix"] = supervised(output, mixed, over="all", share=share)
        yield terms | entropy_summary("mixed", output.logits)
        yield from parts.masked(self.student, batch, pseudo)
