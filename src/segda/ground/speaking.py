"""How the command line speaks: what modules log, as lines on standard output, and warnings on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from segda.errors import visible

_mark = ""


def mark_lines(label: str | None) -> None:
    """From now on what is printed begins with "[label] ": two trainings may print into one terminal."""
    global _mark
    _mark = "" if label is None else f"[{visible(label)}] "


def marked(line: str) -> str:
    """A line as it is printed."""
    return _mark + line


def are_marked() -> bool:
    """Whether lines are: then others print into this terminal as well."""
    return bool(_mark)


def echo(text: str) -> None:
    """Prints a line, or several, at once."""
    print("\n".join(marked(visible(line)) for line in text.split("\n")), flush=True)


def complain(text: str) -> None:
    """Prints a line on standard error."""
    print(marked(f"segda: {visible(text)}"), file=sys.stderr, flush=True)


class _Speaker(logging.Handler):
    """Prints records, of which a warning goes to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            echo(record.getMessage())
        else:
            complain(f"warning: {record.getMessage()}")


def _by_this_process(record: logging.LogRecord) -> bool:
    """Of several processes the first alone speaks, but for records with `extra={"every_rank": True}`."""
    from segda.distributed import group

    return group.rank() == 0 or getattr(record, "every_rank", False)


@contextmanager
def spoken() -> Iterator[None]:
    """A block in which what is logged below "segda" is printed, at first without a label."""
    mark_lines(None)
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
