"""`segda recipe`: a recipe, or a mix of blocks, as one flat file with the source of each number beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from segda.commands.arguments import DataFile, Settings
from segda.errors import RecipeError, RunError


def recipe(
    name: Annotated[
        Path | str | None,
        typer.Argument(metavar="RECIPE", help="A shipped recipe, a YAML file, or blocks with + between them."),
    ] = None,
    data: DataFile = None,
    settings: Settings = (),
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Write it there.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.yaml.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of recipes instead, for editors; no RECIPE.")
    ] = False,
) -> str:
    """Print a recipe as one flat file, with the source of each number beside it.

    What is printed is itself a recipe: copy it with --to mine.yaml, change it, and segda train mine.yaml. The name of
    one block alone gives that block's file. With --schema an editor learns the keys and their types: it then completes
    them and underlines what is wrong.
    """
    from segda.commands.names import look_up_recipe
    from segda.recipes.blocks import shipped, shipped_blocks

    if schema == (name is not None) or (schema and (data is not None or settings)):
        raise RecipeError("give a RECIPE, or --schema alone")
    blocks = shipped_blocks()
    if schema:
        from segda.recipes.derived import derived

        text = json.dumps(derived()["schema"], indent=1) + "\n"
    elif str(name) in blocks and data is None and not settings:
        text = blocks[str(name)].read_text(encoding="utf-8")
    elif str(name) in shipped() and data is None and not settings:
        from segda.recipes.recipe import shipped_recipe

        text = shipped_recipe(str(name)).to_yaml(defaults=False)
    else:
        assert name is not None
        look_up_recipe(name, data)

        from segda.recipes.recipe import load_recipe

        text = load_recipe(name, data).override(*settings).to_yaml(defaults=False)
    if to is not None:
        if to.exists() and not overwrite:
            raise RunError(f"{to} exists; use --overwrite to replace it, or another --to")
        from segda.ground.atomic import write_text

        write_text(to, text)
    return text
