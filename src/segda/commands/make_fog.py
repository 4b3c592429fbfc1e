"""`segda make-fog`: clear images with disparities become foggy ones, as Foggy Cityscapes was made of Cityscapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from segda.data.weather.fog import visibility
from segda.data.weather.make import Fog, Made, make
from segda.errors import RecipeError


def make_fog(folder: Path, beta: Sequence[float], out: Path, workers: int | None = None) -> Made:
    """Write each clear image of `folder` in fog of each attenuation `beta` (per metre) below `out`, or `folder` itself.

    Repeated, it goes on where it was; no file that is there is replaced. RecipeError for a beta that cannot be,
    DataError for files that are missing or do not fit together.
    """
    for value in beta:
        if not 0 < value < math.inf:
            raise RecipeError(f"--beta {value:g}: give the attenuation per metre, as 0.01; fog has 0.003 and more")
    if not beta:
        raise RecipeError("--beta: give at least one attenuation per metre, as 0.01")
    ranges = ", ".join(f"{value:g} ({visibility(value):.0f} m)" for value in dict.fromkeys(beta))
    what = f"attenuation per metre, and how far one sees: {ranges}"
    return make(folder, [Fog(value) for value in dict.fromkeys(beta)], out, "fog", what, workers)
