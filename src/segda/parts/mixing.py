"""Class mix: half of the source's classes pasted into the target (Olsson et al. 2021; DACS)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from segda.errors import RecipeError
from segda.scene import Scene

ClassesOf = Literal["batch", "image"]


def paste_mask(label: Tensor, rng: np.random.Generator, classes_of: ClassesOf) -> Tensor:
    """(B, H, W) labels -> (B, H, W) bool: True where the pixel's class was chosen, drawn anew for each image.

    Of the n classes present, ceil(n / 2) are chosen without replacement; IGNORE counts as a class. classes_of="batch"
    lists the classes of the whole batch, so that an image may lack a chosen one (kept by the authors knowingly,
    lhoyer/DAFormer#19); "image" lists those of the image itself, as DACS means.
    """
    masks = []
    for one in label:
        present = torch.bincount((label if classes_of == "batch" else one).flatten(), minlength=256)
        classes = present.nonzero().flatten()
        chosen = rng.choice(len(classes), (len(classes) + 1) // 2, replace=False)
        table = torch.zeros(len(present), dtype=torch.bool)
        table[classes.cpu()[torch.from_numpy(np.sort(chosen))]] = True
        masks.append(table.to(label.device)[one])
    return torch.stack(masks)


def class_mix(source: Scene, pseudo: Scene, rng: np.random.Generator, *, classes_of: ClassesOf) -> Scene:
    """Source pixels of the chosen classes over the pseudo-labelled target: image, label and weight alike.

    A pasted pixel brings its own label (IGNORE stays IGNORE) and its own weight, 1 where the source has none.
    RecipeError where the two domains' crops differ in size.
    """
    assert source.label is not None and pseudo.label is not None
    if source.label.shape != pseudo.label.shape:
        one, other = (f"{scene.label.shape[2]}x{scene.label.shape[1]}" for scene in (source, pseudo))
        raise RecipeError(
            f"data.source_augment gives {one}, data.target_augment {other}, but classes are pasted from one into the "
            "other; give both the same crop (height, width)"
        )
    mask = paste_mask(source.label, rng, classes_of)
    ones = torch.ones_like(source.label, dtype=torch.float32)
    weights = [ones if scene.weight is None else scene.weight for scene in (source, pseudo)]
    return Scene(
        torch.where(mask[:, None], source.image, pseudo.image),
        torch.where(mask, source.label, pseudo.label),
        torch.where(mask, *weights),
        (*source.names, *pseudo.names),
    )
