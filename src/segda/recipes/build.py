"""A block of a recipe becomes an object: the keyword arguments of its class are its settings.

`build` makes the class that a block names, `check` only looks whether it could; both say in one line, with the nearest
name, what an unknown, missing or wrongly typed setting is.

Networks are trees: where the signature of a network's class says `over: Network`, the recipe has a block of its own
there, and the class gets the network that this block describes. With a method such an argument is a trained network of
another run, which the recipe's `given` names.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import nn

from segda.errors import RecipeError, SegdaError, nearest
from segda.ground.safe_yaml import one_line, yaml_values
from segda.ground.trust import permit
from segda.networks.network import Network
from segda.recipes.complaints import explain

ANY = TypeAdapter(Any)


def build(table: Mapping[str, type], spec: Mapping[str, Any], where: str, **given: Any) -> Any:
    """The class that `spec` names, made with its settings and with `given` (what no recipe can know)."""
    cls = class_named(table, spec, where)
    settings = _arguments(table, cls, spec, where, tuple(given))
    for key in networks_asked(cls) & settings.keys():
        if settings[key] is not None:
            settings[key] = build(table, settings[key], f"{where}.{key}", **given)
    try:
        return cls(**given, **settings)
    except SegdaError as error:
        error.args = (_placed(str(error), where, parameters_of(cls)),)
        raise


def check(table: Mapping[str, type], spec: Mapping[str, Any], where: str, given: tuple[str, ...]) -> dict[str, Any]:
    """The spec with values in their final plain types; RecipeError for an unknown, missing or wrongly typed setting."""
    settings = _arguments(table, class_named(table, spec, where), spec, where, given)
    plain = {key: ANY.dump_python(value, mode="json") for key, value in settings.items()}
    return {"name": spec["name"], **plain}


def changed(
    given: str | Mapping[str, Any], shipped: Mapping[str, Mapping[str, Any]], changes: Sequence[str], option: str
) -> dict[str, Any]:
    """A name with its shipped settings, or a mapping of its name and settings; with changes of single ones.

    changes: "KEY=VALUE", the value in YAML, as `option` of the command line has them.
    """
    spec = {"name": given, **shipped.get(given, {})} if isinstance(given, str) else dict(given)
    for change in changes:
        key, equals, text = change.partition("=")
        if not key or not equals:
            raise RecipeError(f"{option} {change!r}: write KEY=VALUE")
        try:
            spec[key] = yaml_values(text)
        except ValueError as error:
            raise RecipeError(f"{option} {key}: {text!r:.80} is not a YAML value: {error}") from error
    return spec


def from_scratch(table: Mapping[str, type], spec: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The spec of a network with `weights: scratch` wherever it has weights, at any depth: to build it, no file that
    it once started from is needed.
    """
    nested = networks_asked(class_named(table, spec, where))
    found = {
        key: from_scratch(table, value, f"{where}.{key}") if key in nested and isinstance(value, Mapping) else value
        for key, value in spec.items()
    }
    return found | ({"weights": "scratch"} if "weights" in spec else {})


def starts_of(spec: Mapping[str, Any], where: str = "network") -> dict[str, Any]:
    """Dotted key -> value of all `weights` in the spec of a network."""
    found = {f"{where}.weights": spec["weights"]} if "weights" in spec else {}
    for key, value in spec.items():
        if isinstance(value, Mapping):
            found |= starts_of(value, f"{where}.{key}")
    return found


def networks_asked(cls: type) -> set[str]:
    """The arguments of a class that are networks, by their annotations: `over: Network`, `over: Network | None`."""
    return {key for key, value in parameters_of(cls).items() if _network_in(value.annotation) is not None}


def parameters_of(cls: type) -> dict[str, inspect.Parameter]:
    """The arguments of a class, each with its type; for `**settings: Unpack[Block]` the keys of Block, which are
    required but for those marked NotRequired.
    """
    return dict(_parameters(cls, cls.__init__))  # type: ignore[misc]


@lru_cache(maxsize=1024)
def _parameters(cls: type, init: Callable[..., None]) -> Mapping[str, inspect.Parameter]:
    """To be copied. Unsound to call, but __init__ is only looked at: once, since a recipe is looked at often."""
    # With their extras: the bounds of numbers are among them.
    hints = typing.get_type_hints(init, include_extras=True)
    found = {}
    for key, parameter in inspect.signature(cls).parameters.items():
        hint = hints.get(key, Any)
        if typing.get_origin(hint) is typing.Unpack:
            (block,) = typing.get_args(hint)
            # With its extras, for NotRequired: the class's own list of keys misses it under postponed annotations.
            for name, inner in typing.get_type_hints(block, include_extras=True).items():
                optional = typing.get_origin(inner) is typing.NotRequired
                found[name] = inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=None if optional else inspect.Parameter.empty,
                    annotation=typing.get_args(inner)[0] if optional else inner,
                )
        else:
            found[key] = parameter.replace(annotation=hint)
    return found


