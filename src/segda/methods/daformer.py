"""DAFormer: DACS on a transformer, held near its ImageNet features (Hoyer et al., CVPR 2022, sec. 3).

Rare-class sampling and the warm-up of the learning rate, the paper's other two parts, are settings of the recipe.
As in the authors' code (lhoyer/DAFormer `dacs.py`), the loss is averaged over all pixels, ignored ones included.
`feature_distance: null` leaves the feature distance out, for a network that does not start from pretrained weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor

from segda.methods.method import Method
from segda.networks.network import Network
from segda.parts.entropy import entropy_summary
from segda.parts.feature_distance import FeatureDistance, FeatureDistanceSettings
from segda.parts.losses import supervised
from segda.parts.mixing import ClassesOf, class_mix
from segda.parts.photometric import Photometric, photometric
from segda.parts.pseudo import confidence, confident_fraction
from segda.parts.teacher import Teacher
from segda.scene import Batch


class DAFormer(Method):
    products: ClassVar = {"student": "student", "teacher": "teacher.network"}
    constants = ("feature_distance",)

    def __init__(
        self,
        student: Network,
        *,
        decay: float,
        threshold: float,
        classes_of: ClassesOf,
        photometric: Photometric,
        feature_distance: FeatureDistanceSettings | None,
    ):
        super().__init__()
        self.student = student
        self.teacher = Teacher(student, decay)
        self.feature_distance = None if feature_distance is None else FeatureDistance(student, feature_distance)
        self.threshold = threshold
        self.classes_of = classes_of
        self.photometric = photometric

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        share = batch.share
        self.teacher.follow(self.student, t, share)
        start = None if self.feature_distance is None else self.feature_distance.at_start(batch.source, share)
        output = self.student(batch.source.image)
        terms = {"source": supervised(output, batch.source, over="all", share=share)}
        if start is not None:
            terms["feature_distance"] = self.feature_distance(output, start)
        yield terms | entropy_summary("source", output.logits)

        logits = self.teacher(batch.target.image)
        pseudo = confident_fraction(logits, batch.target, self.threshold, share=share)
        terms = {"confident": confidence(pseudo)} | entropy_summary("target", logits)
        mixed = class_mix(batch.source, pseudo, classes_of=self.classes_of, share=share)
        image = photometric(mixed.image, self.photometric, share=share)

        output = self.student(image)
        terms["mix"] = supervised(output, mixed, over="all", share=share)
        yield terms | entropy_summary("mixed", output.logits)
