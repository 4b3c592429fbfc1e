"""How far a long thing is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from segda.distributed import group


class Track(Protocol):
    """Goes through a sequence and shows how far it is, under a title.

    lines: also where there is no terminal, as plain lines; False for work that says how far it is by itself.
    """

    def __call__(self, items: Sequence[Any], title: str, *, lines: bool = True) -> Iterable[Any]: ...


QUIET_SECONDS = 2.0
"""Nothing is shown of what takes less."""

LINE_SECONDS = 20.0
"""Time between two plain lines."""


def quietly(items: Sequence[Any], title: str, *, lines: bool = True) -> Iterable[Any]:
    """Shows nothing."""
    return items


def shown_by_the_first(track: Track) -> Track:
    """Of several processes the first alone shows how far it is: in the others, nothing."""
    return track if group.rank() == 0 else quietly


def said_by_the_first(say: Callable[[str], None]) -> Callable[[str], None]:
    """Of several processes the first alone speaks."""
    return say if group.rank() == 0 else _silent


def _silent(_: str) -> None:
    """Takes what is said, and says nothing."""


def shown(items: Sequence[Any], title: str, *, lines: bool = True) -> Iterable[Any]:
    """Shows on standard error, if it takes longer than two seconds."""
    console = Console(stderr=True)
    if console.is_terminal:
        return _bar(items, title, console)
    return _lines(items, title) if lines else items


def _bar(items: Sequence[Any], title: str, console: Console) -> Iterator[Any]:
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


def _lines(items: Sequence[Any], title: str) -> Iterator[Any]:
    begin = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > (QUIET_SECONDS if last == begin else LINE_SECONDS) and done < len(items):
            left = (now - begin) / done * (len(items) - done)
            print(f"{title}: {done} of {len(items)}, {left:.0f} s to go", file=sys.stderr, flush=True)
            last = now
