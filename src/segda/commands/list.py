"""`segda list`: what there is to name in a recipe or on the command line."""

from __future__ import annotations

from rich.console import Group

from segda.ground.choices import What
from segda.reporting.listing import listing


def list_(what: What) -> Group:
    """Name the blocks (methods, networks, benchmarks), data sets, recipes or sweeps there are."""
    return listing(what)
