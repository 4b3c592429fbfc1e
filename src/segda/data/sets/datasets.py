"""Data sets by the names that recipes and commands call them.

A data set is written `name:split[:condition]`, for example `camvid:train:day`, and looked for in `<root>/<folder>`,
where the folder is one of its row's usual names (data/rows/); the root itself may be that folder. Zip archives that
lie in it are read in place. Several are joined by `+`: `cityscapes-foggy:train+cityscapes-rain:train`; see
data/sets/specs.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from segda.data.labels.spaces import Space
from segda.data.rows import Row
from segda.data.sets.dataset import DataSet, Part
from segda.data.sets.files import FileSet
from segda.data.sets.folders import IGNORED
from segda.data.sets.own import OwnFiles
from segda.data.sets.specs import FOLDER, own_space, parse, parts_of, row_of
from segda.data.sets.streets import Streets
from segda.data.sets.unions import Union
from segda.errors import RecipeError, few
from segda.ground.paths import expanded

MADE: dict[str, Callable[[str, Space, str, str | None], Part]] = {"streets": Streets.of}
"""Data sets that are no files: name -> what makes one of its spec, space, split and condition."""

NAMED = 10
"""Classes that a message names."""


def default_root() -> Path:
    """Where data are looked for when nothing is said: $SEGDA_DATA, else `data`."""
    return expanded(os.environ.get("SEGDA_DATA") or "data")


def open_data(spec: str, root: Path | None = None, space: Space | None = None) -> DataSet:
    """The data set `name:split[:condition]` under `root`, its labels in `space` (default: the data set's own).

    Several, joined by `+`, become a Union. Lists the image files and opens none. RecipeError for an unknown part of the
    spec or a space that shares no class with the labels; DataError for a missing folder or an empty split.
    """
    space = space or own_space(spec)
    root = default_root() if root is None else expanded(root)
    told = parts_of(spec)
    parts = [_open(part, root, space) for part, _ in told]
    weights = [weight for _, weight in told]
    if len(parts) > 1:
        return Union.of(spec, space, parts, weights)
    if weights[0] is not None:
        raise RecipeError(f"{spec}: a weight has no effect on a data set alone; leave out the *")
    return parts[0]


def _open(spec: str, root: Path, space: Space) -> Part:
    name, split, condition = parse(spec)
    row = row_of(name, split)
    if row.labels and not row.classes_in(space):
        raise RecipeError(_no_class(spec, name, row, space))
    if name.startswith(FOLDER):
        return OwnFiles.told_by(spec, space, row, name, split)
    if name in MADE:
        return MADE[name](spec, space, split, condition)
    return FileSet.open(spec, space, row, name, split, condition, root)


def _no_class(spec: str, name: str, row: Row, space: Space) -> str:
    """What is wrong with labels that have no class of a space."""
    if not name.startswith(FOLDER):
        return f"{spec}: its labels have no class of the space {space.name}; use {row.space}"
    named = {one for _, labelling in row.labels for one in row.names(labelling).values()} - {IGNORED}
    classes, file = f"{few(space.classes, NAMED)} ({space.name})", name.removeprefix(FOLDER)
    return (
        f"{spec}: its labels know {few(sorted(named), NAMED)}, and none of the classes {classes}; where they mean the "
        f"same, give them the same names in {file}, or becomes: {{...}}"
    )
