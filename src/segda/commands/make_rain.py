"""`segda make-rain`: clear images with disparities become rainy ones, by Rain Cityscapes' model (data/weather/rain.py).

Input, depth and light of the air are those of `segda make-fog`. The streaks are drawn, not the authors' patterns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segda.commands.arguments import Workers
from segda.errors import RecipeError, nearest

if TYPE_CHECKING:
    from segda.data.weather.make import Made


def make_rain(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Holds leftImg8bit, disparity and camera.")],
    alpha: Annotated[Sequence[str], typer.Option(help="Strength: 0.01, 0.02 or 0.03; several are several images.")],
    pattern: Annotated[
        Sequence[int], typer.Option(help="Number of the streaks, 1 to 12; several likewise [default: 1].")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; may be DIR.")],
    workers: Workers = None,
) -> Made:
    """Make rainy images of clear ones with disparities, by the model of Rain Cityscapes; the streaks are drawn.

    Interrupted, it goes on where it was when it is called again. Nothing that is there is replaced.
    """
    from segda.data.weather import rain
    from segda.data.weather.fog import visibility
    from segda.data.weather.make import Rain, make

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
