"""Colours that stay apart for eyes that see fewer of them.

Chosen one after the other from a grid of 18^3, each the one whose nearest neighbour among those before is farthest: in
Oklab (Ottosson 2020), the least of what people see with all cones and without one of the three (Machado, Oliveira and
Fernandes, IEEE TVCG 2009, table 1, severity 1). None is darker than 0.35 or lighter than 0.97 there, so that all stand
out on dark images. The least distance of the first 19 is 0.079, that of Cityscapes' own colours 0.017.
"""

from __future__ import annotations

from dataclasses import replace

from segda.data.labels.spaces import Colour, Space
from segda.errors import RecipeError

SAFE: tuple[Colour, ...] = (
    (0, 105, 180), (240, 255, 165), (210, 135, 30), (105, 30, 0), (75, 195, 240), (165, 75, 15), (15, 60, 105),
    (240, 195, 0), (135, 150, 150), (165, 240, 255), (105, 90, 105), (165, 15, 255), (180, 195, 165), (105, 150, 255),
    (0, 30, 210), (120, 120, 120), (210, 225, 180), (120, 0, 150), (135, 45, 45), (75, 135, 195), (180, 165, 120),
    (210, 90, 60), (225, 165, 0), (135, 225, 120), (150, 60, 150), (135, 180, 180), (240, 75, 225), (255, 225, 0),
    (75, 75, 90), (0, 225, 255), (210, 255, 240), (90, 45, 60),
)  # fmt: skip
"""The farther on, the nearer to one of those before."""


def in_safe_colours(space: Space) -> Space:
    """The same classes. RecipeError where they are more than the colours."""
    if len(space.classes) > len(SAFE):
        raise RecipeError(
            f"--palette safe has {len(SAFE)} colours, and there are {len(space.classes)} classes; leave it out"
        )
    return replace(space, colours=dict(zip(space.classes, SAFE, strict=False)))
