"""Several processes on one machine, started by `torchrun --nproc-per-node N -m segda ...`; with one, nothing to do.

What is shared are files and counters, never tensors of a network: gloo, on the processor, is enough.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from segda.errors import SegdaError

PATIENCE = timedelta(days=7)
"""How long one waits for the others: as long as their work takes. torchrun ends all when one has failed."""


def world() -> int:
    """The number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this one is, from 0; the first alone reports."""
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0


@contextmanager
def joined() -> Iterator[None]:
    """Joins the processes for the time of the block.

    Without a last meeting, a process that is done first takes the others' connections with it.
    """
    if world() == 1:
        yield
        return
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield
        dist.barrier()
    finally:
        dist.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """The accelerator of this process: they take turns."""
    if device.type != "cuda" or world() == 1:
        return device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def own_share(numbers: range) -> range:
    """Every N-th of the numbers, so that each process has some of every part."""
    return numbers[rank() :: world()]


def meet() -> None:
    """Waits until all processes are here."""
    if world() > 1:
        dist.barrier()


def total(counts: np.ndarray) -> np.ndarray:
    """The sum over the processes of an array of integers, in each of them."""
    if world() == 1:
        return counts
    summed = torch.from_numpy(np.ascontiguousarray(counts))
    dist.all_reduce(summed)
    return summed.numpy()


def agree(action: Callable[[], None], *, everywhere: bool = True) -> None:
    """Does something in each process, or in the first alone, and goes on only where it went well in all.

    A SegdaError is raised in the first process that met it; the others exit with its code and say nothing.
    """
    fault: SegdaError | None = None
    if everywhere or rank() == 0:
        try:
            action()
        except SegdaError as error:
            fault = error
    code = 0 if fault is None else fault.exit_code
    codes = total(np.array([code * (other == rank()) for other in range(world())], np.int64))
    if not codes.any():
        return
    first = int(np.flatnonzero(codes)[0])
    if fault is not None and rank() == first:
        raise fault
    raise SystemExit(int(codes[first]))
