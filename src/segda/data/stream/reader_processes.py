"""Processes that make the batches of a training ahead of it, of which any may die at any time.

Each has a pipe of its own and makes every W-th batch, two ahead of what is asked for. Before it reads an image it notes
which, in memory that outlives it. So when it dies (a decoder's fault, want of memory, a SIGKILL) it is known what it
read, and since a draw is a function of its number alone, another process that makes its batches again makes the same.
torch's DataLoader can do neither: its processes share a pipe, and it raises the death of one wherever the training
happens to be.
"""

from __future__ import annotations

import logging
import os
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from ctypes import Array, c_int64
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.util import get_temp_dir
from typing import Any, Protocol

import cv2
import torch
from torch import multiprocessing

from segda.errors import RunFailure
from segda.scene import DOMAINS

log = logging.getLogger(__name__)

AHEAD = 2
"""Batches that each process is asked for before they are needed."""

WATCH_SECONDS = 2.0
"""How often a process without work looks whether the training is still there."""

LAST_SECONDS = 5.0
"""How long a process may take to end when it is told to."""

ASKED_TO_END = (-signal.SIGTERM, -signal.SIGINT)
"""Ends of a process that say nothing of what it read: whoever ends a job may send these to each process of it."""

ImageNumber = tuple[int, int]
"""Domain, and number of an image in it."""


@dataclass(frozen=True)
class Reading:
    """What a process reads: the draw that it makes, the domain, the number of the image in it."""

    draw: int
    domain: int
    image: int


Note = Callable[[Reading | None], None]


class Maker(Protocol):
    """Makes the batch that begins at a draw; what it is and gives must be picklable."""

    @property
    def skip(self) -> bool:
        """Whether an image that kills processes may be left out."""
        ...

    def __call__(self, first: int, refused: frozenset[ImageNumber], note: Note) -> Any:
        """refused: images that are taken for damaged. note: is told before each image is read, and when all are."""
        ...

    def file(self, domain: int, image: int) -> str:
        """Where an image is."""
        ...


@dataclass(frozen=True)
class _Broken:
    """A fault of ours in another process."""

    trace: str


class _Reader:
    """A process that makes batches, what it owes, and where it notes what it reads.

    todo: the first draws of the batches that it is to make and has not given yet; it was asked for the first `asked` of
    them. With what is left of those of a process that died it is asked for one after the other: a batch goes when the
    process dies that made it, and those before the one that it died at are to come before the error.
    """

    def __init__(self, make: Maker):
        context = multiprocessing.get_context()
        self._new = partial(context.Process, daemon=True, target=_serve)
        self._pipe, self._make = context.Pipe, make
        self._noted = context.RawArray(c_int64, 3)
        self.todo: deque[int] = deque()
        self.asked = self._one_by_one = 0
        self.start()

    def ask(self, refused: frozenset[ImageNumber]) -> None:
        while self.asked < min(len(self.todo), 1 if self._one_by_one else AHEAD):
            try:
                self.pipe.send((self.todo[self.asked], refused))
            except OSError:
                return  # it is dead; who waits for what it was to make will see
            self.asked += 1

    def gave(self) -> None:
        """The first of what it owes is here."""
        self.todo.popleft()
        self.asked -= 1
        self._one_by_one = max(0, self._one_by_one - 1)

    def start(self) -> None:
        """RunFailure where the machine has no room for another process."""
        self._noted[:] = list(NOTHING)
        self.asked, self._one_by_one = 0, len(self.todo)
        try:
            self.pipe, theirs = self._pipe()
            self.process = self._new(args=(self._make, theirs, self._noted))
            self.process.start()
        except OSError as error:
            raise RunFailure(
                f"a process that reads images cannot be started ({error.strerror}); use fewer data.workers, or close "
                "other programs"
            ) from error
        theirs.close()  # or its end would not be heard of

    def reading(self) -> Reading | None:
        """What it reads, or read when it died; None between two images."""
        return None if self._noted[1] == NOTHING[1] else Reading(*self._noted)

    def died(self) -> int | None:
        """How it ended, as `Process.exitcode`; None: it did not."""
        self.process.join(LAST_SECONDS)
        return self.process.exitcode

    def tell_to_end(self) -> None:
        try:
            self.pipe.send(None)
        except OSError:
            return  # it has ended

    def end(self) -> None:
        if self.died() is None:
            self.process.kill()
            self.process.join(LAST_SECONDS)
        self.pipe.close()


