"""Processes that tests start: none outlives its test, whatever becomes of that.

Each has a word in its environment, and so has all that comes of it, in whatever session or group. What torchrun starts
is in sessions of its own, so to end a process or its group would leave those behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

WORD = "SEGDA_TEST_PROCESS"
TESTS = "SEGDA_TESTS"
"""In the environment of all that these tests start."""

HANGS = 3600.0
"""Seconds after which a process hangs; no test is about time, and the machine may be busy."""


def with_word(name: str, word: str) -> list[int]:
    """The processes that have the word under this name in their environment; those that have ended have none."""
    found, wanted = [], f"{name}={word}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if wanted in (process / "environ").read_bytes().split(b"\0") and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


def end_all(word: str) -> None:
    """Kills all processes of a word, until there are no more."""
    while living := with_word(WORD, word):
        for number in living:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.01)


@contextmanager
def started(words: Sequence[object], env: dict[str, str] | None = None, **given: Any) -> Iterator[subprocess.Popen]:
    """As subprocess.Popen, in a session of its own; what is left of it at the end of the block is killed."""
    word = uuid4().hex
    environment = dict(os.environ if env is None else env) | {WORD: word}
    with subprocess.Popen([*map(str, words)], env=environment, start_new_session=True, **given) as process:
        try:
            yield process
        finally:
            end_all(word)


def run(words: Sequence[object], *, check: bool = False, **given: Any) -> subprocess.CompletedProcess:
    """As subprocess.run, with what was said as text; leaves nothing of it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with started(words, **(pipes | given)) as process:
        out, err = process.communicate(timeout=HANGS)
    if check:
        assert process.returncode == 0, f"{out}{err}"
    return subprocess.CompletedProcess(words, process.returncode, out, err)


KEPT = ("resource_tracker", "torch_shm_manager")
"""Processes of Python's and torch's own that last as long as whoever uses them."""


def left(known: Sequence[int] = ()) -> list[str]:
    """The commands of the processes of these tests that are there, but for the known ones."""
    found = []
    for number in with_word(TESTS, os.environ[TESTS]):
        with suppress(OSError):
            command = Path(f"/proc/{number}/cmdline").read_text().replace("\0", " ")
            if number not in known and command and not any(word in command for word in KEPT):
                found.append(f"{number}: {command[:200]}")
    return found
