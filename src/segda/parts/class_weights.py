"""What the classes of the source's labels weigh in the cross entropy: rare ones more, if a recipe asks for it.

A weight goes with its pixel's label: into the source's own loss and, where a method pastes source pixels into the
target, along with them. Means still divide by a number of pixels (losses.py), not by the sum of their weights, as
mmsegmentation's `class_weight` does. Pseudo-labels weigh what their method says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from segda.errors import RecipeError, nearest
from segda.ground.ignore import IGNORE
from segda.scene import Scene


def inverse_frequency(counts: np.ndarray) -> np.ndarray:
    """w_c = N / (K n_c) of n_c pixels of class c, N of all classes, K the number of classes that occur: a labelled
    pixel weighs 1 in the mean, and all classes weigh the same together (King and Zeng 2001; scikit-learn's "balanced").

    counts (images, C + 1) pixels of each class, the ignored ones last -> (C,); 1 for a class that does not occur.
    """
    pixels = counts[:, :-1].sum(0, dtype=np.float64)
    there = pixels > 0
    return np.where(there, pixels.sum() / (max(1, there.sum()) * np.maximum(pixels, 1e-9)), 1.0)


def median_frequency(counts: np.ndarray) -> np.ndarray:
    """w_c = median of all f / f_c, where f_c is the share of class c in the pixels, ignored ones too, of those images
    that have the class; the median is over the classes that occur (Eigen and Fergus, ICCV 2015, median frequency
    balancing).

    counts as of `inverse_frequency` -> (C,); 1 for a class that does not occur.
    """
    pixels = counts[:, :-1].sum(0, dtype=np.float64)
    around = ((counts[:, :-1] > 0) * counts.sum(1, keepdims=True, dtype=np.float64)).sum(0)
    there = pixels > 0
    frequency = np.where(there, pixels / np.maximum(around, 1e-9), np.nan)
    return np.where(there, np.median(frequency[there]) / frequency, 1.0) if there.any() else np.ones(len(pixels))


RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"inverse": inverse_frequency, "median": median_frequency}
"""By the name that a recipe calls them, `loss.class_weights`."""


def given_weights(told: Mapping[str, float], classes: Sequence[str]) -> np.ndarray:
    """(C,) the weights of some classes by their names, 1 for the others. RecipeError for a name that is none."""
    for name in told:
        if name not in classes:
            raise RecipeError(f"loss.class_weights: unknown class {name!r}{nearest(name, classes)}")
    return np.array([told.get(name, 1.0) for name in classes])


def weighted(scene: Scene, weights: Tensor) -> Scene:
    """A labelled scene whose pixels weigh what their classes do, times what they weigh already. weights: (C,)."""
    assert scene.label is not None
    table = torch.zeros(IGNORE + 1, device=weights.device)
    table[: len(weights)] = weights  # an ignored pixel adds nothing to a loss whatever it weighs
    weight = table[scene.label]
    return scene.replace(weight=weight if scene.weight is None else weight * scene.weight)
