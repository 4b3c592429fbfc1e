"""MGCDA: from day to night by way of twilight (Sakaridis et al., PAMI 2020; GCMA, ICCV 2019).

Each training is a supervised one; what it learns from is the method. Its source is a union: labelled images of another
domain, and images of the target's domain, by day and then at twilight, with labels of the training before
(`data.source.labels`). Those of the twilight are refined with what is seen of the same places by day
(pseudo_labelling/refine.py). Images of the night are never learnt from. The stages stand in recipes/methods/mgcda.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from segda.methods.method import Method
from segda.networks.network import Network
from segda.parts.entropy import entropy_summary
from segda.parts.losses import supervised
from segda.parts.photometric import Photometric, photometric
from segda.scene import Batch


class MGCDA(Method):
    """photometric: jitter and blur of the source, as with source_only; None as published."""

    def __init__(self, student: Network, *, photometric: Photometric | None):
        super().__init__()
        self.student = student
        self.photometric = photometric

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        source = batch.source
        if self.photometric is not None:
            source = source.replace(image=photometric(source.image, self.photometric, share=batch.share))
        output = self.student(source.image)
        terms = {"source": supervised(output, source, over="valid", share=batch.share)}
        yield terms | entropy_summary("source", output.logits)
