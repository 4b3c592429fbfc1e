"""DANNet: night is relit, and learns from the same place by day (Wu et al., CVPR 2021, arXiv 2104.10834).

The student relights what it sees (networks/relit.py). Two discriminators make day and night look like the source; a
static loss teaches night's street, houses and sky what day and night together see there; light losses keep relit images
natural. The network begins as a trained one of the source (`start`).

As in the authors' code (W-zx-Y/DANNet, train.py): batch norm sees day, night and source one after the other; the
target's logits may be brought to a size of their own before any loss (their 960 x 960 for crops of 512); the level of
brightness is the mean of the night's images, for all three domains; discriminators' losses are halved.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor

from segda.errors import RecipeError, nearest
from segda.ground.ignore import IGNORE
from segda.methods.method import Method
from segda.networks.network import Output
from segda.networks.relit import Lit, Relit, refuse_spread
from segda.parts.adversary import FINE, SOURCE, TARGET, Discriminators, frozen, squared_error
from segda.parts.class_weights import weighted
from segda.parts.entropy import entropy_summary
from segda.parts.light import dissimilarity, exposure, variation
from segda.parts.losses import supervised
from segda.parts.static import Neighbours, static_label, static_loss
from segda.scene import Batch


class Light(BaseModel):
    """Factors of the light losses of a target's image (also the day's), and of the source's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variation: float = Field(ge=0)
    """Of the light's total variation."""
    dissimilarity: float = Field(ge=0)
    """Of what the relit image lacks of the structure of its original."""
    exposure: float = Field(ge=0)
    """Of how far the brightness is from the one wanted."""
    target: float = Field(ge=0)
    """Of all three, for day and night."""
    source: float = Field(ge=0)
    """Of all three, for the source."""


class Static(BaseModel):
    """classes: that stand still. neighbours: see parts/static.py. level, day_share: of the pseudo-label, see
    `static_label`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: tuple[str, ...] = Field(min_length=1)
    neighbours: Neighbours
    weight: float = Field(ge=0)
    """Factor of the loss."""
    level: float
    day_share: float = Field(ge=0, le=1)


class DANNet(Method):
    """adversarial_weight: factor of each discriminator's loss. width: of their first layer. spread: of the classes'
    weights in training, see `Relit.weights`. target_size: (height, width) that the target's logits are brought to;
    null: the crop's. light: factors of the light losses. static: the loss of what stands still, by day and by night.
    """

    players = ("student", "discriminators")
    reference = "must"
    student: Relit
    weights: Tensor
    still: Tensor

    def __init__(
        self,
        student: Relit,
        *,
        adversarial_weight: float,
        width: int,
        spread: float,
        target_size: tuple[PositiveInt, PositiveInt] | None,
        light: Light,
        static: Static,
    ):
        super().__init__()
        if not isinstance(student, Relit):
            raise RecipeError(
                f"network.name: method dannet relights: put relit around {type(student).__name__} (over: ...)"
            )
        if not student.weighs:
            raise RecipeError(
                "network.frequencies: null, but method dannet weighs classes by them; give each one's share"
            )
        for name in static.classes:
            if name not in student.class_names:
                raise RecipeError(f"method.static.classes: unknown class {name!r}{nearest(name, student.class_names)}")
        refuse_spread("method.spread", spread, student.rarity)
        self.student = student
        self.adversarial_weight, self.target_size = adversarial_weight, target_size
        self.factors, self.static = light, static
        self.discriminators = Discriminators(("day", "night"), student.classes, width, FINE)
        self.register_buffer("weights", student.weights(spread), persistent=False)
        still = torch.tensor([student.class_names.index(name) for name in static.classes])
        self.register_buffer("still", still, persistent=False)

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        share, student = batch.share, self.student
        level = share.mean(student.normalised(batch.target.image).mean())

        output = student(batch.reference.image)
        day = self.enlarged(output)
        yield self.fool("day", day) | self.light("day", output, level) | entropy_summary("day", day)
        day = day.detach()

        output = student(batch.target.image)
        night = self.enlarged(output)
        label = static_label(
            day, night, self.still, self.weights, level=self.static.level, day_share=self.static.day_share
        )
        terms = self.fool("night", night) | self.light("night", output, level) | entropy_summary("night", night)
        terms["static"] = self.static.weight * static_loss(
            night[:, self.still], label, self.weights[self.still], neighbours=self.static.neighbours, share=share
        )
        terms["labelled"] = (label != IGNORE).float().mean()
        yield terms
        night = night.detach()

        output = student(batch.source.image)
        terms = {"source": supervised(output, weighted(batch.source, self.weights), over="weight", share=share)}
        yield terms | self.light("source", output, level) | entropy_summary("source", output.logits)
        source = output.logits.detach()

        for judge, target in (("day", day), ("night", night)):
            for name, logits, domain in (("source", source, SOURCE), ("target", target, TARGET)):
                score = self.discriminators[judge](logits.float().softmax(1))
                yield {f"discriminator/{judge}/{name}": squared_error(score, domain) / 2}

    def enlarged(self, output: Output) -> Tensor:
        """The target's logits, at the size at which they are compared."""
        head = output.heads["main"]
        if self.target_size is None:
            return head.logits
        if head.cells is None:
            raise RecipeError(
                "method.target_size: the network does not say its logits before they are upsampled; set null"
            )
        align = self.student.align_corners
        return F.interpolate(head.cells.float(), self.target_size, mode="bilinear", align_corners=align)

    def fool(self, domain: str, logits: Tensor) -> dict[str, Tensor]:
        with frozen(self.discriminators):
            score = self.discriminators[domain](logits.float().softmax(1))
        return {f"fool/{domain}": self.adversarial_weight * squared_error(score, SOURCE)}

    def light(self, domain: str, output: Lit, level: Tensor) -> dict[str, Tensor]:
        """The light losses, and for the log how much light differs over an image: 0 where it has collapsed."""
        factors, relit = self.factors, output.seen + output.light
        of_domain = factors.source if domain == "source" else factors.target
        return {
            f"variation/{domain}": of_domain * factors.variation * variation(output.light),
            f"dissimilarity/{domain}": of_domain * factors.dissimilarity * dissimilarity(relit, output.seen),
            f"exposure/{domain}": of_domain * factors.exposure * exposure(relit, level),
            f"light/{domain}": output.light.detach().std((2, 3)).mean(),
        }
