"""Class mix: half of the source's classes pasted into the target (Olsson et al. 2021; DACS)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from segda.distributed.shares import Share
from segda.errors import RecipeError
from segda.ground.ignore import IGNORE
from segda.scene import Scene, present

ClassesOf = Literal["batch", "image"]


def paste_mask(source: Scene, classes_of: ClassesOf, share: Share) -> Tensor:
    """A labelled scene -> (B, H, W) bool: True where the pixel's class was chosen, drawn anew for each image.

    Of the n classes present, ceil(n / 2) are chosen without replacement; IGNORE counts as a class. classes_of="batch"
    lists the classes of the whole step, so that an image may lack a chosen one (kept by the authors knowingly,
    lhoyer/DAFormer#19); "image" lists those of the image itself, as DACS means.
    """
    assert source.label is not None
    each: Sequence[Sequence[int]] = source.classes or present(source.label)
    if classes_of == "batch":
        each = (_of_the_step(each, share),) * len(each)
    table = torch.zeros(len(each), IGNORE + 1, dtype=torch.bool)
    for k, classes in enumerate(each):
        chosen = share.rng("mix", scene=k).choice(len(classes), (len(classes) + 1) // 2, replace=False)
        table[k, torch.tensor(classes)[chosen]] = True
    table = table.to(source.label.device, non_blocking=True)
    return torch.stack([row[one] for row, one in zip(table, source.label, strict=True)])


def _of_the_step(each: Sequence[Sequence[int]], share: Share) -> list[int]:
    """The classes in any image of the step, ascending, from those in each image of this share."""
    found = sorted(set().union(*each))
    if share.count == 1:
        return found
    there = torch.zeros(1, IGNORE + 1, dtype=torch.uint8)
    there[0, found] = 1
    return share.concatenated(there).amax(0).nonzero().flatten().tolist()


def class_mix(source: Scene, pseudo: Scene, *, classes_of: ClassesOf, share: Share) -> Scene:
    """Source pixels of the chosen classes over the pseudo-labelled target: image, label and weight alike.

    A pasted pixel brings its own label (IGNORE stays IGNORE) and its own weight, 1 where the source has none.
    RecipeError where the two domains' crops differ in size.
    """
    assert source.label is not None and pseudo.label is not None
    if source.label.shape != pseudo.label.shape:
        one, other = (f"{label.shape[2]}x{label.shape[1]}" for label in (source.label, pseudo.label))
        raise RecipeError(
            f"data.source.augment gives {one}, data.target.augment {other}, but classes are pasted from one into the "
            "other; give both the same crop (height, width)"
        )
    mask = paste_mask(source, classes_of, share)
    ones = torch.ones_like(source.label, dtype=torch.float32)
    pasted, around = (ones if scene.weight is None else scene.weight for scene in (source, pseudo))
    return Scene(
        torch.where(mask[:, None], source.image, pseudo.image),
        torch.where(mask, source.label, pseudo.label),
        torch.where(mask, pasted, around),
        (*source.names, *pseudo.names),
    )
