"""AdvEnt: make the target's entropy maps look like the source's (Vu et al., ADVENT, CVPR 2019, sec. 3.2).

A discriminator for each head sees the self-information maps of its logits. As in the authors' code the student is
fooled with the answer "source", the discriminators learn from the same forward passes, made before anything is updated,
and each of their two losses is halved (train_UDA.py:144 and following).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from segda.methods.method import Method
from segda.networks.network import Network, of_each_head
from segda.parts.adversary import SOURCE, TARGET, Discriminators, adversarial_loss, frozen
from segda.parts.entropy import entropy_summary, information
from segda.parts.losses import supervised
from segda.scene import Batch


class AdvEnt(Method):
    """adversarial_weight: factor of each head's adversarial loss. width: of the discriminators' first layer."""

    players = ("student", "discriminators")

    def __init__(self, student: Network, *, adversarial_weight: dict[str, float | None], width: int):
        super().__init__()
        self.student = student
        self.adversarial_weight = of_each_head(student, "adversarial_weight", adversarial_weight)
        self.discriminators = Discriminators(student.heads, student.classes, width)

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        output = self.student(batch.source.image)
        terms = {"source": supervised(output, batch.source, over="valid", share=batch.share)}
        yield terms | entropy_summary("source", output.logits)
        with torch.no_grad():
            source = information(output)

        output = self.student(batch.target.image)
        target = information(output)
        with frozen(self.discriminators):
            scores = self.discriminators(target)
            terms = {
                f"fool/{head}": self.adversarial_weight[head] * adversarial_loss(scores[head], SOURCE)
                for head in scores
            }
            yield terms | entropy_summary("target", output.logits)
        target = {head: maps.detach() for head, maps in target.items()}

        for name, maps, domain in (("source", source, SOURCE), ("target", target, TARGET)):
            scores = self.discriminators(maps)
            yield {f"discriminator/{head}/{name}": adversarial_loss(scores[head], domain) / 2 for head in scores}
