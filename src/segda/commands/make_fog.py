"""`segda make-fog`: clear images with disparities become foggy ones, as Foggy Cityscapes was made of Cityscapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segda.commands.arguments import Workers
from segda.errors import RecipeError

if TYPE_CHECKING:
    from segda.data.weather.make import Made


def make_fog(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Holds leftImg8bit, disparity and camera.")],
    beta: Annotated[Sequence[float], typer.Option(help="Attenuation per metre, as 0.01; several are several images.")],
    out: Annotated[Path, typer.Option(help="Folder to write; may be DIR.")],
    workers: Workers = None,
) -> Made:
    """Make foggy images of clear ones with disparities, as Foggy Cityscapes was made of Cityscapes.

    Interrupted, it goes on where it was when it is called again. Nothing that is there is replaced.
    """
    from segda.data.weather.fog import visibility
    from segda.data.weather.make import Fog, make

    for value in beta:
        if not 0 < value < math.inf:
            raise RecipeError(f"--beta {value:g}: give the attenuation per metre, as 0.01; fog has 0.003 and more")
    if not beta:
        raise RecipeError("--beta: give at least one attenuation per metre, as 0.01")
    ranges = ", ".join(f"{value:g} ({visibility(value):.0f} m)" for value in dict.fromkeys(beta))
    what = f"attenuation per metre, and how far one sees: {ranges}"
    return make(folder, [Fog(value) for value in dict.fromkeys(beta)], out, "fog", what, workers)
