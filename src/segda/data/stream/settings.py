"""The settings of the stream in a recipe: augmentation, and which images are drawn.

What they mean is done in augment.py, distortion.py, stream.py and balanced.py, which compute; a recipe is read without.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

if TYPE_CHECKING:
    import numpy as np

Shape = Literal["keep", "stretch", "pad"]
Kernel = Literal["bilinear", "bicubic", "smooth-bilinear"]

Margin = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0)]
Margins = tuple[Margin, Margin, Margin, Margin]

Factor = Annotated[float, Field(ge=0)]
HUES = 180
"""OpenCV's hues of an 8-bit image: a whole turn in steps of two degrees."""


def in_shares(margins: Margins) -> bool:
    """Whether they are shares of an image's sides, not pixels."""
    return any(0 < one < 1 for one in margins)


class Distortion(BaseModel):
    """How colours change. Every image draws each of the four changes, and how much of it, for itself.

    brightness: as much as this is added or taken away, of 255.
    contrast: range of the factor of all three colours (no mean is subtracted).
    saturation: range of the factor of the saturation.
    hue: the hue turns by -hue .. hue - 1 of OpenCV's 180 steps.
    probability: of each of the four.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    brightness: Annotated[float, Field(ge=0, le=255)]
    contrast: tuple[Factor, Factor]
    saturation: tuple[Factor, Factor]
    hue: Annotated[int, Field(ge=0, le=HUES)]
    probability: Annotated[float, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _ranges_begin_with_the_lower_end(self) -> Distortion:
        for key in ("contrast", "saturation"):
            low, high = getattr(self, key)
            if low > high:
                raise ValueError(f"{key}: [{low:g}, {high:g}] is no range; write the lower end first")
        return self


class Augment(BaseModel):
    """How a scene becomes a training crop. The four settings that papers choose have no default, but may be null.

    resize: (width, height) of the box that the image is brought to; null leaves its size.
    shape: keep scales the image into the box, its longer side along the box's longer one; stretch makes it just the
        box; pad scales it into the box as that lies, and fills the rest, right or below, with black and IGNORE.
    kernel: bilinear (OpenCV, without smoothing), bicubic or smooth-bilinear (Pillow, smoothing what they shrink).
    scale: (least, most) of a factor of that size, drawn anew for each image; null: it stays. Sides are rounded down.
    scale_step: draws least, least + scale_step, ... most, each as often; null: any factor between them.
    short_side: (least, most) pixels of the shorter side, between which the factor keeps it; null: any.
    crop: (height, width) cut out at random; null takes all.
    bring_to: (height, width) that the crop is resized to; null leaves it.
    max_class_share: a crop is drawn again while one class has this share of its labelled pixels or more, or all.
    flip: probability of mirroring left and right.
    distort: how colours change, see Distortion; null leaves them.
    swap: beta, with which the source's crops take the look of the step's target crops, each of the one in its place,
        see parts/fourier.py. The trainer does it, on the device, before the method sees them; null leaves them.
    ignore_top, ignore_bottom: rows of the result that get weight 0.
    margins: (top, bottom, left, right) of the image that get weight 0 wherever the crop lies: whole numbers, pixels
        counted after the image was brought to its box; or shares of its sides below 1, with which padding has weight
        0 too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize: tuple[PositiveInt, PositiveInt] | None
    crop: tuple[PositiveInt, PositiveInt] | None
    max_class_share: Annotated[float, Field(gt=0, le=1)] | None
    flip: Annotated[float, Field(ge=0, le=1)]
    distort: Distortion | None = None
    swap: Annotated[float, Field(ge=0, le=0.5)] | None = None
    ignore_top: Annotated[int, Field(ge=0)] = 0
    ignore_bottom: Annotated[int, Field(ge=0)] = 0
    margins: Margins | None = None
    shape: Shape = "keep"
    kernel: Kernel = "bilinear"
    scale: tuple[Annotated[float, Field(gt=0, le=10)], Annotated[float, Field(gt=0, le=10)]] | None = None
    scale_step: Annotated[float, Field(gt=0)] | None = None
    short_side: tuple[PositiveInt, PositiveInt] | None = None
    bring_to: tuple[PositiveInt, PositiveInt] | None = None

    @model_validator(mode="after")
    def _some_rows_count(self) -> Augment:
        if self.size is not None and self.ignore_top + self.ignore_bottom >= self.size[0]:
            raise ValueError(f"ignore_top and ignore_bottom leave no row of a crop of height {self.size[0]}")
        return self

    @model_validator(mode="after")
    def _margins_are_of_the_image(self) -> Augment:
        if self.margins is not None and (self.ignore_top or self.ignore_bottom or self.bring_to):
            raise ValueError("margins: does not go with ignore_top, ignore_bottom or bring_to")
        margins = self.margins or (0, 0, 0, 0)
        if any(one >= 1 if in_shares(margins) else one != int(one) for one in margins):
            raise ValueError(
                "margins: whole numbers are pixels, numbers below 1 shares of the image; give four of a kind"
            )
        if self.scale is not None and self.margins is not None and not in_shares(margins):
            raise ValueError("margins: in pixels do not go with scale; give shares of the image's sides, below 1")
        return self

    @property
    def weighs(self) -> bool:
        """Whether its scenes have a weight map."""
        return bool(self.ignore_top or self.ignore_bottom or self.margins)

    @model_validator(mode="after")
    def _shape_and_kernel_count(self) -> Augment:
        if self.resize is None and self.shape != "keep":
            raise ValueError(f"shape: {self.shape} has no effect without resize; give resize or leave shape out")
        if self.resize is None and self.scale is None and self.bring_to is None and self.kernel != "bilinear":
            raise ValueError(f"kernel: {self.kernel} has no effect without resize; give resize or leave kernel out")
        return self

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> Augment:
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: {self.scale[0]:g} is above {self.scale[1]:g}; write the smaller factor first")
        if self.scale is not None and self.shape == "pad":
            raise ValueError("scale: does not go with shape: pad, which fills a box; write keep or stretch")
        return self

    @model_validator(mode="after")
    def _scale_is_stepped_and_held(self) -> Augment:
        for key in ("scale_step", "short_side"):
            if self.scale is None and getattr(self, key) is not None:
                raise ValueError(f"{key}: has no effect without scale; give scale or leave {key} out")
        if self.scale is not None and self.scale_step is not None:
            steps = (self.scale[1] - self.scale[0]) / self.scale_step
            if not math.isclose(steps, round(steps), rel_tol=1e-9, abs_tol=1e-9):
                raise ValueError(
                    f"scale_step: {self.scale_step:g} does not lead from {self.scale[0]:g} to {self.scale[1]:g} in "
                    "whole steps; change one of them"
                )
        if self.short_side is not None and self.short_side[0] > self.short_side[1]:
            raise ValueError(f"short_side: {self.short_side[0]} is above {self.short_side[1]}; write the smaller first")
        return self

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of every scene; None: as large as it comes."""
        return self.bring_to or self.crop


class Balanced(BaseModel):
    """Epochs that have each class; without rare_class.

    images: an epoch has so many of each class, or all that there are.
    least, most: images of an epoch; of a data set that has fewer, all.
    place_by_class: whether a crop holds a pixel of one of its image's classes, each as often; else it lies anywhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: Annotated[int, Field(ge=1)]
    least: Annotated[int, Field(ge=1)]
    most: Annotated[int, Field(ge=1)]
    place_by_class: bool

    @model_validator(mode="after")
    def _least_is_not_above_most(self) -> Balanced:
        if self.least > self.most:
            raise ValueError(f"least: {self.least} is above most: {self.most}")
        return self


class RareClass(BaseModel):
    """Rare-class sampling of the source; just one of min_pixels and min_share.

    temperature: of the softmax over classes; small means rare classes only, .inf all alike.
    min_pixels: an image serves a class if it has more pixels of it than this, counted at its full size.
    min_share: the same, as a share of the image's pixels.
    crop_ratio: a crop must have more than crop_ratio times min_pixels (min_share: of the crop's pixels).
    retries: how often another crop is drawn when it has not; the last one is used.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: Annotated[float, Field(gt=0)]
    min_pixels: Annotated[int, Field(ge=0)] | None = None
    min_share: Annotated[float, Field(ge=0, lt=1)] | None = None
    crop_ratio: Annotated[float, Field(ge=0)]
    retries: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _one_threshold(self) -> RareClass:
        if (self.min_pixels is None) == (self.min_share is None):
            raise ValueError("give either min_pixels or min_share")
        return self

    def least(self, pixels: int | np.ndarray) -> float | np.ndarray:
        """How many pixels of its class a picture of `pixels` must exceed."""
        if self.min_share is not None:
            return self.min_share * pixels
        assert self.min_pixels is not None
        return self.min_pixels


Of = Literal["target", "source"]
