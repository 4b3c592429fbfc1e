"""A method without a student: two recolourings, of source images into target ones and back, and an adversary of each.

As small as CycleGAN can be (Zhu et al., ICCV 2017): a generator is a 3 x 3 convolution of the image, added to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from segda.methods.method import Method
from segda.parts.adversary import SOURCE, TARGET, Discriminators, adversarial_loss, frozen
from segda.scene import Batch


class Generators(nn.ModuleDict):
    def __init__(self, names: tuple[str, ...]):
        super().__init__({name: nn.Conv2d(3, 3, 3, padding=1) for name in names})

    def forward(self, image: Tensor, to: str) -> Tensor:
        return image + self[to](image)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {name: list(generator.parameters()) for name, generator in self.items()}


class Recolouring(Method):
    products: ClassVar = {"translator": "generators.target", "backward": "generators.source"}
    players = ("generators", "discriminators")
    constants = ("grey",)
    fill = (0.5, 0.5, 0.5)

    def __init__(self, *, cycle_weight: float, width: int):
        super().__init__()
        self.cycle_weight = cycle_weight
        self.generators = Generators(("target", "source"))
        self.discriminators = Discriminators(("target", "source"), 3, width)
        self.grey = nn.Conv2d(3, 1, 1).requires_grad_(False)

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        real = {"source": batch.source.image, "target": batch.target.image}
        fake = {}
        for domain, other, answer in (("target", "source", TARGET), ("source", "target", SOURCE)):
            fake[domain] = self.generators(real[other], domain)
            back = self.generators(fake[domain], other)
            with frozen(self.discriminators):
                score = self.discriminators[domain](fake[domain])
                yield {
                    f"fool/{domain}": adversarial_loss(score, answer),
                    f"cycle/{domain}": self.cycle_weight * (back - real[other]).abs().mean(),
                    f"grey/{domain}": self.grey(fake[domain] - real[other]).abs().mean(),
                }
            fake[domain] = fake[domain].detach()
        for domain in fake:
            scores = self.discriminators[domain](torch.cat((real[domain], fake[domain])))
            judged = zip(scores.chunk(2), (TARGET, SOURCE), strict=True)
            yield {f"judge/{domain}": sum(adversarial_loss(score, answer) for score, answer in judged) / 2}
