"""Class mix: half of the source's classes pasted into the target (Olsson et al. 2021; DACS)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from segda.distributed import shares
from segda.errors import RecipeError
from segda.scene import IGNORE, Scene, present

ClassesOf = Literal["batch", "image"]


def paste_mask(source: Scene, rng: np.random.Generator, classes_of: ClassesOf) -> Tensor:
    """A labelled scene -> (B, H, W) bool: True where the pixel's class was chosen, drawn anew for each image.

    Of the n classes present, ceil(n / 2) are chosen without replacement; IGNORE counts as a class. classes_of="batch"
    lists the classes of the whole batch, so that an image may lack a chosen one (kept by the authors knowingly,
    lhoyer/DAFormer#19); "image" lists those of the image itself, as DACS means.
    """
    assert source.label is not None
    each = _of_all_shares(source.classes or present(source.label))
    if classes_of == "batch":
        each = (sorted(set().union(*each)),) * len(each)
    table = torch.zeros(len(each), IGNORE + 1, dtype=torch.bool)
    for row, classes in zip(table, each, strict=True):
        chosen = rng.choice(len(classes), (len(classes) + 1) // 2, replace=False)
        row[torch.tensor(classes)[chosen]] = True
    table = shares.own(table).to(source.label.device, non_blocking=True)
    return torch.stack([row[one] for row, one in zip(table, source.label, strict=True)])


def _of_all_shares(each: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
    """The classes in each image, of all images of the step: what is drawn for one follows on what is for the others."""
    if shares.count() == 1:
        return each
    there = torch.zeros(len(each), IGNORE + 1, dtype=torch.uint8)
    for row, classes in zip(there, each, strict=True):
        row[list(classes)] = 1
    return [row.nonzero().flatten().tolist() for row in shares.concatenated(there)]


def class_mix(source: Scene, pseudo: Scene, rng: np.random.Generator, *, classes_of: ClassesOf) -> Scene:
    """Source pixels of the chosen classes over the pseudo-labelled target: image, label and weight alike.

    A pasted pixel brings its own label (IGNORE stays IGNORE) and its own weight, 1 where the source has none.
    RecipeError where the two domains' crops differ in size.
    """
    assert source.label is not None and pseudo.label is not None
    if source.label.shape != pseudo.label.shape:
        one, other = (f"{scene.label.shape[2]}x{scene.label.shape[1]}" for scene in (source, pseudo))
        raise RecipeError(
            f"data.source.augment gives {one}, data.target.augment {other}, but classes are pasted from one into the "
            "other; give both the same crop (height, width)"
        )
    mask = paste_mask(source, rng, classes_of)
    ones = torch.ones_like(source.label, dtype=torch.float32)
    weights = [ones if scene.weight is None else scene.weight for scene in (source, pseudo)]
    return Scene(
        torch.where(mask[:, None], source.image, pseudo.image),
        torch.where(mask, source.label, pseudo.label),
        torch.where(mask, *weights),
        (*source.names, *pseudo.names),
    )
