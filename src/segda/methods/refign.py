"""Refign: DAFormer with a reference image of each target image, of the same place in good conditions (Bruggemann et
al., WACV 2023, sec. 3).

In some of the steps the target is the reference alone; in the others the teacher looks at both, and what it says of
the reference refines what it says of the target. The authors' matcher, which lays the reference over the target, needs
weights of its own and is not here: `certainty` is one number for all pixels, their code's 0.5 without a matcher, or
more where the pairs lie over each other. `feature_distance: null` makes it DACS with references.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from segda.errors import RecipeError, nearest
from segda.methods.daformer import DAFormer
from segda.networks.network import Network
from segda.parts.entropy import entropy_summary
from segda.parts.refinement import refined
from segda.parts.self_training import HeldSettings
from segda.scene import Batch, Scene


class Refign(DAFormer):
    """gamma, certainty: see parts/refinement.py. static: names of the classes that are large and stand still.
    reference_alone: the probability that a step's target is the reference alone.
    """

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
        super().__init__(student, **settings)
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

    def labelled(self, batch: Batch) -> tuple[Scene, dict[str, Tensor]]:
        """The target with refined labels, or in some of the steps the reference alone with the teacher's. What the log
        says of them has the share of pixels whose class the reference changed besides.
        """
        if batch.share.rng("reference alone").random() < self.reference_alone:
            pseudo, said = super().labelled(batch.replace(target=batch.reference))
            return pseudo, said | {"changed": torch.zeros_like(said["confident"])}
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
