"""Several processes of one command, on one machine or on several, started by torchrun:

    torchrun --nproc-per-node N -m segda ...

With one, nothing to do. Files and counters are shared by gloo, tensors of an accelerator by NCCL.
"""

from __future__ import annotations

import gc
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from segda.errors import RecipeError, RunFailure, SegdaError

Result = TypeVar("Result")
Numbers = TypeVar("Numbers", range, np.ndarray)


class Unanswered(RunFailure):
    """The other processes do not answer."""


PATIENCE = timedelta(days=7)
"""How long one waits for the others where their work may differ: as long as that takes. torchrun ends all when one has
failed."""


def world() -> int:
    """The number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this one is, from 0; the first alone reports."""
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0


def neighbours() -> int:
    """How many of them share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if world() > 1 else 1


def launched() -> bool:
    """Whether torchrun has started this process, which it may do again: after one of them had failed, or when a machine
    came or went. Its own count of that differs between machines.
    """
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def remember(key: str, value: str) -> None:
    """The first process tells those that torchrun starts in place of these."""
    if launched() and rank() == 0:
        with _in_touch():
            _notes().set(key, f"{_own}{value}")


def remembered(key: str) -> str:
    """What the processes before these told, for all that have joined; empty where nobody told anything."""
    told = ""
    if launched() and rank() == 0:
        with _in_touch():
            notes = _notes()
            told = notes.get(key).decode() if notes.check([key]) else ""
    return all_gather_object("" if told.startswith(_own) else told[len(_own) :])[0]


_own = uuid4().hex
"""What no other process puts before what it remembers."""


def _store(patience: timedelta = timedelta(minutes=5)) -> dist.Store:
    """torchrun's, which outlives the processes. To wait in it until all are there is left out: no signal ends that."""
    return dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=patience)


def _notes() -> dist.Store:
    return dist.PrefixStore("segda notes", _store())


met = False
"""Whether this process has ever joined others."""


@contextmanager
def joined(device: torch.device | None = None, patience: timedelta = PATIENCE) -> Iterator[None]:
    """Joins the processes for the time of the block; inside another such block, they are.

    device: the accelerator whose tensors are shared, if any. patience: how long one waits for the others before it
    gives up (Unanswered).

    Without a last meeting, a process that is done first takes the others' connections with it.
    """
    if world() == 1 or dist.is_initialized():
        yield
        return
    global met
    accelerated = device is not None and device.type == "cuda"
    if accelerated:
        torch.cuda.set_device(device)
    with _in_touch():
        store = _store(patience) if launched() else next(dist.rendezvous("env://", timeout=patience))[0]
        store = dist.PrefixStore(_name_of_meeting(dist.PrefixStore("segda", store), patience), store)
        backends = "cpu:gloo,cuda:nccl" if accelerated else "gloo"
        dist.init_process_group(backends, store=store, rank=rank(), world_size=world(), timeout=patience)
    met = True
    try:
        yield
        gc.collect()  # what is left of a group's users ends before the group does: without it torch may abort
        barrier()
    finally:
        dist.destroy_process_group()


def _name_of_meeting(store: dist.Store, patience: timedelta) -> str:
    """The same in each process, and no other time's: what the last group left in the store, which torchrun keeps when
    it starts all again, would be taken for this one's addresses.

    Each says a word that nobody has said before; the first answers with the name until all have heard it.
    """
    word, end = uuid4().hex, time.monotonic() + patience.total_seconds()

    def due(key: str, of: int) -> bool:
        """Not by the store's own waiting, which no signal ends."""
        if store.check([key]):
            return False
        if time.monotonic() > end:
            raise dist.DistStoreError(f"process {of} has not come in {patience.total_seconds():.0f} s")
        time.sleep(0.02)
        return True

    store.set(f"word of {rank()}", word)
    if rank() != 0:
        while due(f"answer to {word}", of=0):
            pass
        name = store.get(f"answer to {word}").decode()
        store.set(f"{name} heard by {rank()}", "")
        return name
    name = f"segda {word}"
    for other in range(1, world()):
        while due(f"{name} heard by {other}", of=other):
            if store.check([f"word of {other}"]):  # it may be that of one who has gone, and hears nothing
                store.set(f"answer to {store.get(f'word of {other}').decode()}", name)
    return name


def own_device(device: torch.device) -> torch.device:
    """The accelerator of this process: they take turns. RecipeError where several are to share one by its number."""
    if device.type != "cuda" or world() == 1:
        return device
    if device.index is not None:
        raise RecipeError(f"--device {device}: is one device, and these are {world()} processes; use cuda for all")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def own_share(numbers: Numbers) -> Numbers:
    """Every N-th of the numbers, a range or an array, so that each process has some of every part."""
    return numbers[rank() :: world()]