@lru_cache(maxsize=1024)
def _reader(cls: type, init: Callable[..., None], key: str) -> TypeAdapter[Any]:
    """Of the values of one argument."""
    return TypeAdapter(_parameters(cls, init)[key].annotation)


def _network_in(hint: Any) -> type[Network] | None:
    """The class of networks that an annotation allows, if it does."""
    if isinstance(hint, type):
        return hint if issubclass(hint, Network) else None
    found = (_network_in(part) for part in typing.get_args(hint))
    return next((one for one in found if one is not None), None)


def _placed(message: str, where: str, settings: Iterable[str]) -> str:
    """What a class says of its settings as `network.KEY`, for one whose block is elsewhere: `network.over.KEY`."""
    root = where.partition(".")[0]
    keys = "|".join(map(re.escape, settings))
    return re.sub(rf"\b{root}(?=\.(?:{keys})\b)|^{root}(?=: )", where, message)


def class_named(table: Mapping[str, type], spec: Mapping[str, Any], where: str) -> type:
    """The class that `spec` names: in the table, or a user's own as "module:Class".

    RunError for one that a run folder names which nobody trusts, see ground/trust.py.
    """
    name = spec.get("name")
    if name is None:
        raise RecipeError(f"{where} has no name; known: {', '.join(sorted(table))}")
    if isinstance(name, str) and name in table:
        return table[name]
    if not isinstance(name, str) or ":" not in name:
        raise RecipeError(f"{where}.name: unknown {name!r}{nearest(name, table)}")
    if not all(issubclass(known, nn.Module) for known in table.values()):
        raise RecipeError(f"{where}.name: {name!r} is none of them; known: {', '.join(sorted(table))}")
    module, _, attribute = name.partition(":")  # a user's own class: "my_package.my_file:Mine"
    permit(name, f"{where}.name")
    # Every Exception: of a module that is not ours, and of a name that can be none.
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:
        raise RecipeError(f"{where}.name: cannot import {name!r}: {one_line(error)}") from error
    # Nothing else may be called with what a recipe says: "os:system" is a name, too.
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise RecipeError(f"{where}.name: {name!r} is no torch module; name a class of your own that is one")
    return found


def _arguments(
    table: Mapping[str, type], cls: type, spec: Mapping[str, Any], where: str, given: tuple[str, ...]
) -> dict[str, Any]:
    """The settings of a spec in their types; those that are networks stay specs."""
    parameters, nested = parameters_of(cls), networks_asked(cls)
    label = f"{where} {spec['name']}"
    for key in given:
        if parameters.pop(key, None) is None:
            raise RecipeError(f"{label} takes no {key}, which each such class must; see docs/ADDING.md")
    for key in spec:
        if key != "name" and key not in parameters:
            raise RecipeError(f"{label} has no setting {key!r}{nearest(key, parameters)}")
    missing = [key for key, value in parameters.items() if value.default is value.empty and key not in spec]
    if missing:
        raise RecipeError(
            f"{label} needs {', '.join(missing)}; add {'it' if len(missing) == 1 else 'them'} to the recipe"
        )
    settings = {}
    for key, value in spec.items():
        if key == "name":
            continue
        hint = parameters[key].annotation
        if key in nested:
            settings[key] = _nested(table, hint, value, f"{where}.{key}", given)
            continue
        try:
            settings[key] = _reader(cls, cls.__init__, key).validate_python(value)  # type: ignore[misc]
        except ValidationError as error:
            raise RecipeError(f"{where}.{key}: {explain(error, hint)}") from error
    return settings


def _nested(table: Mapping[str, type], hint: Any, spec: Any, where: str, given: tuple[str, ...]) -> Any:
    """The spec of a network inside another, checked; None where the annotation allows none."""
    if spec is None and type(None) in typing.get_args(hint):
        return None
    wanted = _network_in(hint)
    assert wanted is not None
    if not isinstance(spec, Mapping):
        raise RecipeError(f"{where}: is a network of its own; write a block, {{name: ..., ...}} (got {spec!r:.80})")
    found = check(table, spec, where, given)
    if not issubclass(class_named(table, spec, where), wanted):
        raise RecipeError(f"{where}.name: {spec['name']!r} is no {wanted.__name__}; name another network")
    return found
