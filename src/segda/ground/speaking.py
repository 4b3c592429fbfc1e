"""How the command line speaks: what modules log, as lines on standard output, and warnings on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from segda.errors import visible


def echo(text: str) -> None:
    """Prints a line, or several, at once."""
    print("\n".join(map(visible, text.split("\n"))), flush=True)


class _Speaker(logging.Handler):
    """Prints records. An error of printing is raised where the record was logged: a reader that has gone ends us."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            echo(record.getMessage())
        else:
            print(f"segda: warning: {visible(record.getMessage())}", file=sys.stderr, flush=True)


def _by_this_process(record: logging.LogRecord) -> bool:
    """Of several processes the first alone speaks, but for records with `extra={"every_rank": True}`."""
    from segda.distributed import group

    return group.rank() == 0 or getattr(record, "every_rank", False)


@contextmanager
def spoken() -> Iterator[None]:
    """A block in which what is logged below "segda" is printed."""
    log, speaker = logging.getLogger("segda"), _Speaker()
    speaker.addFilter(_by_this_process)
    before = log.level, log.propagate
    log.addHandler(speaker)
    log.setLevel(logging.INFO)
    log.propagate = False  # some libraries give the root logger a handler, which would print all a second time
    try:
        yield
    finally:
        log.removeHandler(speaker)
        log.setLevel(before[0])
        log.propagate = before[1]
