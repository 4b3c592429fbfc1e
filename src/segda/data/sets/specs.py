"""How data sets are written: `name:split[:condition]`, several conditions by `,`, several data sets by `+`.

`cityscapes-foggy:train:refined,0.01` is what both conditions hold for. In `a:train*2+b:train` the first is drawn twice
as often as the second, however many images each has; without a `*`, every image is drawn as often as any other. A
folder of one's own is written `folder:FILE.yaml:split`, see data/sets/folders.py; a path with one of these marks in it
stands in quotes, `folder:'c++/x.yaml':train`, unless a file of that name is there.
"""

from __future__ import annotations

import math
from pathlib import Path

from segda.data.labels.spaces import Space, space_named
from segda.data.rows import DATASETS, Row
from segda.errors import RecipeError, nearest
from segda.ground.paths import expanded

FOLDER = "folder:"
"""What a spec of images of one's own begins with."""

MARKS = "+*:'\""
"""What separates the parts of a spec."""


def row_of(name: str, split: str | None = None) -> Row:
    """The row of a data set that `parse` has given the name (and the split) of."""
    if not name.startswith(FOLDER):
        return DATASETS[name]
    # It reads images, which takes libraries that no name of a data set needs.
    from segda.data.sets.folders import folder_row

    return folder_row(name.removeprefix(FOLDER), split)


def conditions_of(name: str) -> tuple[str, ...]:
    """The conditions that a data set can be asked for."""
    row = row_of(name)
    return (*row.conditions, *(one for one in row.lists if one not in row.splits))


def parse(spec: str) -> tuple[str, str, str | None]:
    """`name:split[:condition]` -> its parts; RecipeError with the nearest name for one that is unknown."""
    if spec.startswith(FOLDER):
        path, _, split = spec.removeprefix(FOLDER).rpartition(":")
        name = FOLDER + _unquoted(path)
        if not path:
            raise RecipeError(
                f"{spec!r}: a folder of your own is written folder:FILE.yaml:split; where its path has a +, which "
                "joins data sets, in quotes: folder:'a+b.yaml':split"
            )
        if split not in (splits := row_of(name).splits):
            raise RecipeError(f"{spec!r}: {name.removeprefix(FOLDER)} has no split {split!r}{nearest(split, splits)}")
        return name, split, None
    name, *rest = spec.split(":")
    if name not in DATASETS:
        raise RecipeError(_unknown(spec, name))
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
    for part in _joined(spec):
        one, star, text = _weighted(part)
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


def placed(spec: str, folder: Path) -> str:
    """A spec of a file in `folder`: YAML files that are not there from the current folder on, but are from that one on,
    by their path through it. So a recipe may name the data.yaml beside it.
    """
    parts = []
    for part in _joined(spec):
        one, star, text = _weighted(part)
        if one.startswith(FOLDER):
            path, _, split = one.removeprefix(FOLDER).rpartition(":")
            through = folder / expanded(_unquoted(path))
            if path and not _is_file(_unquoted(path)) and _is_file(str(through)):
                one = f"{FOLDER}{through}:{split}"
        parts.append(f"{one}{star}{text}")
    return "+".join(parts)


def _name(part: str) -> str:
    """The name of the data set that a part of a spec is of, as `parse` gives it."""
    if part.startswith(FOLDER):
        return FOLDER + _unquoted(part.removeprefix(FOLDER).rpartition(":")[0])
    return part.split(":")[0]


def _joined(spec: str) -> list[str]:
    """A spec at its `+`; one in the path of a YAML file, in quotes or of a file that is there, joins nothing."""
    parts = []
    at = 0
    while at <= len(spec):
        end = spec.find("+", _path_end(spec, at))
        end = len(spec) if end < 0 else end
        parts.append(spec[at:end])
        at = end + 1
    return parts


