"""CycleGAN: paint source images in the target's style and back, so that both stay what they show.

Zhu et al., ICCV 2017, as BDL trains it (Li, Yuan, Vasconcelos, CVPR 2019, sec. 3.2; liyunsheng13/BDL cyclegan/): with
identity terms, and with two perceptual ones. These compare what a trained segmentation network (`given: {perceptual:
RUN}`) says of an image and of what was made of it, by squares as in the authors' code; the paper's L1 is a slip (their
issue 7). Without such a network, set their weights to 0.

Of the authors' step: both generators step once for the sum of all terms; the discriminators then judge what was painted
before that step. Their perceptual network has but two of its four dilations, by a `return` inside a loop
(cyclegan/deeplab.py:119). Here it is the network that was trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segda.errors import RecipeError
from segda.methods.method import Event, Method, Update
from segda.networks.network import Network
from segda.networks.translator import Generator, PatchDiscriminator, Upsampling, init_weights
from segda.parts.adversary import frozen, squared_error
from segda.parts.image_pool import ImagePool
from segda.scene import Batch

REAL, PAINTED = 1.0, 0.0
"""What a discriminator is taught to say."""

OTHER = {"target": "source", "source": "target"}


class ByDomain(nn.ModuleDict):
    """A network for each domain, by its name: one that paints images of it, or judges them."""

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {domain: list(network.parameters()) for domain, network in self.items()}


class CycleGAN(Method):
    """width, blocks, upsampling: of the generators. judge_width: of the discriminators. pool: painted images of a
    domain that the discriminators may see again.
    cycle_weight, identity_weight: factors of these terms. perceptual_weight: the factor of a painted image's perceptual
    term, against its original. reconstruction_weight: the same of the one that was painted back.
    """

    products: ClassVar = {"translator": "generators.target", "translator_back": "generators.source"}
    players = ("generators", "discriminators")
    fill = (0.5, 0.5, 0.5)

    def __init__(
        self,
        *,
        width: int,
        blocks: int,
        upsampling: Upsampling,
        judge_width: int,
        pool: int,
        cycle_weight: float,
        identity_weight: float,
        perceptual_weight: float,
        reconstruction_weight: float,
        perceptual: Network | None = None,
    ):
        super().__init__()
        weights = {
            "cycle_weight": cycle_weight, "identity_weight": identity_weight, "perceptual_weight": perceptual_weight,
            "reconstruction_weight": reconstruction_weight,
        }  # fmt: skip
        sizes = {"width": width, "judge_width": judge_width}
        for least, settings in ((1, sizes), (0, {"blocks": blocks, "pool": pool}), (0, weights)):
            for key, value in settings.items():
                if value < least:
                    raise RecipeError(f"method.{key}: {value} is below {least}; give {least} or more")
        perceives = perceptual_weight > 0 or reconstruction_weight > 0
        if perceives != (perceptual is not None):
            raise RecipeError(
                "method.perceptual_weight and reconstruction_weight: need a trained network: given: {perceptual: RUN};"
                " without one, set both to 0"
                if perceives
                else "given.perceptual: has no effect: method.perceptual_weight and reconstruction_weight are 0"
            )
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight
        self.perceptual_weight, self.reconstruction_weight = perceptual_weight, reconstruction_weight
        self.perceptual = perceptual
        self.generators = ByDomain(
            {domain: Generator(width=width, blocks=blocks, upsampling=upsampling) for domain in OTHER}
        )
        self.discriminators = ByDomain({domain: PatchDiscriminator(width=judge_width) for domain in OTHER})
        self.pools = nn.ModuleDict({domain: ImagePool(pool) for domain in OTHER})
        for network in (self.generators, self.discriminators):
            init_weights(network)

    def step(self, batch: Batch, t: int) -> Iterator[Event]:
        real = {domain: 2 * getattr(batch, domain).image - 1 for domain in OTHER}
        with frozen(self.discriminators):
            terms, painted = self.painting(real)
            yield terms
        yield Update("generators")

        for domain in OTHER:
            shown = self.pools[domain](painted[domain], batch.share, f"pool/{domain}")
            judge = self.discriminators[domain]
            yield {
                f"judge/{domain}": (squared_error(judge(real[domain]), REAL) + squared_error(judge(shown), PAINTED)) / 2
            }

    def painting(self, real: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """All terms of the generators, and the painted images by the domain that they are to look like."""
        terms, painted = {}, {}
        for domain, other in OTHER.items():
            image = self.generators[domain](real[other])
            back = self.generators[other](image)
            terms[f"style/{domain}"] = squared_error(self.discriminators[domain](image), REAL)
            terms[f"cycle/{other}"] = self.cycle_weight * F.l1_loss(back, real[other])
            if self.identity_weight > 0:
                same = self.generators[domain](real[domain])
                terms[f"identity/{domain}"] = self.identity_weight * F.l1_loss(same, real[domain])
            if self.perceptual is not None:
                with torch.no_grad():
                    seen = self.perceived(real[other])
                for name, weight, made in (
                    (f"perceptual/{domain}", self.perceptual_weight, image),
                    (f"reconstruction/{other}", self.reconstruction_weight, back),
                ):
                    if weight > 0:
                        terms[name] = weight * F.mse_loss(self.perceived(made), seen)
            painted[domain] = image.detach()
        return terms, painted

    def perceived(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> what the given network says of it, at its own resolution: logits with mean 0 and
        deviation 1 in each image and class.
        """
        assert self.perceptual is not None
        return F.instance_norm(self.perceptual.low_res_logits((image + 1) / 2).float())
