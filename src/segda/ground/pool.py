"""The same thing done to many files at once, by several processes: a thread waits for the others' Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from segda.distributed import group
from segda.errors import RecipeError, RunFailure, SegdaError

Result = TypeVar("Result")

FEW = 8
"""So many items are done here: starting processes would take longer."""


def cores() -> int:
    """The processor cores that this process may use: its part of them, where several share the machine."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // group.neighbours())


class Pool(Generic[Result]):
    """Iterating gives work(0), work(1), ..., work(count - 1) in this order; several processes are at work meanwhile.

    workers: how many; 0 is this process alone, None as many as there are cores, but none for FEW items. What `work` is
    and gives must be picklable. The first error, at its place in the order, ends all, and so does Ctrl-C: what has not
    begun is not begun, and no process is left behind.
    """

    def __init__(self, work: Callable[[int], Result], count: int, workers: int | None = None):
        if workers is not None and workers < 0:
            raise RecipeError(f"--workers {workers}: give the number of processes, or 0 to do it all in this one")
        if workers is None:
            workers = 0 if count <= FEW or cores() == 1 else cores()
        self.work, self.count, self.workers = work, count, min(workers, count)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Result]:
        if self.workers == 0:
            yield from map(self.work, range(self.count))
            return
        # DataLoader has what a pool of processes needs to end well when it is interrupted or the caller is killed.
        loader = DataLoader(
            _Items(self.work, self.count),
            batch_size=None,
            num_workers=self.workers,
            collate_fn=_as_is,
            worker_init_fn=_start,
            generator=torch.Generator(),  # its own: without one, a number of the global one would be used up
        )
        results = iter(loader)
        try:
            while True:
                fault = None
                try:
                    result = next(results)
                except StopIteration:
                    return
                except BaseException as error:
                    fault = error.with_traceback(None)  # its frames would keep the loader, and so its processes, alive
                if isinstance(fault, RuntimeError) and "DataLoader worker" in str(fault):
                    raise RunFailure(
                        "a process was killed, perhaps for want of memory; what is written stays: repeat the command, "
                        "with fewer --workers"
                    )
                if fault is not None:
                    raise fault
                if isinstance(result, SegdaError):
                    raise result
                yield result
        finally:
            del results  # its processes end with it


class _Items(Dataset[Result | SegdaError], Generic[Result]):
    """Errors come back as values: a loader would wrap them in its processes' tracebacks."""

    def __init__(self, work: Callable[[int], Result], count: int):
        self.work, self.count = work, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Result | SegdaError:
        try:
            return self.work(i)
        except SegdaError as error:
            return error


def _as_is(result: Result) -> Result:
    return result


def _start(_: int) -> None:
    cv2.setNumThreads(0)  # a core has its process; a pool of threads does not survive a fork
