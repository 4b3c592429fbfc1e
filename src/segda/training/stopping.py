"""Ctrl-C, SIGTERM and their like in a training: a step is not cut in two, but finished and saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from segda.distributed import group

ASKED: dict[int, tuple[str, int]] = {
    signal.SIGINT: ("Ctrl-C", 130),
    signal.SIGQUIT: ("Ctrl-\\", 131),
    signal.SIGTERM: ("SIGTERM", 0),
    signal.SIGHUP: ("SIGHUP", 0),  # the terminal was closed
    signal.SIGUSR1: ("SIGUSR1", 0),  # Slurm's warning, as in --signal=USR1@300
}
"""Signal -> what people call it, and the exit code after it."""

BY_HAND = (signal.SIGINT, signal.SIGQUIT)
"""Those that somebody sends who sits there; the others come from machines."""

IGNORABLE = (signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1)
"""Those that stay ignored where they were: nohup wants no SIGHUP."""


Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None
"""What `signal.signal` takes and gives."""


class Stopping:
    """As a context, takes the signals of ASKED: each raises KeyboardInterrupt at once, but for the blocks of `later`.

    There a signal is only noted (`asked`), and whoever runs the block looks; a second one BY_HAND is not kept waiting.
    A second SIGTERM is: it may come to the process and to its group. So is a second Ctrl-C under torchrun, which hands
    on the one that the terminal has sent to all. Outside a program's main thread it does nothing.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._later = False
        self._before: dict[int, Handler] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            ignored = {number for number in IGNORABLE if signal.getsignal(number) == signal.SIG_IGN}
            self._before = {number: signal.signal(number, self._ask) for number in ASKED if number not in ignored}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        impatient = self.asked is not None and number in BY_HAND and not group.launched()
        self.asked = self.asked or number
        if impatient or not self._later:
            raise KeyboardInterrupt

    @contextmanager
    def later(self, wait: bool = True) -> Iterator[None]:
        """Inside, signals are noted; with wait=False, inside such a block, they raise again. One that is still there at
        the end raises then.
        """
        before, self._later = self._later, wait
        try:
            if not wait and self.asked is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._later = before
        if wait and not before and self.asked is not None:
            raise KeyboardInterrupt

    @property
    def name(self) -> str:
        return ASKED[self.asked or signal.SIGINT][0]

    @property
    def exit_code(self) -> int:
        return ASKED[self.asked or signal.SIGINT][1]
