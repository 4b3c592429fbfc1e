"""`segda draw`: drawn street scenes as files in the layout of Cityscapes, see data/streets/files.py."""

from __future__ import annotations

from pathlib import Path

from segda.data.sets.specs import parse
from segda.data.streets.conditions import SPLITS
from segda.data.streets.files import SMALLEST, write_scenes
from segda.errors import RecipeError, RunError


def draw_files(spec: str, count: int, out: Path, size: tuple[int, int] = (512, 1024)) -> list[Path]:
    """Write the first `count` scenes of streets:SPLIT[:CONDITION] below the folder `out`; returns the files, in order.

    size: (height, width). RecipeError for a spec, count or size that cannot be; RunError when `out` is not empty or
    cannot be written. A file is written whole or not at all.
    """
    name, split, condition = parse(spec)
    if name != "streets":
        raise RecipeError(f"{spec}: only streets is drawn; {name} is read from files. Write streets:{split}")
    if min(size) < SMALLEST:
        raise RecipeError(f"--size {size[0]}x{size[1]}: each side needs at least {SMALLEST} pixels")
    _, most = SPLITS[split]
    if not 1 <= count <= most:
        raise RecipeError(f"--count {count}: streets:{split} has 1 to {most} scenes")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} exists and is not an empty folder; choose another --out")
    return write_scenes(split, condition or "day", count, out, size)
