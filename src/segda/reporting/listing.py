"""What there is to name in a recipe or on the command line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from segda.data.rows import DATASETS
from segda.data.sets.specs import conditions_of
from segda.methods import METHODS
from segda.networks import CHOICES, NETWORKS
from segda.recipes.build import parameters_of
from segda.recipes.recipe import load_recipe, shipped
from segda.recipes.sweeps import load_matrix, shipped_sweeps

What = Literal["methods", "networks", "datasets", "recipes", "sweeps"]


def listing(what: What) -> Table:
    """One row for each method, network, data set, shipped recipe or shipped sweep, with what can be set of it."""
    table = Table(box=None, pad_edge=False)
    for title in TITLES[what]:
        table.add_column(Text(title), overflow="fold")
    for row in ROWS[what]():
        # As plain text: rich would take [x] for a style and :train: for a picture.
        table.add_row(*map(Text, row))
    return table


def _first_line(thing: type) -> str:
    text = inspect.getmodule(thing).__doc__ if thing.__module__.startswith("segda.") else thing.__doc__
    return (text or "").strip().splitlines()[0].rstrip(".")


def _settings(thing: type, given: str) -> str:
    parameters = [value for key, value in parameters_of(thing).items() if key != given]
    return ", ".join(value.name if value.default is value.empty else f"[{value.name}]" for value in parameters)


def _methods() -> list[tuple[str, ...]]:
    return [(name, _first_line(cls), _settings(cls, "student")) for name, cls in METHODS.items()]


def _networks() -> list[tuple[str, ...]]:
    rows = []
    for name, cls in NETWORKS.items():
        choices = "; ".join(f"{key}: {', '.join(values)}" for key, values in CHOICES[name].items())
        rows.append((name, _first_line(cls), f"{_settings(cls, 'class_names')} ({choices})"))
    return rows


def _datasets() -> list[tuple[str, ...]]:
    return [
        (name, row.doc, ", ".join(row.splits), ", ".join(conditions_of(name)), row.space)
        for name, row in DATASETS.items()
    ]


def _recipes() -> list[tuple[str, ...]]:
    rows = []
    for name in shipped():
        recipe = load_recipe(name)
        rows.append(
            (
                name,
                "" if recipe.data.source is None else recipe.data.source.set,
                recipe.data.target.set,
                _in_words(recipe.network),
                f"{recipe.steps:,}",
            )
        )
    return rows


def _in_words(spec: Mapping[str, Any]) -> str:
    """A network and its encoder, or the networks that it wraps: `hrda (mit_daformer b5)`."""
    inside = [f"({_in_words(value)})" for value in spec.values() if isinstance(value, Mapping) and "name" in value]
    return " ".join([spec["name"], *([str(spec["encoder"])] if "encoder" in spec else []), *inside])


def _sweeps() -> list[tuple[str, ...]]:
    rows = []
    for name, path in shipped_sweeps().items():
        combinations = load_matrix(name).combinations
        recipes = dict.fromkeys(one.recipe for one in combinations)
        rows.append((name, about(path), f"{len(combinations)}", ", ".join(recipes)))
    return rows


def about(path: Path) -> str:
    """The first sentence of the comment that a file begins with."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    text = " ".join(line.removeprefix("#").strip() for line in lines)
    return re.split(r"(?<=[.?])\s", text)[0].rstrip(".")


TITLES: dict[What, tuple[str, ...]] = {
    "methods": ("method", "what it is", "settings ([optional])"),
    "networks": ("network", "what it is", "settings ([optional])"),
    "datasets": ("data set", "what it is", "splits", "conditions", "label space"),
    "recipes": ("recipe", "source", "target", "network", "steps"),
    "sweeps": ("sweep", "what it is", "runs", "recipes"),
}

ROWS = {"methods": _methods, "networks": _networks, "datasets": _datasets, "recipes": _recipes, "sweeps": _sweeps}
