"""`segda list`: what there is to name in a recipe or on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from segda.ground.choices import What

if TYPE_CHECKING:
    from rich.console import Group


def list_(what: Annotated[What, typer.Argument(help="What to list.")]) -> Group:
    """Name the blocks (methods, networks, benchmarks), data sets, recipes or sweeps there are, a line each."""
    from segda.reporting.listing import listing

    return listing(what)
