"""`segda serve`: a page to try a network on, see serving/."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segda.commands.arguments import Device, Precision, Trust, Whose


def serve(
    run: Annotated[
        Path | str,
        typer.Argument(metavar="RUN", help="A run folder: the --out of `segda train`; or of `segda export`."),
    ],
    *,
    against: Annotated[
        Path | str | None,
        typer.Option(metavar="RUN", help="A second one, beside it with a slider: source-only, say."),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen. Only this machine reaches 127.0.0.1.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes one that is free.")] = 8000,
    most_mb: Annotated[float, typer.Option("--most-mb", metavar="MB", help="The largest file that is taken.")] = 32.0,
    weights: Whose = "student",
    device: Device = "auto",
    precision: Precision = "auto",
    trust: Trust = (),
) -> None:
    """Open a page on this machine: drop an image or a short video, see what RUN says of it.

    The page shows classes over the image, with shares of each, and how unsure the network is; with --against two
    networks with a slider between them. How an image is shown to a network is as in its recipe. Of a video, sixteen
    frames are shown, evenly spread. Nothing is kept, and nothing is asked of another host. Ctrl-C ends it.
    """
    from segda.commands.names import look_up_runs
    from segda.errors import RecipeError
    from segda.ground.trust import trusting

    places = [Path(place) for place in (run, against) if place is not None]
    look_up_runs(places)
    try:
        from segda.serving.server import serve_runs
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "starlette"):
            raise
        raise RecipeError(f"{error.name} is not installed; pip install 'segda[serve]'") from error
    with trusting(trust):
        serve_runs(places, host, port, most_mb, weights, device, precision)
