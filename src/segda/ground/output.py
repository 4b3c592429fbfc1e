"""Standard output and standard error that nobody reads any more, or that can hold no more: work does not end with them.

Of `| head -1`, a terminal that was closed, a full disk, `>&-`. What cannot be written is given up; what cannot be
encoded (PYTHONIOENCODING=ascii) is written out, as \\xb1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

CLOSED = "it is closed"
GONE = "its reader has gone"


class Enduring:
    """A stream of text in which nothing fails. `fault`: why what was written was lost; None: nothing was."""

    def __init__(self, stream: TextIO | None, tell: Callable[[str], object]):
        """stream: None where Python found none when it started. tell: hears of the fault when it comes."""
        self._stream, self._tell = stream, tell
        self.fault: str | None = CLOSED if stream is None else None

    def write(self, text: str) -> int:
        if self.fault is None:
            self._try(lambda stream: stream.write(_encodable(text, stream)))
        return len(text)

    def flush(self) -> None:
        if self.fault is None:
            self._try(lambda stream: stream.flush())

    def _try(self, call: Any) -> None:
        try:
            call(self._stream)
        except BrokenPipeError:
            self._give_up(GONE)
        except OSError as error:
            self._give_up(error.strerror or str(error))
        except ValueError:  # of a stream that Python has closed
            self._give_up(CLOSED)

    def _give_up(self, fault: str) -> None:
        """Its number stands for nothing from now on: what is still in its buffer would fail again at the very end."""
        self.fault = fault
        with suppress(OSError, ValueError, AttributeError):  # a stream in memory has no number
            number = cast(TextIO, self._stream).fileno()
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, number)
            os.close(nothing)
        self._tell(fault)

    def isatty(self) -> bool:
        return self.fault is None and cast(TextIO, self._stream).isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _encodable(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def enduring(tell: Callable[[str], object]) -> Iterator[Enduring]:
    """A block in which standard output, which it gets, and standard error are such streams. tell: hears of a fault of
    standard output when it comes.
    """
    _fill_the_three()
    before = sys.stdout, sys.stderr
    out, err = Enduring(sys.stdout, tell), Enduring(sys.stderr, lambda _: None)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def _fill_the_three() -> None:
    """Where one of the three is closed, the next file that is opened would get its number, and what libraries print."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
