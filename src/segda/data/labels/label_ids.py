"""Cityscapes' own label ids and their colours, as its label files and its server have them.

Sources. Ids and their colours: mcordts/cityscapesScripts `helpers/labels.py`; the palette of label ids is the one of
mmsegmentation's `--format-only`, in whose last row stands the licence plate, Cityscapes' -1.
"""

from __future__ import annotations

import numpy as np

from segda.data.labels.labellings import LABELLINGS
from segda.data.labels.spaces import CITYSCAPES_COLOURS, Space
from segda.errors import RecipeError

OTHER_COLOURS = {
    "dynamic": (111, 74, 0),
    "ground": (81, 0, 81),
    "parking": (250, 170, 160),
    "rail track": (230, 150, 140),
    "guard rail": (180, 165, 180),
    "bridge": (150, 100, 100),
    "tunnel": (150, 120, 90),
    "polegroup": (153, 153, 153),
    "caravan": (0, 0, 90),
    "trailer": (0, 0, 110),
    "license plate": (0, 0, 142),
}
"""Of Cityscapes' labels that are no class; those not named here are black."""


def label_ids(space: Space) -> np.ndarray:
    """(256,) uint8: train id -> Cityscapes' label id of the class of that name; 0 (unlabelled) for no class.

    RecipeError for a space with a class that is none of Cityscapes'.
    """
    ids = {name: raw for raw, name in LABELLINGS["cityscapes"].items()}
    if other := [name for name in space.classes if name not in ids]:
        raise RecipeError(
            f"--ids label: {other[0]} of the space {space.name} is no class of Cityscapes; use train ids (--ids train)"
        )
    table = np.zeros(256, np.uint8)
    table[: len(space.classes)] = [ids[name] for name in space.classes]
    return table


def label_palette() -> np.ndarray:
    """(256, 3) uint8 RGB of Cityscapes' label ids 0 to 34; black for all else."""
    table = np.zeros((256, 3), np.uint8)
    for raw, name in LABELLINGS["gta5"].items():  # Cityscapes' and the licence plate
        table[raw] = (CITYSCAPES_COLOURS | OTHER_COLOURS).get(name, (0, 0, 0))
    return table
