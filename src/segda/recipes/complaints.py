"""pydantic's complaints in one line: where, what, the value, and the nearest name of an unknown key."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from segda.errors import nearest
from segda.recipes.optimisers import OPTIMISERS


def explain(error: ValidationError, model: Any, add_to: str = "the recipe", missing: Sequence[str] = ()) -> str:
    """One of pydantic's complaints in one line: where, what, the value, and the nearest name of an unknown key. Of
    missing keys all, those in `missing` too, which are to be added to `add_to`.
    """
    # An unknown key is often the missing one misspelt: say that first.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    # A union reports its branches in the path ("float", "literal['auto']", "sgd"); users know only their keys.
    places = [part for part in first["loc"] if part not in OPTIMISERS]
    path = [part for part in places if isinstance(part, int) or part.isidentifier()]
    known = _keys_of(model)
    # The keys of `players` are names of a method's own.
    key = ".".join(
        str(part)
        for before, part in zip(("", *places), places, strict=False)
        if isinstance(part, int) or part in known or before == "players"
    )
    where = f"{key}: " if key else ""
    more = sum(one["type"] != "missing" for one in error.errors()) - (first["type"] != "missing")
    rest = f" (and {more} more)" if more and first["type"] in ("missing", "extra_forbidden") else ""
    if first["type"] == "extra_forbidden":
        *above, unknown = first["loc"]  # which may be no word at all
        above = [part for part in above if part in path]
        owner = ".".join(map(str, above))
        # Another branch of a union may know it.
        near = nearest(unknown, [key for key in _keys_at(model, above) if key != unknown])
        return f"{owner + ': ' if owner else ''}unknown key {unknown!r:.80}{near}{rest}"
    if first["type"] == "missing":
        gone = [*(_path(one["loc"]) for one in error.errors() if one["type"] == "missing"), *missing]
        return f"{', '.join(gone)}: missing; add {'it' if len(gone) == 1 else 'them'} to {add_to}{rest}"
    return f"{where}{first['msg'].removeprefix('Value error, ')} (got {first['input']!r:.80})"


def _path(places: tuple[int | str, ...]) -> str:
    """The keys of a place, without a union's branches."""
    known = [part for part in places if part not in OPTIMISERS]
    return ".".join(str(part) for part in known if isinstance(part, int) or part.isidentifier())


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The blocks that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


def _keys_at(annotation: Any, path: list[Any]) -> list[str]:
    """The keys that exist below `path`."""
    models = models_in(annotation)
    for part in path:
        models = [
            found
            for model in models
            if part in model.model_fields
            for found in models_in(model.model_fields[part].annotation)
        ]
    return [key for model in models for key in model.model_fields]


def _keys_of(annotation: Any) -> set[str]:
    """All keys of a model and of the models inside it."""
    keys: set[str] = set()
    for model in models_in(annotation):
        for key, field in model.model_fields.items():
            keys |= {key} | _keys_of(field.annotation)
    return keys
