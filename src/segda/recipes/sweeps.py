"""Sweep files: axes of recipes, seeds and settings, and the runs that their combinations make.

    recipe: ebda_streets                     # or an axis `recipe`
    runs: runs/levels                        # default: runs/NAME-OF-THE-FILE
    set: {steps: 300}                        # keys that are the same in all runs
    axes:                                    # every combination is a run: level0.3-narrow-plain-seed0, ...
      method.level: [0.3, 0.4, 0.5]
      network: {narrow: {...}, wide: {...}}  # NAME: VALUE, where a value is no word for a folder's name
      set: {plain: {}, warm: {optim.warmup: 50, optim.lr: 1e-3}}  # keys that change together, also `recipe`
      seed: [0, 1, 2]
    exclude:
      - {method.level: 0.3, seed: [1, 2]}

The authors of DAFormer keep such matrices in code (experiments.py).
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from segda.errors import RecipeError, nearest
from segda.ground.safe_yaml import yaml_line
from segda.recipes.blocks import read_mapping, short_name
from segda.recipes.complaints import explain
from segda.recipes.keys import Block
from segda.recipes.overriding import setting
from segda.recipes.recipe import Recipe

MOST = 10_000
"""Combinations; a file of more is refused, since a few short lists multiply to any number."""

Choices = dict[str, Any]
"""Axis -> the name of one of its values."""


class SweepFile(Block):
    """What a sweep file holds."""

    recipe: str | None = None
    """Of all runs, where it is no axis: a shipped name, a path from the current folder, or blocks (blocks.py)."""
    runs: Path | None = None
    """Folder of the run folders, from the current folder."""
    set: dict[str, Any] = Field({})
    axes: dict[str, Any]
    exclude: list[dict[str, Any]] = Field([])


@dataclass(frozen=True)
class Combination:
    """One value of each axis: a run."""

    name: str
    """Of its folder."""
    recipe: str
    settings: tuple[str, ...]
    """KEY=VALUE, in the order in which they are applied."""


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read."""

    file: str
    runs: Path
    combinations: tuple[Combination, ...]
    """In the order of the file, the last axis changing fastest."""


