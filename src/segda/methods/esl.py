"""ESL: AdvEnt with pseudo-labels that the entropy chose (Saporta et al., ESL, CVPR workshops 2020, arXiv 2006.08658).

Three stages; `segda train esl_X` runs them all, as do these commands:

    segda train advent_X --out runs/advent
    segda pseudo-label runs/advent --rule entropy-median --data TARGET --out labels
    segda train esl_X --set data.target.labels=./labels

The last one is AdvEnt's step with one term more, the target's cross entropy with its pseudo-labels, weighted like the
source's. It starts from the encoder's pretrained weights again, not from the network that made the labels. The authors'
code upsamples the target's logits a second time for that term (train_UDA.py:135), which changes nothing.
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


class ESL(Method):
    """adversarial_weight: factor of each head's adversarial loss. width: of the discriminators' first layer."""

    players = ("student", "discriminators")
    target_labels = "must"

    def __init__(self, student: Network, *, adversarial_weight: dict[str, float | None], width: int):
        super().__init__()
        self.student = student
        self.adversarial_weight = of_each_head(student, "adversarial_weight", adversarial_weight)
        self.discriminators = Discriminators(student.heads, student.classes, width)

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        share = batch.share
        output = self.student(batch.source.image)
        terms = {"source": supervised(output, batch.source, over="valid", share=share)}
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
            terms["pseudo"] = supervised(output, batch.target, over="valid", share=share)
            yield terms | entropy_summary("target", output.logits)
        target = {head: maps.detach() for head, maps in target.items()}

        for name, maps, domain in (("source", source, SOURCE), ("target", target, TARGET)):
            scores = self.discriminators(maps)
            yield {f"discriminator/{head}/{name}": adversarial_loss(scores[head], domain) / 2 for head in scores}
