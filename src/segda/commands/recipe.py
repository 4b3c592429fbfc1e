"""`segda recipe`: a recipe, or a mix of blocks, as one flat file with the source of each number beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segda.errors import RunError
from segda.ground.atomic import write_text
from segda.recipes.blocks import shipped_blocks
from segda.recipes.recipe import load_recipe


def recipe(name: str | Path, data: Path | str | None = None, settings: Sequence[str] = ()) -> str:
    """The flat recipe of NAME (a shipped name, a YAML file or blocks) as YAML, with all comments; itself a recipe.

    settings: KEY=VALUE, changed in it. The name of one block alone gives that block's file, to begin one's own with.
    """
    blocks = shipped_blocks()
    if str(name) in blocks and data is None and not settings:
        return blocks[str(name)].read_text(encoding="utf-8")
    return load_recipe(name, data).override(*settings).to_yaml(defaults=False)


def write(text: str, file: Path, overwrite: bool) -> None:
    """RunError where the file is there and may not be replaced."""
    if file.exists() and not overwrite:
        raise RunError(f"{file} exists; use --overwrite to replace it, or another --to")
    write_text(file, text)
