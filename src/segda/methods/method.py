"""The contract of methods: one paper, one file, one generator.

A method is an `nn.Module` with a `student`, the names of its `players` (submodules that have an optimiser, each with
`groups()` of its parameters as a network has), and

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]

One yield is one backward pass. The keys are what is logged; the values that have a gradient are summed and minimised,
a value without one is only logged, and may be a vector (a histogram). Terms that share a graph share a yield. The text
of `step` is the order of events; precision, scaling, optimisers, logging and saving are the trainer's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from torch import Tensor, nn

from segda.networks.network import Network
from segda.scene import Batch

Need = Literal["never", "may", "must"]
"""Whether a method takes something that a recipe can give: it has no use for it, uses it where given, needs it."""


class Method(nn.Module):
    """The contract. Settings are keyword-only arguments of `__init__`; a number that a paper chose has no default."""

    student: Network
    players: ClassVar[tuple[str, ...]] = ("student",)
    learns_target_labels: ClassVar[bool] = False
    """Whether the target scenes must have pseudo-labels (`data.target.labels`)."""

    source: ClassVar[Need] = "must"
    """Labelled scenes of another domain, `data.source`."""

    reference: ClassVar[Need] = "never"
    """A scene that belongs to the target's or the source's, `data.reference`."""

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        raise NotImplementedError
