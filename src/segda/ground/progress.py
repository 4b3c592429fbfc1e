"""How far a long thing is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol, TypeVar

from segda.ground.speaking import are_marked, marked

if TYPE_CHECKING:
    from rich.console import Console

QUIET_SECONDS = 2.0
"""Nothing is shown of what takes less."""

LINE_SECONDS = 20.0
"""Time between two plain lines."""

Item = TypeVar("Item", covariant=True)

_shows: ContextVar[bool] = ContextVar("shows", default=False)


@contextmanager
def shown() -> Iterator[None]:
    """A block in which `track` shows how far it is. Threads that it starts show nothing."""
    token = _shows.set(True)
    try:
        yield
    finally:
        _shows.reset(token)


class Counted(Protocol[Item]):
    """Things that can be gone through and whose number is known before: a sequence, a pool's results."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Item]: ...


def track(items: Counted[Item], title: str, *, lines: bool = True) -> Iterable[Item]:
    """The items. Within `shown`, how far it is through them stands on standard error, if that takes longer than two
    seconds. Of several processes the first alone shows it.

    lines: also where there is no terminal, as plain lines; False for work that says how far it is by itself.
    """
    if not _shows.get():
        return items
    # Every command has this file: what only a bar needs is imported for one.
    from rich.console import Console

    from segda.distributed import group

    if group.rank() != 0:
        return items
    console = Console(stderr=True)
    if console.is_terminal and not are_marked():  # two bars in one terminal would draw over each other
        return _bar(items, title, console)
    return _lines(items, title) if lines else items


def _bar(items: Counted[Item], title: str, console: Console) -> Iterator[Item]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    begin = time.monotonic()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=len(items), visible=False)
        for item in items:
            yield item
            bar.update(task, advance=1, visible=time.monotonic() - begin > QUIET_SECONDS)


def _lines(items: Counted[Item], title: str) -> Iterator[Item]:
    begin = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > (QUIET_SECONDS if last == begin else LINE_SECONDS) and done < len(items):
            left = (now - begin) / done * (len(items) - done)
            print(marked(f"{title}: {done} of {len(items)}, {left:.0f} s to go"), file=sys.stderr, flush=True)
            last = now
