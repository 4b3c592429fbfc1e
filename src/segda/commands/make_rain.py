"""`segda make-rain`: clear images with disparities become rainy ones, by Rain Cityscapes' model (data/weather/rain.py).

Input, depth and light of the air are those of `segda make-fog`. The streaks are drawn, not the authors' patterns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segda.data.weather import rain
from segda.data.weather.fog import visibility
from segda.data.weather.make import Made, Rain, make
from segda.errors import RecipeError, nearest


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
    alphas, patterns = dict.fromkeys(alpha), dict.fromkeys(pattern)
    ranges = ", ".join(f"{value} ({visibility(rain.STRENGTHS[value][0]):.0f} m)" for value in alphas)
    weathers = [Rain(value, number) for value in alphas for number in patterns]
    return make(folder, weathers, out, "rain", f"strengths, and how far one sees: {ranges}", workers)