NOTHING = (-1, -1, -1)


def _serve(make: Maker, tasks: Connection, noted: Array[c_int64]) -> None:
    """The life of a process that makes batches: until it is told to end, or the training is no more."""
    # A terminal's Ctrl-C is for the training alone, which asks for its last batch before it stops. So are the others,
    # which Slurm sends to all processes of a job.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setpgid(0, 0)
    cv2.setNumThreads(0)  # one process, one thread; their pools of threads do not survive a fork
    torch.set_num_threads(1)
    born_of, training = os.getppid(), multiprocessing.parent_process()
    assert training is not None

    def note(reading: Reading | None) -> None:
        noted[1] = NOTHING[1]  # first and last, so that half a note is none
        if reading is not None:
            noted[0], noted[2] = reading.draw, reading.image
            noted[1] = reading.domain

    try:
        while True:
            while not tasks.poll(WATCH_SECONDS):
                # Forked, others may hold what tells of the training; started by a server, its parent is that one.
                if os.getppid() != born_of or not training.is_alive():
                    return
            task = tasks.recv()
            if task is None:
                return
            first, refused = task
            try:
                made = make(first, refused, note)
            except Exception:
                made = _Broken(traceback.format_exc())
            tasks.send(made)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the training was killed


def read_ahead(make: Maker, firsts: Sequence[int], workers: int) -> Generator[Any, None, None]:
    """The batches that begin at these draws, in this order, made by several processes in turns."""
    get_temp_dir()  # made here, so that it goes when this process ends, however the others do
    owed, refused = 0, frozenset[ImageNumber]()
    deaths: Counter[Reading | int] = Counter()
    readers: list[_Reader] = []
    try:
        for k in range(len(firsts)):
            while owed < min(len(firsts), k + AHEAD * workers):
                if len(readers) < workers:
                    readers.append(_Reader(make))
                readers[owed % workers].todo.append(firsts[owed])
                owed += 1
            for reader in readers:
                reader.ask(refused)
            reader, made = readers[k % workers], None
            while made is None:
                try:
                    made = reader.pipe.recv()
                except (EOFError, OSError):  # also of what it had sent, and nobody can fetch from the dead
                    ended = reader.died()
                    if ended is None:
                        raise
                    refused |= _blamed(make, reader.reading(), reader.todo[0], ended, deaths, refused)
                    reader.pipe.close()
                    reader.start()
                    reader.ask(refused)
            if isinstance(made, _Broken):
                raise RuntimeError(f"in a process that reads images:\n{made.trace}")
            reader.gave()
            yield made
    finally:
        for reader in readers:
            reader.tell_to_end()
        for reader in readers:
            reader.end()


def _tell(line: str) -> None:
    """Each rank reports the deaths of its own readers."""
    log.info(line, extra={"every_rank": True})


def _blamed(
    make: Maker,
    reading: Reading | None,
    first: int,
    ended: int,
    deaths: Counter[Reading | int],
    refused: frozenset[ImageNumber],
) -> frozenset[ImageNumber]:
    """The image that is refused from now on, for the death of a process; none at the first death at a draw.

    first: the draw that the first batch that it owes begins at. RunFailure at the second death where nothing may be
    left out.
    """
    known = reading is not None and (reading.domain, reading.image) in refused
    if ended in ASKED_TO_END or known:
        return frozenset()
    at = first if reading is None else reading
    deaths[at] += 1
    names = {-one.value: one.name for one in signal.Signals}
    how = names.get(ended, f"exit code {ended}")
    if reading is None:
        if deaths[at] > 1:
            raise RunFailure(
                f"a process that reads images died twice ({how}) while it read none; give the job more memory, or "
                "more shared memory (/dev/shm), or use fewer data.workers"
            )
        _tell(f"a process that reads images died ({how}) while it read none; its batches are made again")
        return frozenset()
    path = make.file(reading.domain, reading.image)
    what = f"died ({how}) while it read {path} for draw {reading.draw} of the {DOMAINS[reading.domain]}"
    if deaths[at] == 1:
        _tell(f"a process that reads images {what}; it is read once more")
        return frozenset()
    if make.skip:
        return frozenset({(reading.domain, reading.image)})
    raise RunFailure(
        f"{path}: two processes {what}; look at the file, give the job more memory, or leave such files out with "
        "data.on_bad_image=skip"
    )
