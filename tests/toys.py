"""Methods that no paper has: one that learns with references, one that learns without a source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor

from segda.methods.method import Method, Need
from segda.networks.network import Network
from segda.parts.losses import supervised
from segda.scene import Batch


class Referenced(Method):
    """The target is to look like its reference."""

    reference: ClassVar[Need] = "must"

    def __init__(self, student: Network, *, weight: float):
        super().__init__()
        self.student, self.weight = student, weight

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        yield {"source": supervised(self.student(batch.source.image), batch.source, over="all", share=batch.share)}
        night, day = (self.student(scene.image).logits.softmax(1) for scene in (batch.target, batch.reference))
        yield {"alike": self.weight * (night - day).square().mean()}


class SourceFree(Method):
    """The target is to be told apart from grey."""

    source: ClassVar[Need] = "never"
    reference: ClassVar[Need] = "may"

    def __init__(self, student: Network):
        super().__init__()
        self.student = student

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        yield {"sure": -self.student(batch.target.image).logits.softmax(1).square().mean()}
