"""Whether an exported file says what its network says: of real images, at more sizes than one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segda.evaluation.inference import Size
from segda.exporting.exported import Exported
from segda.networks.network import Network

LEAST_SAME = {"32": 0.999, "16": 0.98, "int8": 0.9}
"""By precision, the share of pixels that must have the network's own class: a file below it is not kept."""


@dataclass(frozen=True)
class Parity:
    """images, pixels: that were compared. sizes: (height, width) that they had. same: pixels of the same class.
    probability: the largest difference of one; None for a file of ids. margin: at pixels of another class, by how much
    the network prefers its own at most, as a difference of probabilities.
    """

    images: int
    sizes: tuple[Size, ...]
    pixels: int
    same: int
    probability: float | None
    margin: float

    @property
    def share(self) -> float:
        return self.same / self.pixels

    def sentence(self) -> str:
        sizes = ", ".join(f"{width}x{height}" for height, width in self.sizes)
        other = self.pixels - self.same
        told = f"{self.share:.4%} of {self.pixels:,} pixels have the network's class ({self.images} images; {sizes})"
        if self.probability is not None:
            told += f"; probabilities differ by {self.probability:.1e} at most"
        return told + (f"; the {other:,} others by a margin of {self.margin:.1e} at most" if other else "")


def parity_of(network: Network, exported: Exported, batches: Sequence[Tensor]) -> Parity:
    """batches: (B, 3, H, W) RGB in [0, 1]."""
    pixels = same = 0
    probability, margin = 0.0, 0.0
    for batch in batches:
        with torch.no_grad():
            own = network.infer(batch).float().softmax(1)
        said = torch.from_numpy(exported.said(batch))
        if exported.about.output == "probabilities":
            probability = max(probability, (said - own).abs().max().item())
            said = said.argmax(1)
        classes, said = own.argmax(1), said.long()
        behind = own.amax(1) - own.gather(1, said[:, None])[:, 0]
        margin = max(margin, behind.max().item())
        pixels, same = pixels + said.numel(), same + int((classes == said).sum())
    sizes = tuple(dict.fromkeys((batch.shape[-2], batch.shape[-1]) for batch in batches))
    known = probability if exported.about.output == "probabilities" else None
    return Parity(sum(map(len, batches)), sizes, pixels, same, known, margin)
