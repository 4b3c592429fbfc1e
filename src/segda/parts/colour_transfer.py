"""Colours of one image given to another (Reinhard, Ashikhmin, Gooch and Shirley, "Color Transfer between Images", IEEE
CG&A 2001, eqs. 10 and 11).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

PasteColours = Literal["source", "target"]
"""Whose colours the pasted pixels of a mix have: their own, or those of the target image they are pasted into."""

LEAST = 1 / 255
"""The smallest spread that is divided by, a level of 8 bits: the noise of a plain image is no colour."""


def with_colours_of(image: Tensor, other: Tensor) -> Tensor:
    """Each image with the mean and the spread of another, channel by channel:

        (x - mean) * spread' / max(spread, 1/255) + mean',  cut to [0, 1]

    Two (B, 3, H, W) in [0, 1], of any two sizes -> float32 of the first's. mean and spread (the standard deviation
    with 1/n) are over an image's pixels, mean' and spread' the other's. A channel of one value becomes mean'. In
    RGB, where the paper has the l-alpha-beta space: its channels are nearly independent, those of RGB are not.
    """
    image, other = image.float(), other.float()
    mean, their_mean = (one.mean((2, 3), keepdim=True) for one in (image, other))
    spread, their_spread = (one.std((2, 3), correction=0, keepdim=True) for one in (image, other))
    return ((image - mean) * (their_spread / spread.clamp(min=LEAST)) + their_mean).clamp(0, 1)
