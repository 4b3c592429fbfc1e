"""Names for what labels hold: as somebody said, as a tool's list beside the labels says, of a palette, or assumed.

A guess is said, so that whoever reads it can correct the YAML file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segda.data.labels.class_lists import NAMES, classes_in
from segda.data.labels.spaces import SPACES, Space, as_hex
from segda.data.own.values import Values
from segda.data.sets.folders import BACKGROUND, CLASSES, HELD
from segda.errors import RecipeError
from segda.ground.ignore import IGNORE

KNOWN_SHARE = 0.9
"""Of the pixels, what must have a palette's colours for it to be taken."""

SHOWN = 12
"""Values that a line names."""


@dataclass
class Named:
    """classes: name -> {id: ..., colour: ...} as a YAML file of one's own has them. ignored: ids, colours or names that
    mean nothing. assumed: what nobody said, a sentence each.
    """

    classes: dict[str, dict[str, Any]] = field(default_factory=dict)
    ignored: list[Any] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)


def list_beside(labels: Path) -> Path | None:
    """The list of classes that a tool wrote into the folder of labels or the one above."""
    return next((path for place in (labels, labels.parent) for name in NAMES if (path := place / name).is_file()), None)


def parse_classes(words: str) -> dict[str, dict[str, Any]] | list[str]:
    """What --classes says: a file; `road=0,car=1`, `road=#804080,car=#00008e`; or names alone, as a list."""
    if Path(words).is_file():
        return classes_in(Path(words))
    named: dict[str, dict[str, Any]] = {}
    for part in words.split(","):
        name, mark, value = part.strip().rpartition("=")
        name, value = (name.strip(), value.strip()) if mark else (value.strip(), "")
        if not name:
            raise RecipeError(f"--classes {words}: a name is empty; write road,car or road=0,car=1 or road=#804080")
        if name in named:
            raise RecipeError(f"--classes {words}: {name} is named twice; name each class once")
        named[name] = _value(words, value) if mark else {}
    if all(not one for one in named.values()):
        return list(named)
    if lacking := [name for name, one in named.items() if not one]:
        raise RecipeError(
            f"--classes {words}: {lacking[0]} has no value, others have; write {lacking[0]}=ID or =#RRGGBB"
        )
    return named


def _value(words: str, value: str) -> dict[str, Any]:
    if value.isdigit():
        return {"id": int(value)}
    if value.startswith("#") and len(value) == 7:
        try:
            return {"colour": list(bytes.fromhex(value[1:]))}
        except ValueError:
            pass
    raise RecipeError(f"--classes {words}: {value!r} is neither an id nor a colour; write road=0 or road=#804080")


def unnamed(values: Values) -> list[Any]:
    """What a person may name: ids in their order; or colours, the most frequent first, of no palette that is known."""
    if values.kind == "ids" and not values.binary:
        return [id for id in sorted(values.pixels) if id != IGNORE]
    if values.kind == "colours" and _palette(values) is None:
        return _by_pixels(values)
    return []


def answered(asked: Sequence[Any], words: str) -> dict[str, dict[str, Any]] | list[str]:
    """What an answer says of values that were shown in an order: as --classes, where names alone do for colours too."""
    said = parse_classes(words)
    if isinstance(said, Mapping) or not isinstance(asked[0], tuple):
        return said
    if len(said) != len(asked):
        raise RecipeError(
            f"{len(said)} names for {len(asked)} colours; name all, or those that are classes, as "
            f"{said[0]}={as_hex(asked[0])}"
        )
    return {name: {"colour": list(colour)} for name, colour in zip(said, asked, strict=True)}


def name_classes(values: Values, said: Mapping[str, dict[str, Any]] | Sequence[str] | None) -> Named:
    """The classes of what a first look found. said: None where nobody said anything. RecipeError for too many."""
    named = _named(values, said)
    if not named.classes:
        raise RecipeError(
            "the labels hold 255 alone, which means nothing; are they masks that nobody has drawn in? "
            "--classes thing=255 says that it is a class"
        )
    if (count := len(named.classes)) > CLASSES:
        example = (
            "road=#804080" if values.kind == "colours" else "road" if values.kind in ("masks", "shapes") else "road=7"
        )
        raise RecipeError(
            f"--classes: {count} classes, more than {CLASSES}: {HELD}; name those that matter, as {example} (others "
            "mean nothing then), or write a YAML file in which several are one: classes: {tree: {id: [3, 300]}}"
        )
    return named


def _named(values: Values, said: Mapping[str, dict[str, Any]] | Sequence[str] | None) -> Named:
    if values.kind in ("masks", "shapes"):
        return _by_name(values, said)
    if isinstance(said, Mapping):
        return _as_said(values, said)
    if values.kind == "colours":
        return _colours(values, said)
    return _ids(values, said)


def _by_name(values: Values, said: Mapping[str, dict[str, Any]] | Sequence[str] | None) -> Named:
    """Of shapes and of masks, which have names already; where some are said, the others mean nothing."""
    there = sorted(map(str, values.pixels))
    names = list(said or there)
    if said is None and not set(BACKGROUND) & set(there):
        names.insert(0, BACKGROUND[0])
    if said is not None and not set(names) & set(there):
        raise RecipeError(f"--classes {','.join(names)}: the labels name others: {', '.join(there)}")
    named = Named({name: {"id": number} for number, name in enumerate(names)})
    if said is None:
        named.assumed.append(f"what no {'shape' if values.kind == 'shapes' else 'mask'} covers is background")
    named.ignored = [name for name in there if name not in names]
    if named.ignored:
        named.assumed.append(f"{', '.join(named.ignored)} mean nothing: --classes does not name them")
    return named


