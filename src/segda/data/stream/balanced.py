"""Epochs that are a subset of a data set's images, with so many of each class: MGCDA's training sets.

Sakaridis et al., PAMI 2020; in sakaridis/MGCDA (RefineNet in MATLAB) an epoch takes images until each class has 100, at
least 3000 and at most 4000 of them, and a crop is placed by a class. In which order it takes them, and how it places a
crop, was not compared; ours is what `balanced_epoch` and `pixel_of_a_class` say.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import Tensor

from segda.data.stream.settings import Balanced
from segda.ground.ignore import IGNORE


def balanced_epoch(
    has: np.ndarray, settings: Balanced, rng: np.random.Generator, length: int | None = None
) -> np.ndarray:
    """Which images an epoch has, and their order: (N, C) bool which image has which class -> (n,) numbers, no two the
    same.

    Until each class has `images` of them, or all that there are, the class that has the fewest takes one of its own at
    random; of several such classes the first. Then any images, up to `least`. length: how many instead.
    """
    count, classes = has.shape
    shuffled = rng.permutation(count)
    most = min(settings.most if length is None else length, count)
    waiting = [iter(shuffled[has[shuffled, c]]) for c in range(classes)]
    due = np.minimum(has.sum(0), settings.images)
    taken, holds = np.zeros(count, bool), np.zeros(classes, int)
    while taken.sum() < most and (holds < due).any():
        c = int(np.argmin(np.where(holds < due, holds, count)))
        i = next(i for i in waiting[c] if not taken[i])
        taken[i] = True
        holds += has[i]
    rest = shuffled[~taken[shuffled]]
    least = min(settings.least if length is None else length, count)
    taken[rest[: max(0, least - int(taken.sum()))]] = True
    return rng.permutation(np.flatnonzero(taken))


@dataclass(frozen=True, eq=False)
class BalancedEpochs:
    """The epochs of a data set, all of the first one's length.

    has: (N, C) bool which image has which class. address: of its random numbers, to which the epoch's is added.
    """

    has: np.ndarray
    settings: Balanced
    address: tuple[int, ...]

    def image(self, n: int) -> int:
        """The image of draw n."""
        epoch, place = divmod(n, len(_epoch(self, 0)))
        return int(_epoch(self, epoch)[place])


@lru_cache(maxsize=8)
def _epoch(epochs: BalancedEpochs, epoch: int) -> np.ndarray:
    length = None if epoch == 0 else len(_epoch(epochs, 0))
    rng = np.random.default_rng((*epochs.address, epoch, len(epochs.has)))
    return balanced_epoch(epochs.has, epochs.settings, rng, length)


def pixel_of_a_class(label: Tensor, rng: np.random.Generator) -> tuple[int, int] | None:
    """(H, W) uint8 train ids -> the row and column of a pixel: of a class that is there, each as likely, any one of it.
    None where no class is.
    """
    ids = label.numpy()
    there = np.flatnonzero(np.bincount(ids.ravel(), minlength=IGNORE + 1)[:IGNORE])
    if not len(there):
        return None
    pixels = np.flatnonzero(ids == rng.choice(there))
    row, column = divmod(int(rng.choice(pixels)), ids.shape[1])
    return row, column
