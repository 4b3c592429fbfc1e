"""Rain from depths, as Rain Cityscapes was made (Hu, Fu, Zhu, Heng, Depth-attentional Features, CVPR 2019, sec. 3).

    O = I (1 - R - A) + R + A0 A      I the clear image, R the streaks, A the haze, A0 its light
    R = pattern exp(-alpha max(d1, d)),  A = 1 - exp(-beta d),  d1 = 2 fx a

d is the depth in metres, a the radius of a drop in metres: nearer than d1, where a drop covers more than a pixel, its
streak is no brighter (Garg and Nayar, Vision and Rain, IJCV 2007).

Their patterns are photographs of rendered streaks, which are not ours to give; ours are drawn lines. So ours is rain of
their model, not their data set.
"""

from __future__ import annotations

import cv2
import numpy as np

from segda.data.streets.weather import streaks
from segda.data.weather.fog import transmittance

STRENGTHS: dict[str, tuple[float, float]] = {"0.01": (0.005, 0.01), "0.02": (0.01, 0.005), "0.03": (0.015, 0.002)}
"""alpha -> (beta, radius of a drop), the three of Rain Cityscapes as its files' names have them."""

PATTERNS = 12
"""Rain Cityscapes has so many patterns of streaks for each strength."""

SIZE = 1024
"""Rows of an image in which the numbers of `pattern` are meant."""


def streak_strength(depth: np.ndarray, alpha: float, drop: float, fx: float) -> np.ndarray:
    """exp(-alpha max(2 fx a, d)): how bright streaks are before each pixel, (H, W) metres -> (H, W) in [0, 1]."""
    return transmittance(np.maximum(depth, 2 * fx * drop), alpha)


def rained(clear: np.ndarray, rain: np.ndarray, haze: np.ndarray, air: np.ndarray) -> np.ndarray:
    """O = I (1 - R - A) + R + A0 A, cut to [0, 1]: I (H, W, 3), R and A (H, W, 1), A0 (3,), all in [0, 1]."""
    return np.clip(clear * (1 - rain - haze) + rain + air * haze, 0, 1)


def pattern(size: tuple[int, int], number: int) -> np.ndarray:
    """(H, W) float32 in [0, 1]: streaks of one slant, most of them short and faint; the same for the same number."""
    rng = np.random.default_rng((number, SIZE))
    slant, density = rng.uniform(-0.3, 0.3), rng.uniform(0.6, 1.4)
    height, width = size
    many = density * width / (2 * height)  # as many to a square, whatever the shape
    layer = np.zeros(size, np.float32)
    for count, long, thick, bright in ((3000, 0.025, 1, 0.25), (700, 0.05, 2, 0.35), (90, 0.1, 3, 0.45)):
        thickness = max(1, round(thick * height / SIZE))
        lines = streaks(size, rng, round(count * many), long, slant, thickness).astype(np.float32) / 255
        blurred = cv2.GaussianBlur(lines, (0, 0), max(0.6, 0.5 * thickness))
        layer = np.maximum(layer, bright * blurred)
    return layer
