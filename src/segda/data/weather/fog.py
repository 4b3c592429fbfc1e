"""Fog from distances, as Foggy Cityscapes was made (Sakaridis, Dai, Van Gool, IJCV 2018, sec. 3).

    I = R t + L (1 - t),  t = exp(-beta l)       R the clear image, l metres, L the light of the air     (eq. 1, 2)

The meteorological optical range, where t = 0.05, is ln 20 / beta = 2.996 / beta metres; fog means less than 1000.
"""

from __future__ import annotations

import math

import cv2
import numpy as np


def transmittance(distance: np.ndarray, beta: float) -> np.ndarray:
    """t = exp(-beta l): (H, W) metres -> (H, W) in [0, 1]; 0 at an infinite distance. beta per metre."""
    return np.exp(-beta * distance)


def visibility(beta: float) -> float:
    """Metres at which t = 0.05, the meteorological optical range: ln 20 / beta."""
    return math.log(20) / beta


def veiled(clear: np.ndarray, through: np.ndarray, air: np.ndarray) -> np.ndarray:
    """I = R t + L (1 - t): clear R (H, W, 3), through t (H, W, 1), air L (3,), in the same units -> (H, W, 3)."""
    return (clear - air) * through + air


def dark_channel(image: np.ndarray, window: int) -> np.ndarray:
    """The least of the three channels in the window around each pixel: (H, W, 3) -> (H, W).

    He, Sun, Tang, Single Image Haze Removal Using Dark Channel Prior, PAMI 2011, eq. 5. Windows end at the border.
    """
    return cv2.erode(np.ascontiguousarray(image.min(-1)), np.ones((window, window), np.uint8))


def light_of_air(image: np.ndarray, window: int, share: float) -> np.ndarray:
    """(3,): the colour of the pixel of median grey among those whose dark channel is brightest.

    image (H, W, 3) RGB. Of the pixels, `share` is taken, and one more where that is an even number, so that the median
    is one of them; of equal ones, the first by rows.  Tang, Yang, Wang, CVPR 2014, after He et al. 2011; with Sakaridis
    et al.'s odd number (of equal ones, their code has the first by columns).
    """
    dark = dark_channel(image, window).ravel()
    count = int(share * dark.size)
    count += 1 - count % 2
    least = np.partition(dark, dark.size - count)[dark.size - count]
    brighter = np.flatnonzero(dark > least)
    brightest = np.sort(np.append(brighter, np.flatnonzero(dark == least)[: count - len(brighter)]))
    colours = image.reshape(-1, 3)[brightest]
    grey = colours @ np.array([0.299, 0.587, 0.114])
    return colours[np.argsort(grey, kind="stable")[count // 2]]


class GuidedFilter:
    """Smooths a map, but not across edges of a guide: in each window, the map becomes a linear function of the colours.

    In the window around k: q = a_k . I + b_k, with a_k = (cov(I) + mu 1)^-1 cov(I, p), b_k = mean(p) - a_k . mean(I);
    of the windows that a pixel is in, the mean. Windows are (2 radius + 1)^2 pixels and end at the border.
    He, Sun, Tang, Guided Image Filtering, PAMI 2013, eq. 14-16 of its colour version.

    guide I (H, W, 3) in [0, 1], mu the regularisation.
    """

    def __init__(self, guide: np.ndarray, radius: int, mu: float):
        self.guide = np.ascontiguousarray(guide, np.float32)
        self.window = (2 * radius + 1, 2 * radius + 1)
        self.pixels = self._sum(np.ones(guide.shape[:2], np.float32))
        self.channels = [np.ascontiguousarray(channel) for channel in cv2.split(self.guide)]
        self.means = [self._mean(channel) for channel in self.channels]
        rr, rg, rb, gg, gb, bb = (
            self._mean(self.channels[i] * self.channels[j]) - self.means[i] * self.means[j] + (mu if i == j else 0)
            for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
        )
        minors = (gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb)  # of the first row, with their signs
        over = 1 / (rr * minors[0] + rg * minors[1] + rb * minors[2])
        second, third, last = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
        inverse = (*minors, second, third, last)
        self.rr, self.rg, self.rb, self.gg, self.gb, self.bb = (minor * over for minor in inverse)

    def _sum(self, values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values, -1, self.window, normalize=False, borderType=cv2.BORDER_CONSTANT)

    def _mean(self, values: np.ndarray) -> np.ndarray:
        return self._sum(values) / self.pixels

    def __call__(self, given: np.ndarray) -> np.ndarray:
        """(H, W) -> (H, W) float32."""
        given = np.ascontiguousarray(given, np.float32)
        mean = self._mean(given)
        r, g, b = (
            self._mean(channel * given) - own * mean for channel, own in zip(self.channels, self.means, strict=True)
        )
        slopes = (
            self.rr * r + self.rg * g + self.rb * b,
            self.rg * r + self.gg * g + self.gb * b,
            self.rb * r + self.gb * g + self.bb * b,
        )
        offset = mean - sum(slope * own for slope, own in zip(slopes, self.means, strict=True))
        smooth = (self._mean(slope) * channel for slope, channel in zip(slopes, self.channels, strict=True))
        return sum(smooth, self._mean(offset))
