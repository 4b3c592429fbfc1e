"""VFM-UDA++: VFM-UDA, and features of both domains near those of a frozen foundation model (Englert and Dubbelman, ICCV
workshops 2025).

As in the authors' code (tue-mps/vfm-uda-plusplus `uda.py`) the two distances follow the masked pass, each with a pass
of the student over recoloured images, and the head that they are measured through learns as fast as the decoder. What
else the step does methods/vfm.py says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Unpack

from torch import Tensor

from segda.methods.method import Method
from segda.networks.network import Network
from segda.parts.distillation import DistillationSettings, DistillHead, Frozen, deepest_channels, distance
from segda.parts.entropy import entropy_summary
from segda.parts.losses import supervised
from segda.parts.masking import MaskingSettings
from segda.parts.photometric import Images, photometric
from segda.parts.self_training import PRODUCTS, MixSettings, SelfTraining
from segda.scene import Batch

HELD: dict[str, Images] = {"source": "held source", "target": "held target"}


class VFMUDAPlus(Method):
    """masking: what is masked and how, see parts/masking.py. distillation: what features are held near to, and how, see
    parts/distillation.py.
    """

    products: ClassVar = PRODUCTS
    players = ("student", "head")
    constants = ("frozen",)

    def __init__(
        self,
        student: Network,
        *,
        masking: MaskingSettings,
        distillation: DistillationSettings,
        **settings: Unpack[MixSettings],
    ):
        super().__init__()
        self.student = student
        self.parts = SelfTraining(student, masking=masking, **settings)
        self.distillation = distillation
        self.frozen = Frozen(distillation)
        self.head = DistillHead(deepest_channels(student), self.frozen.channels)

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        parts, share = self.parts, batch.share
        parts.follow(self.student, batch, t)
        source = parts.source(batch.source, share)
        output = self.student(source.image)
        terms = {"source": supervised(output, source, over="valid", share=share)}
        yield terms | entropy_summary("source", output.logits)

        if t >= parts.begin:
            pseudo, terms = parts.labelled(batch)
            mixed = parts.mixed(batch, pseudo)
            output = self.student(mixed.image)
            terms["mix"] = supervised(output, mixed, over="all", share=share)
            yield terms | entropy_summary("mixed", output.logits)
            yield from parts.masked(self.student, batch, pseudo)

        for domain, image in (("source", batch.source.image), ("target", batch.target.image)):
            frozen = self.frozen(image)
            seen = photometric(image, self.distillation.photometric, share=share, which=HELD[domain])
            features = self.head(self.student(seen).features[-1], frozen.shape[-2:])
            yield {f"distillation/{domain}": self.distillation.weight * distance(features, frozen)}
