"""Augmentation of a whole scene, always in this order: resize, crop, flip, pad (as in DAFormer's pipelines).

The steps are functions of their own, so that a sampler which looks for a crop with enough of a rare class
decodes and resizes once and then only moves the crop. Every draw is from the `rng` given.

Labels are resized by OpenCV's INTER_NEAREST, which the recorded pipeline of the authors equals to the pixel
(INTER_NEAREST_EXACT differs from it on 3-4 % of the pixels). Padding is at the bottom and right, with the colour that
the network sees as zero and with IGNORE, after the flip: the authors pad their normalised images with 0.
"""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from segda.errors import DataError
from segda.scene import IGNORE, Box, Scene, crop

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""RGB that encoders trained on ImageNet see as zero; a network says its own in `Network.fill`."""

REDRAWS = 10
"""How often a crop that breaks `max_class_share` is drawn again; the last one is used whatever it holds."""


class Augment(BaseModel):
    """How a scene becomes a training crop. The four settings that papers choose have no default, but may be null.

    resize: (width, height) of the box that the image is scaled into, keeping its shape; null leaves its size.
    crop: (height, width) cut out at random; null takes all.
    max_class_share: a crop is drawn again while one class has this share of its labelled pixels or more, or all.
    flip: probability of mirroring left and right.
    ignore_top, ignore_bottom: rows of the crop that get weight 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize: tuple[PositiveInt, PositiveInt] | None
    crop: tuple[PositiveInt, PositiveInt] | None
    max_class_share: Annotated[float, Field(gt=0, le=1)] | None
    flip: Annotated[float, Field(ge=0, le=1)]
    ignore_top: Annotated[int, Field(ge=0)] = 0
    ignore_bottom: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _some_rows_count(self) -> Augment:
        if self.crop is not None and self.ignore_top + self.ignore_bottom >= self.crop[0]:
            raise ValueError(f"ignore_top and ignore_bottom leave no row of a crop of height {self.crop[0]}")
        return self


def augment(
    scene: Scene,
    settings: Augment,
    rng: np.random.Generator,
    fill: tuple[float, float, float] = IMAGENET_MEAN,
) -> Scene:
    """A training crop of a single scene, (3, h, w) and (h, w); `fill` is the RGB in [0, 1] of padding."""
    scene = resize(scene, settings.resize)
    return cut(scene, draw_box(scene, settings, rng), settings, rng, fill)


def fit(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image scaled into a box given as (width, height), keeping its shape.

    The longer side of the image goes with the longer side of the box. Rounded half up, but to no less than 1.
    """
    scale = min(max(box) / max(size), min(box) / min(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def resize(scene: Scene, box: tuple[int, int] | None) -> Scene:
    """A single scene scaled into a (width, height) box: image bilinear (no antialiasing), label nearest."""
    assert scene.weight is None
    size = tuple(scene.image.shape[1:])
    if box is None or fit(size, box) == size:
        return scene
    height, width = fit(size, box)
    pixels = np.ascontiguousarray(scene.image.permute(1, 2, 0).numpy())  # no copy of a reader's image
    image = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    label = scene.label
    if label is not None:
        label = torch.from_numpy(cv2.resize(label.numpy(), (width, height), interpolation=cv2.INTER_NEAREST))
    return scene.replace(image=torch.from_numpy(image).permute(2, 0, 1), label=label)


def draw_box(scene: Scene, settings: Augment, rng: np.random.Generator) -> Box:
    """A place for the crop, uniform over all places inside the image; smaller than the crop if the image is.

    With `max_class_share` and a label, drawn again up to REDRAWS times (see Augment); the last draw is not looked at.
    """
    size = tuple(scene.image.shape[1:])
    height, width = (min(a, b) for a, b in zip(settings.crop or size, size, strict=True))

    def place() -> Box:
        top = int(rng.integers(0, size[0] - height + 1))
        return top, int(rng.integers(0, size[1] - width + 1)), height, width

    box = place()
    if settings.max_class_share is None or scene.label is None:
        return box
    for _ in range(REDRAWS):
        counts = np.bincount(crop(scene.label, box).numpy().ravel(), minlength=256)[:IGNORE]
        if (counts > 0).sum() > 1 and counts.max() / counts.sum() < settings.max_class_share:
            break
        box = place()
    return box


def cut(
    scene: Scene,
    box: Box,
    settings: Augment,
    rng: np.random.Generator,
    fill: tuple[float, float, float],
) -> Scene:
    """The box of a single scene, flipped or not, padded to the crop's size, in memory of its own.

    Has a weight map if rows are ignored; padded pixels are IGNORE in the label and count in the weight.
    """
    image, label = crop(scene.image, box), crop(scene.label, box)
    if rng.random() < settings.flip:
        image = image.flip(-1)
        label = None if label is None else label.flip(-1)
    height, width = settings.crop or box[2:]
    if (height, width) != box[2:]:
        colour = torch.tensor([round(255 * part) for part in fill], dtype=torch.uint8)
        padded = colour[:, None, None].repeat(1, height, width)
        padded[:, : box[2], : box[3]] = image
        image = padded
        if label is not None:
            padded = torch.full((height, width), IGNORE, dtype=torch.uint8)
            padded[: box[2], : box[3]] = label
            label = padded
    weight = None
    if settings.ignore_top or settings.ignore_bottom:
        if settings.ignore_top + settings.ignore_bottom >= height:
            raise DataError(f"{scene.names[0]}: ignore_top and ignore_bottom leave no row of its {height}; lower them")
        weight = torch.ones(height, width)
        weight[: settings.ignore_top] = 0
        weight[height - settings.ignore_bottom :] = 0
    plain = torch.contiguous_format
    label = None if label is None else label.clone(memory_format=plain)
    return scene.replace(image=image.clone(memory_format=plain), label=label, weight=weight)
