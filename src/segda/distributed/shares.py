"""The scenes of one step in shares: of several processes (torchrun) and of several micro-batches one after the other
(`accumulate`).

The shares of a step, side by side, are the batch that one process would have had. Most of a method does not notice: the
gradient of a mean over the batch is the mean of the shares' gradients. What does depend on all scenes asks the share
(`Batch.share`): a mean that is no loss, a number of labelled pixels. What is drawn has an address (`Share.rng`), which
is the same however many shares there are.

Micro-batches take turns: each runs in a thread until it asks for what the others know, then the next one runs. So at
most one holds the graph of a forward pass, unless it asks between a forward pass and its backward pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from segda.distributed import group

Result = TypeVar("Result")

STEP = 2
"""Sets a step's random numbers apart from those of the stream (data/stream/stream.py), which has 0, 1 and 3."""


class Abandoned(BaseException):
    """Ends a micro-batch whose step has failed in another one."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a batch is of its step. By default all of it.

    seed, step: of the run, and from 0. first_scene: the number in the whole step of the batch's first scene. count: how
    many shares the step's scenes are in. turn: the micro-batch that it is, where its process has several.
    """

    seed: int = 0
    step: int = 0
    first_scene: int = 0
    count: int = 1
    turn: Turn | None = None

    @property
    def first(self) -> bool:
        """Whether it is its process's first: it does what is done once a step, before the others see it."""
        return self.turn is None or self.turn.number == 0

    def taking(self, turn: Turn) -> Share:
        """The same share as a micro-batch among others."""
        return replace(self, turn=turn)

    def rng(self, purpose: str, scene: int | None = None) -> np.random.Generator:
        """Random numbers for a purpose: of the whole step, or of a scene of this share (from 0).

        A function of seed, step, purpose and the scene's number in the step: the same numbers whenever it is asked.
        """
        which = 0 if scene is None else 1 + self.first_scene + scene
        return np.random.default_rng((self.seed, STEP, self.step, crc32(purpose.encode()), which))

    def concatenated(self, value: Tensor) -> Tensor:
        """(n, ...) of this share -> (count * n, ...) of all of them in their order, the same in each; no gradient."""
        if self.count == 1:
            return value
        value = value.detach()
        if self.turn is None:
            return group.gathered(value)
        return self.turn.meet(value, lambda values: group.gathered(torch.cat(values)))

    def mean(self, value: Tensor) -> Tensor:
        """A number's or a tensor's mean over the shares in float32, the same in each; no gradient."""
        return value if self.count == 1 else self.concatenated(value[None].float()).mean(0)


ALONE = Share()
"""All of a step that has no number: outside a training."""


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """A micro-batch's number, from 0, and those that it takes turns with."""

    number: int
    turns: Turns

    def meet(self, value: Tensor, combine: Callable[[list[Tensor]], Tensor]) -> Tensor:
        """What `combine` makes of the values of all micro-batches, made once."""
        return self.turns.meet(self.number, value, combine)


class Turns(Generic[Result]):
    """Micro-batches that take turns, in threads: one runs at any time, and what they compute depends on no clock.

    seed: puts torch's random state where each begins; from there each has it to itself. enter: is told the number of
    the one that begins or goes on.
    """

    def __init__(self, count: int, seed: Callable[[], None], enter: Callable[[int], None] = lambda number: None):
        self.count, self.seed, self.enter = count, seed, enter
        self.results: dict[int, Result] = {}
        self._fault: BaseException | None = None
        self._asked: dict[int, Tensor] = {}
        self._combine: Callable[[list[Tensor]], Tensor] | None = None
        self._answer: Tensor | None = None
        self._go = [threading.Semaphore(0) for _ in range(count)]
        self._back = threading.Semaphore(0)
        self._device = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    def run(self, work: Callable[[Turn], Result]) -> list[Result]:
        """What `work` makes of each turn. The first error of one of them ends all and is raised."""
        turns = [Turn(number, self) for number in range(self.count)]
        threads = [threading.Thread(target=self._one, args=(work, turn), daemon=True) for turn in turns]
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
        return [self.results[number] for number in range(self.count)]

    def _round(self) -> None:
        """Each micro-batch runs until it asks or ends; what they asked is answered."""
        self._asked.clear()
        for go in self._go:
            go.release()
            self._back.acquire()
            if self._fault is not None:
                raise self._fault
        if self._asked:
            assert len(self._asked) == self.count, "some micro-batches of a step asked the others, and some had ended"
            assert self._combine is not None
            self._answer = self._combine([self._asked[number] for number in range(self.count)])

    def _one(self, work: Callable[[Turn], Result], turn: Turn) -> None:
        self._go[turn.number].acquire()
        if self._fault is None:
            try:
                if self._device is not None:
                    torch.cuda.set_device(self._device)
                self.enter(turn.number)
                self.seed()
                self.results[turn.number] = work(turn)
            except Abandoned:
                return
            except BaseException as fault:
                self._fault = fault
        self._back.release()

    def meet(self, number: int, value: Tensor, combine: Callable[[list[Tensor]], Tensor]) -> Tensor:
        """Called by a micro-batch: what `combine` makes of the values of all, made once."""
        random = _random_state()
        self._asked[number], self._combine = value, combine
        self._back.release()
        self._go[number].acquire()
        if self._fault is not None:
            raise Abandoned
        self.enter(number)
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