def _weighted(part: str) -> tuple[str, str, str]:
    """A part of a spec at its `*`: what is before it, the star, the weight."""
    end = _path_end(part, 0)
    one, star, text = part[end:].partition("*")
    return part[:end] + one, star, text


def _path_end(spec: str, at: int) -> int:
    """Where the path of a YAML file that is named from `at` on ends; `at` where none is named, or it has no marks."""
    begin = at + len(FOLDER)
    if not spec.startswith(FOLDER, at) or begin == len(spec):
        return at
    if spec[begin] in "'\"":
        end = spec.find(spec[begin], begin + 1)
        if end < 0:
            raise RecipeError(f"{spec!r}: a quotation mark is not closed; write folder:'FILE.yaml':split")
        return end + 1
    ends = [place for place in range(begin, len(spec)) if spec[place] == ":"]
    return next((end for end in reversed(ends) if _is_file(spec[begin:end])), at)


def _is_file(path: str) -> bool:
    try:
        return expanded(path).is_file()
    except (OSError, ValueError):  # no path at all
        return False


def _unquoted(path: str) -> str:
    return path[1:-1] if len(path) > 1 and path[0] == path[-1] and path[0] in "'\"" else path


def quoted(path: str) -> str:
    """The path of a YAML file as it stands in a spec."""
    return f"'{path}'" if any(mark in path for mark in MARKS) else path


def _unknown(spec: str, name: str) -> str:
    """What a spec of no data set is taken for: a folder, a YAML file, a name that is misspelt."""
    for given in filter(None, (spec, name)):
        path = expanded(given)
        if _is_file(given) and path.suffix.lower() in (".yaml", ".yml"):
            return f"{spec!r}: a data set that a YAML file tells of is written folder:{quoted(given)}:SPLIT"
        if path.is_dir():
            file = quoted(str(Path(given) / "data.yaml"))
            return (
                f"{spec!r} is a folder: a YAML file says what is in one; segda init writes it, and then the data set "
                f"is folder:{file}:train"
            )
    return f"{spec!r}: unknown data set {name!r}{nearest(name, DATASETS)}"


def data_sets(spec: str) -> set[str]:
    """The names of the data sets in a spec."""
    return {_name(part) for part, _ in parts_of(spec)}


def kinds_of(spec: str) -> list[tuple[str, frozenset[str]]]:
    """The name and the conditions of each data set in a spec, without its split, see `pieces_of`."""
    return [(name, conditions) for name, _, conditions in pieces_of(spec)]


def pieces_of(spec: str) -> list[tuple[str, str, frozenset[str]]]:
    """The name, the split and the conditions of each data set in a spec. Nothing is looked up: a spec that nobody can
    open has them as well.
    """
    pieces = []
    for part in _joined(spec):
        one, _, _ = _weighted(part)
        if one.startswith(FOLDER):
            pieces.append((_name(one), one.rpartition(":")[2], frozenset[str]()))
        else:
            name, _, rest = one.partition(":")
            split, _, conditions = rest.partition(":")
            pieces.append((name, split, frozenset(filter(None, conditions.split(",")))))
    return pieces


def file_name(spec: str) -> str:
    """A spec as part of a file's name."""
    return spec.translate(str.maketrans(":/\\*", "---x", "'\""))


def own_space(spec: str) -> Space:
    """The label space of a data set; RecipeError for several whose own spaces differ."""
    spaces = {(space.name, space.classes): space for part, _ in parts_of(spec) for space in [_own(parse(part)[0])]}
    if len(spaces) > 1:
        names = ", ".join(sorted(name for name, _ in spaces))  # two YAML files may have one name
        raise RecipeError(f"{spec}: its parts have the label spaces {names}; choose with data.space")
    return spaces.popitem()[1]


def _own(name: str) -> Space:
    if not name.startswith(FOLDER):
        return space_named(DATASETS[name].space)
    from segda.data.sets.folders import folder_space

    return folder_space(name.removeprefix(FOLDER))
