"""Colours of an 8-bit image changed at random: PhotoMetricDistortion of mmsegmentation 0.16, which DAFormer's runs
without a teacher use.

After each change the image is 8 bits again: what leaves 0 .. 255 is cut off, and fractions are dropped, not rounded.
Hue, saturation and value are OpenCV's for 8 bits. (`parts/photometric.py` is the jitter of mixed images: another model
of colour, in floating point, on the device.)
"""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

Factor = Annotated[float, Field(ge=0)]

LEVELS = np.arange(256, dtype=np.float32)

HUES = 180
"""OpenCV's hues of an 8-bit image: a whole turn in steps of two degrees."""


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


def distort(image: Tensor, settings: Distortion, rng: np.random.Generator) -> Tensor:
    """(3, H, W) uint8 RGB -> the same in other colours, in memory of its own or, where nothing was drawn, the image's.

    Brightness comes first, hue follows saturation; contrast comes before these two or after them, with even odds.
    """
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    if rng.random() < settings.probability:
        pixels = _brightness(pixels, settings, rng)
    contrast_first = rng.random() < 0.5
    for change in (_contrast, _saturation, _hue) if contrast_first else (_saturation, _hue, _contrast):
        if rng.random() < settings.probability:
            pixels = change(pixels, settings, rng)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def levels(factor: float, shift: float) -> np.ndarray:
    """(256,) uint8: what becomes of each level v, factor * v + shift in float32, cut off at 0 and 255, rounded down."""
    return (LEVELS * np.float32(factor) + np.float32(shift)).clip(0, 255).astype(np.uint8)


def _brightness(pixels: np.ndarray, settings: Distortion, rng: np.random.Generator) -> np.ndarray:
    return cv2.LUT(pixels, levels(1, rng.uniform(-settings.brightness, settings.brightness)))


def _contrast(pixels: np.ndarray, settings: Distortion, rng: np.random.Generator) -> np.ndarray:
    return cv2.LUT(pixels, levels(rng.uniform(*settings.contrast), 0))


def _saturation(pixels: np.ndarray, settings: Distortion, rng: np.random.Generator) -> np.ndarray:
    return _in_hsv(pixels, 1, levels(rng.uniform(*settings.saturation), 0))


def _hue(pixels: np.ndarray, settings: Distortion, rng: np.random.Generator) -> np.ndarray:
    turn = int(rng.integers(-settings.hue, settings.hue)) if settings.hue else 0
    return _in_hsv(pixels, 0, ((np.arange(256) + turn) % HUES).astype(np.uint8))


def _in_hsv(pixels: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB, one channel of whose hue, saturation, value is looked up in a (256,) table."""
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    hsv[..., channel] = table[hsv[..., channel]]
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
