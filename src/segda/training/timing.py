"""What a run notes of itself beside the terms of its steps: how long they took and waited, what was left out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from itertools import chain
from pathlib import Path

from segda import run as runs
from segda.data.stream.loading import Skip
from segda.distributed import group

log = logging.getLogger(__name__)

WAITING = 0.05
"""The share of its time that a run may wait for images before it is said."""


class Pace:
    """How long steps take, and what share of it they wait for images: since it began, or was last asked."""

    def __init__(self, t: int):
        self._restart(t)

    def _restart(self, t: int) -> None:
        self._begin, self._since, self._waited = time.monotonic(), t, 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A block that waits for images."""
        begin = time.monotonic()
        yield
        self._waited += time.monotonic() - begin

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A block that is no part of any step."""
        begin = time.monotonic()
        yield
        self._begin += time.monotonic() - begin

    def take(self, t: int) -> tuple[float, float]:
        """Seconds a step, and the share 0..1 that it waited, until step t."""
        passed = time.monotonic() - self._begin
        found = passed / (t - self._since), self._waited / passed
        self._restart(t)
        return found


def waiting_said(share: float) -> str:
    """What a line on the screen says of it: nothing where it is little."""
    return f" ({share:.0%} of it waiting for images)" if share > WAITING else ""


@dataclass
class Skips:
    """The images that were left out: those that the log does not have yet, and the files that were said."""

    untold: list[Skip] = field(default_factory=list)
    said: set[str] = field(default_factory=set)

    def tell(self, run: Path, t: int) -> None:
        """A line of the log for each in the first t steps, of all processes; each file is said once.

        Told before a checkpoint, so that a run that goes on from it knows them.
        """
        ours = [skip for skip in self.untold if skip.step < t]
        del self.untold[: len(ours)]
        every = chain(*group.all_gather_object([astuple(skip) for skip in ours]))
        for skip in sorted((Skip(*values) for values in every), key=lambda one: one.draw):
            if skip.path not in self.said:
                log.info(f"left out: {skip.reason}")
            self.said.add(skip.path)
            line = {"step": skip.step + 1, "draw": skip.draw, "skipped": skip.path}
            group.on_rank_zero(runs.append_log, run, line)
