"""Whose code may run. To import a class of somebody's own, "module:Class", is to run the code of its module.

A recipe that somebody names (to `segda train`, to `load_recipe`, in a sweep) may have such classes: they are theirs.
A run folder, its checkpoint and its networks may come from anybody. What they name is refused unless `--trust` names
them, or this process has imported the class already, which runs nothing a second time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from segda.errors import RunError
from segda.ground.paths import expanded

_trusted: ContextVar[tuple[str, ...]] = ContextVar("trusted", default=())
_read_from: ContextVar[Path | None] = ContextVar("read_from", default=None)
_imported: set[str] = set()


@contextmanager
def trusting(places: Sequence[Path | str] | Path | str) -> Iterator[None]:
    """A block in which these run folders, and all below them, may name classes of their own; these models of a hub may
    be pickles.
    """
    every = [places] if isinstance(places, str | Path) else places
    token = _trusted.set((*_trusted.get(), *map(str, every)))
    try:
        yield
    finally:
        _trusted.reset(token)


def trusted() -> tuple[str, ...]:
    """Those of all such blocks that are open."""
    return _trusted.get()


def trusts(name: str) -> bool:
    """Whether a model of a hub is one of those."""
    return name in trusted()


@contextmanager
def read_from(place: Path) -> Iterator[None]:
    """A block that reads what `place`, a run folder or a file, says; not what somebody who is here says."""
    token = _read_from.set(place)
    try:
        yield
    finally:
        _read_from.reset(token)


def permit(name: str, where: str) -> None:
    """RunError for a class of its own that a place names which nobody trusts. To be asked before it is imported."""
    place = _read_from.get()
    if place is not None and name not in _imported and not _is_trusted(place):
        raise RunError(
            f"{where}: {name!r} is code of its own, which {place} would run; it was not run: add --trust {place} "
            "if you trust it"
        )
    _imported.add(name)


def permit_pickle(file: Path) -> None:
    """RunError for a file which nobody trusts, and whose reader runs what it holds. To be asked before it is read."""
    if not _is_trusted(file):
        raise RunError(
            f"{file}: to read a file of this kind is to run code that it may hold; it was not read: add --trust {file} "
            "if you trust it"
        )


def _is_trusted(place: Path) -> bool:
    where = place.resolve()
    return any(where.is_relative_to(expanded(one).resolve()) for one in trusted())


def python(*words: str) -> list[str]:
    """The command of a process of ours. The current folder is not on its path, where Python itself would put it."""
    return [sys.executable, "-P", *words]


def same_imports() -> dict[str, str]:
    """The environment in which such a process imports what this one can: a recipe may name classes of the user's."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
