"""`segda recipe`: a recipe, or a mix of blocks, as one flat file with the source of each number beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segda.commands.arguments import DataFile, Settings
from segda.errors import RunError


def recipe(
    name: Annotated[
        Path | str,
        typer.Argument(metavar="RECIPE", help="A shipped recipe, a YAML file, or blocks with + between them."),
    ],
    data: DataFile = None,
    settings: Settings = (),
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE.yaml", help="Write it there.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.yaml.")] = False,
) -> str:
    """Print a recipe as one flat file, with the source of each number beside it.

    What is printed is itself a recipe: copy it with --to mine.yaml, change it, and segda train mine.yaml. The name of
    one block alone gives that block's file.
    """
    from segda.ground.atomic import write_text
    from segda.recipes.blocks import shipped_blocks
    from segda.recipes.recipe import load_recipe

    blocks = shipped_blocks()
    if str(name) in blocks and data is None and not settings:
        text = blocks[str(name)].read_text(encoding="utf-8")
    else:
        text = load_recipe(name, data).override(*settings).to_yaml(defaults=False)
    if to is not None:
        if to.exists() and not overwrite:
            raise RunError(f"{to} exists; use --overwrite to replace it, or another --to")
        write_text(to, text)
    return text