def _as_said(values: Values, said: Mapping[str, dict[str, Any]]) -> Named:
    """Classes that come with their values; what is found besides means nothing."""
    key = "colour" if values.kind == "colours" else "id"
    if lacking := next((name for name, one in said.items() if key not in one), None):
        other = "ids" if key == "colour" else "colours"
        raise RecipeError(
            f"--classes: {lacking} has no {key}, and the labels are {values.kind}; the list is of {other}"
        )
    known = {_hashable(one[key]) for one in said.values()}
    named = Named({name: dict(one) for name, one in said.items()})
    rest = [value for value in _by_pixels(values) if value not in known and value != IGNORE]
    named.ignored = [list(value) if isinstance(value, tuple) else value for value in rest]
    if len(rest) > SHOWN:
        share = sum(map(values.share, rest))
        named.assumed.append(f"{len(rest)} values mean nothing ({share:.1%} of the pixels): no class has them")
    else:
        named.assumed += [f"{_nothing(values, value)}: no class has it" for value in rest]
    return named


def _ids(values: Values, names: Sequence[str] | None) -> Named:
    """Ids, and names for them in their order."""
    every = sorted(values.pixels)
    ids = [id for id in every if id != IGNORE]
    if values.binary and (names is None or len(names) == 2):
        named = Named(dict(zip(names or ("background", "foreground"), ({"id": 0}, {"id": IGNORE}), strict=True)))
        named.assumed.append("255 is a class, as in masks of black and white, and not what is ignored")
        if names is None:
            named.assumed.append("0 is called background, 255 foreground")
        return named
    if names is None:
        named = Named({f"class_{id}": _with_colour({"id": id}, values) for id in ids})
        named.assumed.append("classes are called by their ids: nobody said their names")
    elif len(names) == len(ids):
        named = Named({name: _with_colour({"id": id}, values) for name, id in zip(names, ids, strict=True)})
        if ids != list(range(len(ids))):
            pairs = ", ".join(f"{name} is {id}" for name, id in zip(names, ids, strict=True))
            named.assumed.append(f"names go with ids in their order: {pairs}")
    elif ids and max(ids) < len(names):
        named = Named({name: _with_colour({"id": id}, values) for id, name in enumerate(names)})
        absent = [name for id, name in enumerate(names) if id not in ids]
        named.assumed.append(f"the first name is id 0; labels that were looked at have no {', '.join(absent)}")
    else:
        raise RecipeError(
            f"--classes names {len(names)} classes, labels have {len(ids)} ids: {', '.join(map(str, ids[:20]))}; write "
            "which is which, as road=0,car=7"
        )
    if IGNORE in every:
        named.assumed.append(_nothing(values, IGNORE))
    return named


def _colours(values: Values, names: Sequence[str] | None) -> Named:
    """Colours of a known palette, else called by themselves."""
    found = _by_pixels(values)
    shown = shares(values, found[:SHOWN])
    if names is not None:
        example = ",".join(f"{name}={as_hex(colour)}" for name, colour in zip(names, found, strict=False))
        raise RecipeError(
            f"--classes names no colours, and labels are in colours: {shown}; write which is which, as {example}"
        )
    if (space := _palette(values)) is not None:
        rest = [colour for colour in found if colour not in space.colours.values()]
        named = Named({name: {"colour": list(colour)} for name, colour in space.colours.items()})
        named.ignored = [list(colour) for colour in rest]
        named.assumed.append(f"the colours are those of {space.name}, and so are the names")
        named.assumed += [_nothing(values, one) for one in rest]
        return named
    named = Named({f"colour_{as_hex(colour)[1:]}": {"colour": list(colour)} for colour in found})
    named.assumed.append(f"classes are called by their colours, of no palette that is known: {shown}")
    return named


def _palette(values: Values) -> Space | None:
    """The space that has the colours of nearly all pixels."""
    shares = ((sum(map(values.share, {*space.colours.values()})), space) for space in SPACES.values())
    return next((space for share, space in shares if share > KNOWN_SHARE), None)


def _with_colour(one: dict[str, Any], values: Values) -> dict[str, Any]:
    colour = values.palette.get(one["id"])
    return one if colour is None else one | {"colour": list(colour)}


def _by_pixels(values: Values) -> list[Any]:
    return [value for value, _ in values.pixels.most_common()]


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def shares(values: Values, of: Sequence[Any]) -> str:
    """Ids or colours, each with its share of the pixels."""
    return ", ".join(f"{shown(value)} ({values.share(value):.1%})" for value in of)


def _nothing(values: Values, value: Any) -> str:
    return f"{shown(value)} means nothing ({values.share(value):.1%} of the pixels)"


def shown(value: Any) -> str:
    """An id, or a colour as #RRGGBB."""
    return as_hex(value) if isinstance(value, tuple) else str(value)
