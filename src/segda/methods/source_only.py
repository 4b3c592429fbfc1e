"""Source only: supervised training on the source, the yardstick that adaptation is measured against.

`photometric` gives it the colour jitter and blur that the mixing methods apply to their mixed images, so that a gain
over it is not merely augmentation's. DAFormer's own source-only runs change colours as images are read instead, by
`distort` of `data.source.augment`.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from segda.methods.method import Method
from segda.networks.network import Network
from segda.parts.entropy import entropy_summary
from segda.parts.losses import supervised
from segda.parts.photometric import Photometric, photometric
from segda.scene import Batch


class SourceOnly(Method):
    """photometric: how source images are recoloured and blurred; None leaves them as they are."""

    def __init__(self, student: Network, *, photometric: Photometric | None):
        super().__init__()
        self.student = student
        self.photometric = photometric

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        source = batch.source
        if self.photometric is not None:
            source = source.replace(image=photometric(source.image, self.photometric, share=batch.share))
        output = self.student(source.image)
        terms = {"source": supervised(output, source, over="all", share=batch.share)}
        yield terms | entropy_summary("source", output.logits)
