"""Methods as small as can be: one with references, one without a source, one with several optimiser steps in a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segda.methods.method import Event, Method, Need, Update
from segda.networks.network import Network
from segda.parts.adversary import frozen
from segda.parts.losses import cross_entropy, supervised
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


class Discrepancy(Method):
    """Two classifiers are to see the target alike, after they were told to differ there (Saito et al., CVPR 2018).

    `other` is the second one; its features' number must be given. The encoder moves `rounds` times a step.
    """

    players = ("student", "other")

    def __init__(self, student: Network, *, features: int, rounds: int):
        super().__init__()
        self.student, self.rounds = student, rounds
        self.other = Classifier(features, student.classes)

    def step(self, batch: Batch, t: int) -> Iterator[Event]:
        yield self.supervision(batch, "source", "other")
        with torch.no_grad():
            before = self.discrepancy(batch)
        yield Update("student")
        yield Update("other")

        with frozen(self.student.encoder):
            kept = self.supervision(batch, "kept", "kept/other")
            yield kept | {"before": before, "apart": -self.discrepancy(batch)}
        yield Update("student")
        yield Update("other")

        for k in range(self.rounds):
            with frozen(self.student.decoder), frozen(self.other):
                yield {f"together/{k}": self.discrepancy(batch)}
            if k < self.rounds - 1:
                yield Update("student")

    def both(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.student.features(image)
        return self.student.decode(features), self.other(features[-1])

    def supervision(self, batch: Batch, one: str, other: str) -> dict[str, Tensor]:
        size = batch.source.label.shape[-2:]
        return {
            name: cross_entropy(
                interpolate(logits.float(), size, mode="bilinear"), batch.source.label, over="all", share=batch.share
            )
            for name, logits in zip((one, other), self.both(batch.source.image), strict=True)
        }

    def discrepancy(self, batch: Batch) -> Tensor:
        one, other = (logits.float().softmax(1) for logits in self.both(batch.target.image))
        return (one - other).abs().mean()


class Classifier(nn.Sequential):
    def __init__(self, features: int, classes: int):
        super().__init__(nn.Conv2d(features, classes, 1))

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"head": list(self.parameters())}
