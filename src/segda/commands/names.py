"""Names on the command line, looked up before torch is imported: a typing mistake is told at once, not after seconds.

What is at work looks again, and closer.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segda.data.sets.specs import parse, parts_of
from segda.ground.paths import recipe_file
from segda.recipes.blocks import compose


def look_up_recipe(recipe: Any, data: Path | str | None = None) -> None:
    """RecipeError for a name of no recipe; one that is loaded has been found."""
    if isinstance(recipe, str | Path):
        compose(recipe, data)


def look_up_runs(runs: Iterable[Path | str]) -> None:
    """RunError where nothing is. What has a suffix may be an exported network, or an ensemble's reports."""
    for run in map(Path, runs):
        if not run.suffix and not run.exists():
            recipe_file(run)


def look_up_data(specs: Iterable[str]) -> None:
    """RecipeError for a name of no data set, split or condition."""
    for spec in specs:
        for part, _ in parts_of(spec):
            parse(part)