@contextmanager
def _in_touch() -> Iterator[None]:
    """Unanswered where the others are not there: one has gone, or the network between them, or the time is up."""
    try:
        yield
    except RuntimeError as error:  # gloo's own errors are no others
        reason = re.sub(r"^\[[^]]*\] ", "", " ".join(str(error).split()))  # without the place in gloo's source
        raise Unanswered(
            f"process {rank()} of {world()}: the others do not answer ({reason[:160]}); look for what the first that "
            "failed said, and start all again: a training goes on with --resume"
        ) from error


@contextmanager
def others_are_asked() -> Iterator[None]:
    """The same for a block in which torch asks the others by itself, and in which other things may go wrong."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        with _in_touch():
            raise


def barrier() -> None:
    """Waits until all processes are here."""
    if world() > 1:
        with _in_touch():
            dist.barrier()


def all_reduce_sum(counts: np.ndarray) -> np.ndarray:
    """The sum over the processes of an array of integers, in each of them."""
    if world() == 1:
        return counts
    summed = torch.from_numpy(np.ascontiguousarray(counts))
    with _in_touch():
        dist.all_reduce(summed)
    return summed.numpy()


def summed(value: Tensor) -> Tensor:
    """The sum over the processes of a tensor, in each of them."""
    found = value.detach().clone(memory_format=torch.contiguous_format)
    with _in_touch():
        dist.all_reduce(found)
    return found


def gathered(value: Tensor) -> Tensor:
    """(n, ...) of each process -> (world * n, ...) of all in the order of their ranks, in each of them."""
    if world() == 1:
        return value
    parts = [torch.empty_like(value) for _ in range(world())]
    with _in_touch():
        dist.all_gather(parts, value.contiguous())
    return torch.cat(parts)


def all_gather_object(value: Any) -> list[Any]:
    """The value of each process, in the order of their ranks, in each of them; what JSON can hold, and no pickle."""
    if world() == 1:
        return [value]
    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    lengths = gathered(torch.tensor([len(text)])).tolist()
    padded = torch.cat([text, text.new_zeros(max(lengths) - len(text))])
    rows = gathered(padded[None])
    return [json.loads(bytes(row[:length].tolist())) for row, length in zip(rows, lengths, strict=True)]


BUCKET = 2**23
"""So many numbers are sent at once: few messages, and no second copy of all of them."""


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor by its mean over the processes; all have tensors of the same shapes in the same order."""
    if world() == 1:
        return
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.flatten() for tensor in bucket])
        with _in_touch():
            dist.all_reduce(flat)
        flat /= world()
        parts = flat.split([tensor.numel() for tensor in bucket])
        for tensor, part in zip(bucket, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one kind side by side, BUCKET numbers or one tensor at once."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = bucket and sum(one.numel() for one in bucket) + tensor.numel() > BUCKET
        if full or (bucket and (tensor.dtype, tensor.device) != (bucket[0].dtype, bucket[0].device)):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _numbers(number: int) -> np.ndarray:
    """(world,): each process's number, in each of them."""
    return all_reduce_sum(np.array([number * (other == rank()) for other in range(world())], np.int64))


def all_reduce_max(number: int) -> int:
    """The largest of the processes' numbers, in each of them."""
    return int(_numbers(number).max())


def all_succeed(action: Callable[[], Result]) -> Result:
    """Does something in each process, and goes on only where it went well in all.

    Returns what it gave here. A SegdaError is raised in the first process that met it; the others exit with its code
    and say nothing.
    """
    (result,) = _all_succeed(action, here=True)
    return result


def _all_succeed(action: Callable[[], Result], *, here: bool) -> list[Result]:
    """What it gave, if it was to be done here."""
    fault: SegdaError | None = None
    results: list[Result] = []
    if here:
        try:
            results.append(action())
        except SegdaError as error:
            fault = error
    code = 0 if fault is None else fault.exit_code
    codes = _numbers(code)
    if not codes.any():
        return results
    first = int(np.flatnonzero(codes)[0])
    if fault is not None and rank() == first:
        raise fault
    raise SystemExit(int(codes[first]))


def on_rank_zero(action: Callable[..., Any], *arguments: Any) -> None:
    """The first process does it, and all go on where it went well."""
    _all_succeed(partial(action, *arguments), here=rank() == 0)


def from_rank_zero(action: Callable[[], Any]) -> Any:
    """What the first process finds, in each of them: of a file that may not look the same, or be there, everywhere."""
    found = _all_succeed(action, here=rank() == 0)
    return all_gather_object(found[0] if found else None)[0]
