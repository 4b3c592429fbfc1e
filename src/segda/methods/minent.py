"""MinEnt: make the network sure of the target by minimising its entropy there (Vu et al., ADVENT, CVPR 2019, sec. 3.1).

Source and target share one optimisation step but not a graph: the source's is freed before the target's is made. The
authors' code crashes on a network without the auxiliary head (train_UDA.py:279); this does not.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from segda.methods.method import Method
from segda.networks.network import Network, of_each_head
from segda.parts.entropy import entropy_summary, mean_entropy
from segda.parts.losses import supervised
from segda.scene import Batch


class MinEnt(Method):
    """entropy_weight: factor of each head's mean entropy."""

    def __init__(self, student: Network, *, entropy_weight: dict[str, float | None]):
        super().__init__()
        self.student = student
        self.entropy_weight = of_each_head(student, "entropy_weight", entropy_weight)

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        output = self.student(batch.source.image)
        terms = {"source": supervised(output, batch.source, over="valid", share=batch.share)}
        yield terms | entropy_summary("source", output.logits)
        output = self.student(batch.target.image)
        heads = output.heads
        terms = {f"entropy/{head}": self.entropy_weight[head] * mean_entropy(heads[head].logits) for head in heads}
        yield terms | entropy_summary("target", output.logits)
