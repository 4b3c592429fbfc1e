"""`segda draw`: drawn street scenes as files in the layout of Cityscapes, see data/streets/files.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segda.errors import RecipeError


def draw(
    spec: Annotated[
        str, typer.Argument(metavar="streets:SPLIT:CONDITION", help="What to draw, e.g. streets:train:fog.")
    ],
    out: Annotated[Path | str, typer.Option(help="Folder to write; empty, new, or of the same call.")],
    count: Annotated[int, typer.Option(help="How many scenes.")] = 20,
    size: Annotated[
        str | tuple[int, int], typer.Option(metavar="HEIGHTxWIDTH", help="Pixels of a scene.")
    ] = "512x1024",
) -> list[Path]:
    """Write drawn street scenes as files in the Cityscapes layout: images, label ids, train ids and depth.

    Interrupted, it goes on where it was when it is called again.
    """
    from segda.data.sets.specs import parse
    from segda.data.streets.conditions import SPLITS
    from segda.data.streets.files import SMALLEST, write_scenes

    pixels = _pixels(size)
    name, split, condition = parse(spec)
    if name != "streets":
        raise RecipeError(f"{spec}: only streets is drawn; {name} is read from files. Write streets:{split}")
    if min(pixels) < SMALLEST:
        raise RecipeError(f"--size {pixels[0]}x{pixels[1]}: each side needs at least {SMALLEST} pixels")
    _, most = SPLITS[split]
    if not 1 <= count <= most:
        raise RecipeError(f"--count {count}: streets:{split} has 1 to {most} scenes")
    return write_scenes(split, condition or "day", count, Path(out), pixels)


def _pixels(size: str | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of "512x1024"."""
    if isinstance(size, tuple):
        return size
    height, cross, width = size.partition("x")
    if not (cross and height.isdigit() and width.isdigit()):
        raise RecipeError(f"--size {size}: write HEIGHTxWIDTH in pixels, for example 512x1024")
    return int(height), int(width)
