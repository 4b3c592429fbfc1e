"""`segda make-rain`: clear images with disparities become rainy ones, by Rain Cityscapes' model (data/weather/rain.py).

OUT/leftImg8bit_rain/SPLIT/CITY/KEY_leftImg8bit_rain_alpha_0.01_beta_0.005_dropsize_0.01_pattern_1.png

Input, depth and light of the air are those of `segda make-fog`. The streaks are drawn, not the authors' patterns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segda.commands.make_fog import ClearView, Made, Place, make
from segda.data.weather import rain
from segda.data.weather.fog import transmittance, visibility
from segda.errors import RecipeError, nearest


@dataclass(frozen=True)
class Rain:
    """alpha: attenuation of the streaks per metre, one of rain.STRENGTHS as it is written there. pattern: from 1."""

    alpha: str
    pattern: int

    def file(self, place: Place) -> Path:
        beta, drop = rain.STRENGTHS[self.alpha]
        ending = f"alpha_{self.alpha}_beta_{beta:g}_dropsize_{drop:g}_pattern_{self.pattern}.png"
        return place.file("leftImg8bit_rain", f"leftImg8bit_rain_{ending}")

    def render(self, view: ClearView) -> np.ndarray:
        beta, drop = rain.STRENGTHS[self.alpha]
        haze = 1 - view.refined(transmittance(view.depth, beta))
        strength = view.refined(rain.streak_strength(view.depth, float(self.alpha), drop, view.camera.fx))
        streaks = rain.pattern(view.depth.shape, self.pattern) * strength
        return rain.rained(view.image, streaks[..., None], haze[..., None], view.air)


def make_rain(
    folder: Path,
    alpha: Sequence[str],
    pattern: Sequence[int],
    out: Path,
    workers: int | None = None,
) -> Made:
    """Write each clear image of `folder` in rain of each strength and pattern below `out`, which may be the same.

    Repeated, it goes on where it was; no file that is there is replaced. RecipeError for a strength or pattern that
    there is not, DataError for files that are missing or do not fit together.
    """
    for value in alpha:
        if value not in rain.STRENGTHS:
            raise RecipeError(f"--alpha {value}: Rain Cityscapes has no such strength{nearest(value, rain.STRENGTHS)}")
    for number in pattern:
        if not 1 <= number <= rain.PATTERNS:
            raise RecipeError(f"--pattern {number}: there are 1 to {rain.PATTERNS}")
    if not alpha or not pattern:
        raise RecipeError("give at least one --alpha and one --pattern")
    alpha, pattern = dict.fromkeys(alpha), dict.fromkeys(pattern)
    ranges = ", ".join(f"{value} ({visibility(rain.STRENGTHS[value][0]):.0f} m)" for value in alpha)
    weathers = [Rain(value, number) for value in alpha for number in pattern]
    return make(folder, weathers, out, "rain", f"strengths, and how far one sees: {ranges}", workers)
