"""How data sets are written: `name:split[:condition]`, several conditions by `,`, several data sets by `+`.

`cityscapes-foggy:train:refined,0.01` is what both conditions hold for. In `a:train*2+b:train` the first is drawn twice
as often as the second, however many images each has; without a `*`, every image is drawn as often as any other. A
folder of one's own is written `folder:FILE.yaml:split`, see data/sets/folders.py.
"""

from __future__ import annotations

import math

from segda.data.labels.spaces import Space, space_named
from segda.data.rows import DATASETS, Row
from segda.data.sets.folders import FOLDER, folder_row, folder_space
from segda.errors import RecipeError, nearest


def row_of(name: str, split: str | None = None) -> Row:
    """The row of a data set that `parse` has given the name (and the split) of."""
    return folder_row(name.removeprefix(FOLDER), split) if name.startswith(FOLDER) else DATASETS[name]


def conditions_of(name: str) -> tuple[str, ...]:
    """The conditions that a data set can be asked for."""
    row = row_of(name)
    return (*row.conditions, *(one for one in row.lists if one not in row.splits))


def parse(spec: str) -> tuple[str, str, str | None]:
    """`name:split[:condition]` -> its parts; RecipeError with the nearest name for one that is unknown."""
    if spec.startswith(FOLDER):
        name, _, split = spec.rpartition(":")
        if name in spec[: len(FOLDER)]:
            raise RecipeError(f"{spec!r}: a folder of your own is written folder:FILE.yaml:split")
        if split not in (splits := row_of(name).splits):
            raise RecipeError(f"{spec!r}: {name.removeprefix(FOLDER)} has no split {split!r}{nearest(split, splits)}")
        return name, split, None
    name, *rest = spec.split(":")
    if name not in DATASETS:
        raise RecipeError(f"{spec!r}: unknown data set {name!r}{nearest(name, DATASETS)}")
    if len(rest) not in (1, 2):
        raise RecipeError(f"{spec!r}: a data set is written name:split[:condition], for example '{name}:train'")
    if rest[0] not in DATASETS[name].splits:
        raise RecipeError(f"{spec!r}: {name} has no split {rest[0]!r}{nearest(rest[0], DATASETS[name].splits)}")
    if len(rest) == 1:
        return name, rest[0], None
    known = conditions_of(name)
    for one in rest[1].split(","):
        if one not in known:
            raise RecipeError(f"{spec!r}: {name} has no condition {one!r}{nearest(one, known)}")
    return name, rest[0], rest[1]


def parts_of(spec: str) -> list[tuple[str, float | None]]:
    """The data sets of a spec, each with its weight; RecipeError for a weight that is no positive number."""
    parts: list[tuple[str, float | None]] = []
    for part in spec.split("+"):
        one, star, text = part.partition("*")
        weight = None
        if star:
            try:
                weight = float(text)
            except ValueError:
                weight = math.nan
            if not 0 < weight < math.inf:
                raise RecipeError(f"{spec!r}: {text!r} is no weight; write a number above 0 behind the *")
        parts.append((one, weight))
    return parts


def data_sets(spec: str) -> set[str]:
    """The names of the data sets in a spec."""
    return {part.rpartition(":")[0] if part.startswith(FOLDER) else part.split(":")[0] for part, _ in parts_of(spec)}


def kinds_of(spec: str) -> list[tuple[str, frozenset[str]]]:
    """The name and the conditions of each data set in a spec, without its split. Nothing is looked up: a spec that
    nobody can open has kinds as well.
    """
    kinds = []
    for part in spec.split("+"):
        one = part.partition("*")[0]
        if one.startswith(FOLDER):
            kinds.append((one.rpartition(":")[0], frozenset[str]()))
        else:
            name, _, rest = one.partition(":")
            kinds.append((name, frozenset(filter(None, rest.partition(":")[2].split(",")))))
    return kinds


def file_name(spec: str) -> str:
    """A spec as part of a file's name."""
    return spec.translate(str.maketrans(":/\\*", "---x"))


def own_space(spec: str) -> Space:
    """The label space of a data set; RecipeError for several whose own spaces differ."""
    spaces = {(space.name, space.classes): space for part, _ in parts_of(spec) for space in [_own(parse(part)[0])]}
    if len(spaces) > 1:
        names = ", ".join(sorted(name for name, _ in spaces))  # two YAML files may have one name
        raise RecipeError(f"{spec}: its parts have the label spaces {names}; choose with data.space")
    return spaces.popitem()[1]


def _own(name: str) -> Space:
    return folder_space(name.removeprefix(FOLDER)) if name.startswith(FOLDER) else space_named(DATASETS[name].space)