def shipped_sweeps() -> dict[str, Path]:
    """The sweep files that come with segda, by name."""
    folder = Path(str(files("segda.recipes") / "sweeps"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_sweep(file: Path | str) -> Sweep:
    """A shipped sweep's name, or the path of a YAML file. RecipeError for what is wrong in the file itself; whether a
    recipe takes its settings is found out when it is made.
    """
    known = shipped_sweeps()
    path = known.get(str(file), Path(file))
    if str(file) not in known and path.suffix not in (".yaml", ".yml"):
        raise RecipeError(f"unknown sweep {str(file)!r}{nearest(file, known)} (or give the path of a .yaml file)")
    content = _read(path)
    where = path.name
    if not content.axes:
        raise RecipeError(f"{where}: axes: needs at least one, for example seed: [0, 1, 2]")
    axes = {axis: _values(axis, given, content, where) for axis, given in content.axes.items()}
    if (count := prod(map(len, axes.values()))) > MOST:
        raise RecipeError(f"{where}: axes: {count} combinations, more than {MOST}; leave out values, or use two files")
    _check_one_recipe(axes, content, where)
    for rule in content.exclude:
        _check_rule(rule, axes, where)
    found = []
    for names in product(*axes.values()):
        choices = dict(zip(axes, names, strict=True))
        if not any(_excludes(rule, choices, axes) for rule in content.exclude):
            found.append(_combination(choices, axes, content))
    if not found:
        raise RecipeError(f"{where}: exclude leaves no run; remove a rule")
    return Sweep(where, content.runs or Path("runs") / path.stem, tuple(found))


def _read(path: Path) -> SweepFile:
    found = read_mapping(
        path,
        absent=f"no sweep file at {path}; shipped are: {', '.join(shipped_sweeps())}",
        kind=f"no sweep; a sweep is a mapping such as {shipped_sweeps()['streets_seeds']}",
    )
    try:
        return SweepFile.model_validate(found.values)
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain(error, SweepFile)}") from error


def _values(axis: str, given: Any, content: SweepFile, where: str) -> dict[str, Any]:
    """Name -> value of an axis; RecipeError where it is no key of a recipe, is empty or cannot be named."""
    keys = ("recipe", "set", *Recipe.model_fields)
    where = f"{where}: axes: {axis}"
    if axis.partition(".")[0] not in keys:
        raise RecipeError(f"{where}: recipes have no such key{nearest(axis, keys)}")
    if axis in content.set:
        raise RecipeError(f"{where}: is in set, too; remove one")
    if not isinstance(given, (list, dict)) or not given:
        raise RecipeError(f"{where}: needs a list of values, or NAME: VALUE pairs (got {given!r})")
    if axis == "set":
        _check_sets(given, content, where)
    if isinstance(given, dict):
        named = [(str(name), value) for name, value in given.items()]
    else:
        # The last part of a key says enough, where no other axis ends so.
        ends = Counter(map(_last, content.axes))
        last = _last(axis)
        named = [(_name(last if ends[last] == 1 else axis, value), value) for value in given]
    for name, count in Counter(name for name, _ in named).items():
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise RecipeError(
                f"{where}: {name!r} cannot be part of a folder's name; write NAME: VALUE pairs, the names of letters, "
                "digits and _ . + -"
            )
        if count > 1:
            raise RecipeError(f"{where}: {count} values are called {name!r}; remove one, or write NAME: VALUE pairs")
    return dict(named)


def _check_sets(given: Any, content: SweepFile, where: str) -> None:
    if not isinstance(given, dict) or not all(isinstance(settings, dict) for settings in given.values()):
        raise RecipeError(f"{where}: needs NAME: {{KEY: VALUE, ...}} pairs (got {given!r:.80})")
    for name, settings in given.items():
        for key in settings:
            if key in content.axes:
                raise RecipeError(f"{where}: {name}: {key} is an axis, too; remove one")


def _check_one_recipe(axes: dict[str, dict[str, Any]], content: SweepFile, where: str) -> None:
    """Each run has its recipe from one place: the file, the axis `recipe`, or the axis `set`."""
    sets = ["recipe" in settings for settings in axes.get("set", {}).values()]
    places = (content.recipe is not None) + ("recipe" in axes) + any(sets)
    if places != 1 or (any(sets) and not all(sets)):
        raise RecipeError(
            f"{where}: needs one recipe a run: `recipe: NAME`, or an axis `recipe: [NAME, ...]`, or a recipe in each "
            "value of the axis `set`"
        )


def _check_rule(rule: dict[str, Any], axes: dict[str, dict[str, Any]], where: str) -> None:
    """A rule of `exclude` that can never hold is a mistake."""
    if not rule:
        raise RecipeError(f"{where}: exclude: a rule is empty; write AXIS: VALUE, or remove it")
    for axis, listed in rule.items():
        if axis not in axes:
            raise RecipeError(f"{where}: exclude: no axis {axis!r}{nearest(axis, axes)}")
        for one in _list(listed):
            if one not in list(axes[axis]) and one not in axes[axis].values():  # a list: `one` may have no hash
                raise RecipeError(f"{where}: exclude: {axis} is never {one!r}{nearest(one, axes[axis])}")


def _excludes(rule: dict[str, Any], choices: Choices, axes: dict[str, dict[str, Any]]) -> bool:
    """Does the rule hold? Values are meant by their name or as they are written."""
    return all(
        choices[axis] in _list(listed) or axes[axis][choices[axis]] in _list(listed) for axis, listed in rule.items()
    )


def _combination(choices: Choices, axes: dict[str, dict[str, Any]], content: SweepFile) -> Combination:
    values = {axis: axes[axis][name] for axis, name in choices.items()}
    values = {**content.set, **values.pop("set", {}), **values}
    recipe = str(values.pop("recipe", content.recipe))
    settings = tuple(setting(key, value) for key, value in values.items())
    # The recipe first, the seed last, the others as they are written.
    place = {"recipe": 0, "seed": 2}
    name = "-".join(choices[axis] for axis in sorted(choices, key=lambda axis: place.get(axis, 1)))
    return Combination(name, recipe, settings)


def _last(axis: str) -> str:
    """The last part of a key; of a domain's data set, the domain: data.target.set -> target."""
    return axis.removesuffix(".set").rpartition(".")[2]


def _name(title: str, value: Any) -> str:
    """seed, 0 -> seed0; encoder, b0 -> encoder_b0; a recipe's name as it is."""
    if title == "recipe":
        return short_name(str(value))
    text = value if isinstance(value, str) else yaml_line(value)
    with suppress(ValueError):
        float(text)
        return f"{title}{text}"
    # streets:train:night -> streets_train_night
    return f"{title}_{re.sub(r'[:/ ]', '_', text)}"


def _list(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]
