"""BDL: AdvEnt's game on plain probabilities, on translated source images, with pseudo-labels as soon as there are some.

Li, Yuan, Vasconcelos, Bidirectional Learning, CVPR 2019 (liyunsheng13/BDL, BDL.py). The other direction is the
translator's: it learns with a perceptual term of the network that this method trains (methods/cyclegan.py), and so in
turn, whole trainings one after the other; the recipes' stages are those turns.

The discriminator sees the softmax, as in AdaptSegNet (Tsai et al., CVPR 2018), and everything learns from forward
passes that were made before anything is updated. Each of the discriminator's two losses is halved.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from segda.methods.method import Method
from segda.networks.network import Network, Output, of_each_head
from segda.parts.adversary import SOURCE, TARGET, Discriminators, adversarial_loss, frozen
from segda.parts.entropy import entropy_summary
from segda.parts.losses import supervised
from segda.scene import Batch


class BDL(Method):
    """adversarial_weight: factor of each head's adversarial loss. width: of the discriminators' first layer."""

    players = ("student", "discriminators")
    target_labels = "may"

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
            source = probabilities(output)

        output = self.student(batch.target.image)
        target = probabilities(output)
        with frozen(self.discriminators):
            scores = self.discriminators(target)
            terms = {
                f"fool/{head}": self.adversarial_weight[head] * adversarial_loss(scores[head], SOURCE)
                for head in scores
            }
            if batch.target.label is not None:
                terms["pseudo"] = supervised(output, batch.target, over="valid", share=share)
            yield terms | entropy_summary("target", output.logits)
        target = {head: maps.detach() for head, maps in target.items()}

        for name, maps, domain in (("source", source, SOURCE), ("target", target, TARGET)):
            scores = self.discriminators(maps)
            yield {f"discriminator/{head}/{name}": adversarial_loss(scores[head], domain) / 2 for head in scores}


def probabilities(output: Output) -> dict[str, Tensor]:
    """Of each head (B, C, H, W) float32 probabilities."""
    return {name: head.logits.float().softmax(1) for name, head in output.heads.items()}
