"""Colours of an 8-bit image changed at random: PhotoMetricDistortion of mmsegmentation 0.16, which DAFormer's runs
without a teacher use.

After each change the image is 8 bits again: what leaves 0 .. 255 is cut off, and fractions are dropped, not rounded.
Hue, saturation and value are OpenCV's for 8 bits. (`parts/photometric.py` is the jitter of mixed images: another model
of colour, in floating point, on the device.)
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from segda.data.stream.settings import HUES, Distortion

LEVELS = np.arange(256, dtype=np.float32)


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
