"""An exported file in a network's place: `segda predict` and `segda evaluate`'s measures look through it as they do
through a network of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segda.errors import DataError, WeightsError
from segda.exporting.about import About, Runner
from segda.exporting.formats import opened
from segda.ground.memory import lacks_memory
from segda.ground.safe_yaml import first_line
from segda.networks.network import Head, Network, Output

LEAST = 1e-30
"""Of a probability, before its logarithm."""


class Exported(Network):
    """What an exported file says of images, as the logits of a network: ln p of its probabilities, which softmax makes
    p again; of ids, 1 for the class and 0 for the others. It does not learn, and keeps its maps to itself.
    """

    def __init__(self, about: About, runner: Runner, where: object):
        super().__init__()
        self.about, self.runner, self.where = about, runner, where
        self.class_names = tuple(about.classes)
        self.heads, self.align_corners = ("main",), False
        self.stride, self.fill, self.origin = 1, (0.0, 0.0, 0.0), f"exported: {where}"
        self.smallest = about.smallest

    @property
    def sure(self) -> bool:
        """Whether it gives classes alone, and nothing of how likely they are."""
        return self.about.output == "ids"

    def said(self, image: Tensor) -> np.ndarray:
        """(B, 3, H, W) RGB in [0, 1] -> what comes out of the file, as it is."""
        size = (image.shape[-2], image.shape[-1])
        if self.about.size not in (None, size):
            wanted = self.about.size
            raise DataError(f"{self.where}: takes {wanted[1]}x{wanted[0]} alone, not {size[1]}x{size[0]}")
        given = image.mul(255).round().to(torch.uint8) if self.about.input == "uint8" else image.float()
        try:
            found = self.runner(np.ascontiguousarray(given.cpu().numpy()))
        # Every Exception: each library has its own for a graph that is another one than the file says.
        except Exception as error:
            if lacks_memory(error):
                raise
            raise WeightsError(f"{self.where}: cannot be run ({first_line(error)}); export it again") from error
        expected = (len(image), *size) if self.about.output == "ids" else (len(image), len(self.about.classes), *size)
        if found.shape != expected:
            raise WeightsError(f"{self.where}: gave {found.shape}, not {expected}; export it again")
        if self.about.output == "ids" and (found.dtype != np.uint8 or found.max() >= len(self.about.classes)):
            raise WeightsError(
                f"{self.where}: gave other ids than of its {len(self.about.classes)} classes; export it again"
            )
        return found

    def infer(self, image: Tensor) -> Tensor:
        found = torch.from_numpy(self.said(image))
        if self.about.output == "probabilities":
            return found.float().clamp_min(LEAST).log()
        return F.one_hot(found.long(), len(self.about.classes)).permute(0, 3, 1, 2).float()

    def features(self, image: Tensor) -> list[Tensor]:
        raise NotImplementedError(f"{self.where}: an exported file has no maps")

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        raise NotImplementedError(f"{self.where}: an exported file has no maps")

    def forward(self, image: Tensor) -> Output:
        return Output({"main": Head(self.infer(image))})

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {}

    def low_res_logits(self, image: Tensor) -> Tensor:
        """At the image's size already."""
        return self.infer(image)


def load_exported(path: Path) -> Exported:
    """The file that `segda export` has written; WeightsError for another one."""
    about, runner = opened(path)
    return Exported(about, runner, path)
