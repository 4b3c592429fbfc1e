"""Refign: DAFormer with a reference image of each target image, of the same place in good conditions (Bruggemann et
al., WACV 2023, sec. 3).

In some of the steps the target is the reference alone; in the others the teacher looks at both, and what it says of
the reference refines what it says of the target. The authors' matcher, which lays the reference over the target, needs
weights of its own and is not here: `certainty` is one number for all pixels, their code's 0.5 without a matcher, or
more where the pairs lie over each other. `feature_distance: null` makes it DACS with references.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from segda.errors import RecipeError, nearest
from segda.methods.method import Method
from segda.networks.network import Network
from segda.parts.entropy import entropy_summary
from segda.parts.losses import supervised
from segda.parts.refinement import refined
from segda.parts.self_training import CONSTANTS, PRODUCTS, HeldSettings, SelfTraining
from segda.scene import Batch, Scene


class Refign(Method):
    """gamma, certainty: see parts/refinement.py. static: names of the classes that are large and stand still.
    reference_alone: the probability that a step's target is the reference alone.
    """

    products: ClassVar = PRODUCTS
    constants = CONSTANTS
    reference = "must"

    static: Tensor

    def __init__(
        self,
        student: Network,
        *,
        gamma: float,
        static: Sequence[str],
        certainty: float,
        reference_alone: float,
        **settings: Unpack[HeldSettings],
    ):
        super().__init__()
        if gamma <= 0:
            raise RecipeError(f"method.gamma: {gamma:g} is not above 0")
        for key, number in (("certainty", certainty), ("reference_alone", reference_alone)):
            if not 0 <= number <= 1:
                raise RecipeError(f"method.{key}: {number:g} is not in [0, 1]")
        for name in static:
            if name not in student.class_names:
                raise RecipeError(f"method.static: no class {name!r}{nearest(name, student.class_names)}")
        self.gamma, self.certainty, self.reference_alone = gamma, certainty, reference_alone
        self.register_buffer("static", torch.tensor([name in static for name in student.class_names]), persistent=False)
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

        if share.rng("reference alone").random() < self.reference_alone:
            pseudo, terms = parts.labelled(batch.replace(target=batch.reference))
            terms["changed"] = torch.zeros_like(terms["confident"])
        else:
            pseudo, terms = self.labelled(batch)
        mixed = parts.mixed(batch, pseudo)
        output = self.student(mixed.image)
        terms["mix"] = supervised(output, mixed, over="all", share=share)
        yield terms | entropy_summary("mixed", output.logits)

    def labelled(self, batch: Batch) -> tuple[Scene, dict[str, Tensor]]:
        """The target with refined labels, and what the log says of them: besides the confident share and the teacher's
        entropy, the share of pixels whose class the reference changed.
        """
        target, select = batch.target, self.parts.select
        logits, by_day = self.parts.teacher(torch.cat([target.image, batch.reference.image])).chunk(2)
        before = logits.float().softmax(1)
        probabilities = refined(
            before, by_day.float().softmax(1), gamma=self.gamma, static=self.static, certainty=self.certainty
        )
        pseudo = select.of_probabilities(probabilities, target, batch.share)
        changed = (before.argmax(1) != probabilities.argmax(1)).float().mean()
        said = {"confident": select.confident(pseudo), "changed": changed}
        return pseudo, said | entropy_summary("target", logits)
