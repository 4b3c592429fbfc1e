"""What there is to name in a recipe or on the command line.

Names, what files say of themselves, and what classes can be given, which is kept in a file: none of it needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from segda.data.rows import DATASETS
from segda.data.sets.specs import conditions_of
from segda.ground.choices import What
from segda.recipes.blocks import compose, shipped, shipped_blocks
from segda.recipes.derived import derived

NARROW = 80


def listing(what: What) -> Group:
    """A line for each block, data set, shipped recipe or sweep; below blocks, the classes that they can name."""
    # Of data sets and recipes the rest is names as well: they go on below, so that none is cut off.
    tables: list[Table | Text] = [_table(TITLES[what], ROWS[what](), one_line=what not in ("datasets", "recipes"))]
    if what in CLASSES:
        title, rows = CLASSES[what]
        tables += [Text(), _table((title, "settings ([optional])"), rows(), one_line=False)]
    return Group(*tables)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, one_line: bool) -> Table:
    """Names stay whole; where the terminal is narrow, the rest is cut off (`one_line`) or goes on below, in words that
    stay whole if a terminal of NARROW columns has room for the longest of each column.
    """
    rows = list(rows)
    longest = [max((len(word) for row in rows for word in row[n].split()), default=0) for n in range(len(titles))]
    # One space between columns where two would cost a word its end.
    gap = 2 if sum(longest) + 2 * (len(titles) - 1) <= NARROW else 1
    fits = not one_line and sum(longest) + gap * (len(titles) - 1) <= NARROW
    table = Table(box=None, pad_edge=False, padding=(0, gap if fits else 2, 0, 0))
    for number, title in enumerate(titles):
        least = longest[number] if fits else None
        table.add_column(Text(title), overflow="fold", no_wrap=number == 0, min_width=least)
    for name, *others in rows:
        # As plain text: rich would take [x] for a style and :train: for a picture.
        rest = [Text(text, no_wrap=True, overflow="ellipsis") if one_line else Text(text) for text in others]
        table.add_row(Text(name), *rest)
    return table


def _blocks(kind: str) -> Sequence[tuple[str, ...]]:
    return [(name, about(path)) for name, path in shipped_blocks(kind).items()]


def _classes(kind: str) -> Sequence[tuple[str, ...]]:
    return list(derived()[kind].items())


def _datasets() -> Sequence[tuple[str, ...]]:
    return [
        (name, row.doc, ", ".join(row.splits), ", ".join(conditions_of(name)), row.space)
        for name, row in DATASETS.items()
    ]


def _recipes() -> Sequence[tuple[str, ...]]:
    """What their files say: they come with segda, so their values are of the right types."""
    rows = []
    for name in shipped():
        recipe = compose(name)[0].values
        data, network = recipe["data"], recipe.get("network")
        source = data["source"]["set"] if data.get("source") else "none"
        rows.append(
            (
                name,
                f"{source} -> {data['target']['set']}".replace("+", " + "),
                f"{_in_words(network) if network else recipe['method']['name']}, {recipe['steps']:,} steps",
            )
        )
    return rows


def _in_words(spec: Mapping[str, Any]) -> str:
    """A network and its encoder, or the networks that it wraps: `hrda (mit_daformer b5)`."""
    inside = [f"({_in_words(value)})" for value in spec.values() if isinstance(value, Mapping) and "name" in value]
    return " ".join([spec["name"], *([str(spec["encoder"])] if "encoder" in spec else []), *inside])


def _sweeps() -> Sequence[tuple[str, ...]]:
    from segda.recipes.sweeps import load_sweep, shipped_sweeps

    rows = []
    for name, path in shipped_sweeps().items():
        combinations = load_sweep(name).combinations
        recipes = dict.fromkeys(one.recipe for one in combinations)
        rows.append((name, about(path), f"{len(combinations)}", ", ".join(recipes)))
    return rows


def about(path: Path) -> str:
    """The first sentence of the comment that a file begins with."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    text = " ".join(line.removeprefix("#").strip() for line in lines)
    return re.split(r"(?<=[.?])\s", text)[0].rstrip(".")


TITLES: dict[What, tuple[str, ...]] = {
    "methods": ("block", "what it is"),
    "networks": ("block", "what it is"),
    "benchmarks": ("block", "what it is"),
    "datasets": ("data set", "what it is", "splits", "conditions", "label space"),
    "recipes": ("recipe", "source -> target", "network"),
    "sweeps": ("sweep", "what it is", "runs", "recipes"),
}
ROWS: dict[What, Callable[[], Sequence[tuple[str, ...]]]] = {
    "methods": partial(_blocks, "methods"),
    "networks": partial(_blocks, "networks"),
    "benchmarks": partial(_blocks, "benchmarks"),
    "datasets": _datasets,
    "recipes": _recipes,
    "sweeps": _sweeps,
}
CLASSES: dict[What, tuple[str, Callable[[], Sequence[tuple[str, ...]]]]] = {
    "methods": ("method.name", partial(_classes, "methods")),
    "networks": ("network.name", partial(_classes, "networks")),
}
