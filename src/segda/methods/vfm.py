"""VFM-UDA: MIC's step on a vision foundation model (Englert et al., CVPR workshops 2024, sec. 3).

As in the authors' code (tue-mps/vfm-uda `uda_vit_generic.py`) the source's loss is a mean over labelled pixels, the
mix's and the masked one over all; classes are pasted from source images as they are into target images recoloured.
The teacher says the mean over an image and its mirror image (`teacher_mirror`), and follows after a step
(`teacher_after`). What is masked are the encoder's tokens (`masking.of: tokens`).
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
from segda.parts.self_training import PRODUCTS, MixSettings, SelfTraining
from segda.scene import Batch


class VFMUDA(Method):
    """masking: what is masked and how, see parts/masking.py."""

    products: ClassVar = PRODUCTS

    def __init__(self, student: Network, *, masking: MaskingSettings, **settings: Unpack[MixSettings]):
        super().__init__()
        self.student = student
        self.parts = SelfTraining(student, masking=masking, **settings)

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        parts, share = self.parts, batch.share
        parts.follow(self.student, batch, t)
        source = parts.source(batch.source, share)
        output = self.student(source.image)
        terms = {"source": supervised(output, source, over="valid", share=share)}
        yield terms | entropy_summary("source", output.logits)
        if t < parts.begin:
            return

        pseudo, terms = parts.labelled(batch)
        mixed = parts.mixed(batch, pseudo)
        output = self.student(mixed.image)
        terms["mix"] = supervised(output, mixed, over="all", share=share)
        yield terms | entropy_summary("mixed", output.logits)
        yield from parts.masked(self.student, batch, pseudo)
