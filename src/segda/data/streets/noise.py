"""Random textures: smooth value noise, and a fixed sheet of normal numbers for grain."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np


def value_noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> np.ndarray:
    """(H, W) float32 in about [-1, 1]: random numbers on a grid `cells` wide, smoothly enlarged to `size`."""
    rows = max(2, round(cells * size[0] / size[1]))
    coarse = rng.uniform(-1, 1, (rows, cells)).astype(np.float32)
    return cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC if cells < size[1] else cv2.INTER_AREA)


@lru_cache(maxsize=4)
@lru_cache(maxsize=4)
def grain(number: int) -> np.ndarray:
    """(512, 512) float32: fixed standard normal numbers; new ones for each pixel would take most of the time."""
    return np.random.default_rng((number, 512)).standard_normal((512, 512), np.float32)
