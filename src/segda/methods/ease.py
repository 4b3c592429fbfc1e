"""EASE: self-training that begins late, where the entropy of the prediction chooses what is learnt (segda's own).

Self-training teaches a network its own answers, so it pays once they are good, and only for the pixels where they are.
EASE joins what two works say of the entropy H of the prediction, in nats:

- ESL (Saporta et al. 2020) keeps, between two trainings, the pseudo-labels of low entropy, class by class. Here the
  same choice is made in each step: a pixel x whose most probable class is c counts if H(x) <= max(floor, median of H
  over the step's pixels of class c). Of each class at least the surer half is learnt, so that rare classes, which are
  never as sure as the road, are not lost; of sure classes all below the floor.
- EBDA (vron8632/EB_DA) holds the entropy of mixed images at a level, by a term. `balance: null` leaves it out.

The rest is DACS (Tranheden et al. 2021): half of a source image's classes, pasted with their labels into a target image
with its pseudo-labels of a mean teacher. The first `begin` steps are source-only's, number for number, with
`source_photometric` as its colour jitter: what is gained afterwards is adaptation's.

    for each step t:
        teacher <- mean of the student's weights
        minimise cross entropy on the recoloured source
        if t >= begin:
            label the target with the teacher; select pixels by the entropy of their class
            paste source classes into it, in their own colours or the target's; recolour
            minimise cross entropy on the mixed images over the selected pixels (+ balance)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor

from segda.methods.method import Method
from segda.networks.network import Network
from segda.parts.colour_transfer import PasteColours
from segda.parts.entropy import Balance, balance, entropy, entropy_summary
from segda.parts.losses import supervised
from segda.parts.masking import MaskingSettings
from segda.parts.mixing import ClassesOf
from segda.parts.photometric import Photometric
from segda.parts.self_training import PRODUCTS, SelfTraining
from segda.scene import Batch


class EASE(Method):
    """decay: of the teacher. floor: nats; below it a pixel counts whatever its class. momentum: of running medians;
    None takes the step's. begin: the first step of self-training. classes_of, photometric: of the mix, as DACS's.
    source_photometric: how source images are recoloured and blurred, in all steps; None leaves them as they are.
    paste_colours: whose colours the pasted classes have, their own or the target image's.
    balance: EBDA's term on the mixed images; None has none.
    masking: a masked pass as MIC's after the mix; None has none.
    """

    products: ClassVar = PRODUCTS

    def __init__(
        self,
        student: Network,
        *,
        decay: float,
        floor: float,
        begin: int,
        classes_of: ClassesOf,
        photometric: Photometric,
        source_photometric: Photometric | None,
        balance: Balance | None,
        momentum: float | None = None,
        paste_colours: PasteColours = "source",
        masking: MaskingSettings | None = None,
    ):
        super().__init__()
        self.student = student
        self.balance = balance
        self.parts = SelfTraining(
            student,
            decay=decay,
            threshold=floor,
            selection="class-entropy",
            selection_momentum=momentum,
            begin=begin,
            classes_of=classes_of,
            photometric=photometric,
            source_photometric=source_photometric,
            paste_colours=paste_colours,
            masking=masking,
        )

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
        terms |= {"mix": supervised(output, mixed, over="all", share=share)} | entropy_summary("mixed", output.logits)
        if self.balance is not None:
            terms["balance"] = self.balance.weight * balance(entropy(output.logits), self.balance.level)
        yield terms
        yield from parts.masked(self.student, batch, pseudo)
