"""A command of the command line, made of a Python function and of how its result is shown.

The function's signature and doc string are the command's: a parameter that is annotated with one of Typer's options or
arguments is one on the command line, another is for Python alone. What shows the result may have options of its own,
annotated in the same way, and is told what was given for those of the function's that it names. So an option is
described once, and the command line and Python use the same names.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from typer.models import ArgumentInfo, OptionInfo

from segda.ground.paths import expanded

Present = Callable[..., int | None]
"""Takes a command's result, and its own options by name; returns the exit code, None for 0."""


def command_of(function: Callable[..., Any], present: Present, **usual: Any) -> Callable[..., int]:
    """A function for Typer: its parameters are those of both, its call calls both and returns the exit code.

    usual: what is given to the function where nothing else is, in place of its own default or where it has none.
    """
    own, shown = options_of(function, 0), options_of(present, 1)
    known = [name for name in inspect.signature(present).parameters if name in own]
    for name in usual:
        own[name] = own[name].replace(annotation=_optional(own[name].annotation), default=None)
    assert not own.keys() & shown.keys(), f"{function.__name__} and {present.__name__} have an option of one name"

    def command(**given: Any) -> int:
        given = {name: _expanded(value) for name, value in given.items()}
        result = function(**usual | _set(own, given))
        return present(result, **_set(shown, given), **{name: given[name] for name in known}) or 0

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    every = {**own, **shown}
    # Typer asks for the first, or for the second, by its version.
    command.__annotations__ = {name: one.annotation for name, one in every.items()}
    command.__signature__ = inspect.Signature(list(every.values()))  # type: ignore[attr-defined]  # Python looks there
    return command


def _set(parameters: dict[str, inspect.Parameter], given: dict[str, Any]) -> dict[str, Any]:
    """What was given of them. What was left out is left to the function's own default."""
    return {name: given[name] for name in parameters if given[name] is not None}


def _expanded(value: Any) -> Any:
    """Of paths, what a shell would make of them: it leaves `--root=~/data` as it is."""
    if isinstance(value, list):
        return [_expanded(one) for one in value]
    return expanded(value) if isinstance(value, Path) else value


def options_of(function: Callable[..., Any], after: int) -> dict[str, inspect.Parameter]:
    """Those of the parameters after so many that are on the command line, as Typer takes them."""
    parameters = dict(list(inspect.signature(function).parameters.items())[after:])
    # Without what it returns, whose type may be of a module that takes long to import.
    asked = types.SimpleNamespace(__annotations__={name: one.annotation for name, one in parameters.items()})
    hints = typing.get_type_hints(asked, inspect.unwrap(function).__globals__, include_extras=True)
    found = {}
    for name, parameter in parameters.items():
        hint = hints.get(name, Any)
        if typing.get_origin(hint) is not Annotated:
            continue
        base, *about = typing.get_args(hint)
        if not any(isinstance(one, ArgumentInfo | OptionInfo) for one in about):
            continue
        base, default = on_the_command_line(base), parameter.default
        if default is not inspect.Parameter.empty and not isinstance(default, bool):
            base, default = base | None, _told(default)
        annotation = Annotated[base, *about]  # type: ignore[valid-type]  # made here
        kind = inspect.Parameter.KEYWORD_ONLY
        found[name] = inspect.Parameter(name, kind, default=default, annotation=annotation)
    return found


def _optional(annotation: Any) -> Any:
    base, *about = typing.get_args(annotation)
    return Annotated[base | None, *about]


def _told(default: Any) -> Any:
    """A default as the help shows it: nothing of one that only the function can know."""
    return default if isinstance(default, str | int | float) else None


def on_the_command_line(hint: Any) -> Any:
    """What somebody can type for it: a list for a sequence, a path for a path or a text, one choice or several."""
    if hint is None or hint is type(None):
        return None
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        kinds = [on_the_command_line(one) for one in inner if one is not type(None)]
        chosen = next((kind for kind in kinds if typing.get_origin(kind) is list), None)
        return chosen or (Path if Path in kinds else kinds[0])
    if origin in (Sequence, list):
        kind = on_the_command_line(inner[0])
        # Of choices, Typer takes several only as an enumeration.
        one: Any = _enumeration(kind) if typing.get_origin(kind) is Literal else kind
        return list[one]
    return hint


def _enumeration(choices: Any) -> type[StrEnum]:
    make: Any = StrEnum
    return make("Choice", {str(one): one for one in typing.get_args(choices)})
