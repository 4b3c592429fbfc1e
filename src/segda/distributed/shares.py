"""The scenes of one step in shares: of several processes (torchrun) and of several passes one after the other
(`accumulate`).

A share has the scenes that its place gives it; the shares of a step, side by side, are the batch that one process would
have had. Most of a method does not notice: the gradient of a mean over the batch is the mean of the shares' gradients.
What does depend on all scenes asks here: a mean that is no loss, a number of labelled pixels, random numbers that are
drawn scene by scene. Outside `sharing` there is one share, and all of it is nothing but the value itself.

Passes take turns: each runs in a thread until it asks for what the others know, then the next one runs. So at most one
holds the graph of a forward pass, unless it asks between a forward pass and its backward pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from segda.distributed import group

Result = TypeVar("Result")


class Abandoned(BaseException):
    """Ends a pass whose step has failed in another one."""


@dataclass
class _Seat:
    """The number of a pass, and those that it takes turns with."""

    number: int
    turns: Turns | None

    @property
    def passes(self) -> int:
        return 1 if self.turns is None else self.turns.count


_seat: _Seat | None = None
"""Of the share that is being computed. No thread's own: a backward pass may run in another thread."""


@contextmanager
def sharing() -> Iterator[None]:
    """Inside, this process's share of a step is computed, in one pass."""
    global _seat
    before, _seat = _seat, _Seat(0, None)
    try:
        yield
    finally:
        _seat = before


def count() -> int:
    """How many shares the step's scenes are in."""
    return 1 if _seat is None else group.world() * _seat.passes


def place() -> int:
    """Which of them this one is, from 0: a process's passes lie side by side."""
    return 0 if _seat is None else group.rank() * _seat.passes + _seat.number


def first() -> bool:
    """Whether this process's first pass asks: it does what is done once a step, before the others see it."""
    return _seat is None or _seat.number == 0


def concatenated(value: Tensor) -> Tensor:
    """(n, ...) of this share -> (shares * n, ...) of all of them in their order, the same in each; no gradient."""
    if _seat is None or count() == 1:
        return value
    value = value.detach()
    if _seat.turns is None:
        return group.gathered(value)
    return _seat.turns.meet(value, lambda passes: group.gathered(torch.cat(passes)))


def mean(value: Tensor) -> Tensor:
    """A number's or a tensor's mean over the shares in float32, the same in each; no gradient."""
    return value if count() == 1 else concatenated(value[None].float()).mean(0)


def own(batch: Tensor) -> Tensor:
    """What is this share's of a tensor with a row for each scene of the whole step."""
    rows = len(batch) // count()
    return batch[place() * rows : (place() + 1) * rows]


class Turns(Generic[Result]):
    """Passes that take turns, in threads: one of them runs at any time, and what they compute depends on no clock.

    Each has torch's random state to itself, as `seed` leaves it at its begin.
    """

    def __init__(self, count: int, seed: Callable[[], None]):
        self.count, self.seed = count, seed
        self.results: dict[int, Result] = {}
        self._fault: BaseException | None = None
        self._asked: dict[int, Tensor] = {}
        self._combine: Callable[[list[Tensor]], Tensor] | None = None
        self._answer: Tensor | None = None
        self._go = [threading.Semaphore(0) for _ in range(count)]
        self._back = threading.Semaphore(0)
        self._device = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    def run(self, work: Callable[[int], Result]) -> list[Result]:
        """work(0), ..., work(count - 1). The first error of one of them ends all and is raised."""
        global _seat
        before = _seat
        threads = [threading.Thread(target=self._one, args=(work, i), daemon=True) for i in range(self.count)]
        try:
            for thread in threads:
                thread.start()
            while len(self.results) < self.count:
                self._round()
        finally:
            if len(self.results) < self.count:
                self._abandon()
            for thread in threads:
                if thread.ident is not None:  # it was started
                    thread.join()
            _seat = before
        return [self.results[i] for i in range(self.count)]

    def _round(self) -> None:
        """Each pass runs until it asks or ends; what they asked is answered."""
        self._asked.clear()
        for i in range(self.count):
            self._go[i].release()
            self._back.acquire()
            if self._fault is not None:
                raise self._fault
        if self._asked:
            assert len(self._asked) == self.count, "some passes of a step asked the others, and some had ended"
            assert self._combine is not None
            self._answer = self._combine([self._asked[i] for i in range(self.count)])

    def _one(self, work: Callable[[int], Result], i: int) -> None:
        global _seat
        self._go[i].acquire()
        if self._fault is None:
            try:
                if self._device is not None:
                    torch.cuda.set_device(self._device)
                _seat = _Seat(i, self)
                self.seed()
                self.results[i] = work(i)
            except Abandoned:
                return
            except BaseException as fault:
                self._fault = fault
        self._back.release()

    def meet(self, value: Tensor, combine: Callable[[list[Tensor]], Tensor]) -> Tensor:
        """Called by a pass: what `combine` makes of the values of all passes, made once."""
        global _seat
        seat, random = _seat, _random_state()
        self._asked[seat.number], self._combine = value, combine
        self._back.release()
        self._go[seat.number].acquire()
        if self._fault is not None:
            raise Abandoned
        _seat = seat
        _restore(random)
        assert self._answer is not None
        return self._answer

    def _abandon(self) -> None:
        self._fault = self._fault or Abandoned()
        for go in self._go:
            go.release()


def _random_state() -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else states


def _restore(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])
