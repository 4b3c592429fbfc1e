"""`segda list`: what there is to name in a recipe or on the command line."""

from __future__ import annotations

from rich.table import Table

from segda.reporting.listing import What, listing


def list_(what: What) -> Table:
    """Name the methods, networks, data sets, shipped recipes or shipped sweeps there are."""
    return listing(what)
