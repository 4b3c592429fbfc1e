"""How far a long thing is: a bar on a terminal, plain lines elsewhere, nothing for what is quick."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

from segda.ground import progress

SCRIPT = """
import time
from segda.ground.progress import shown
for _ in shown(range(3), "counting", lines={lines}):
    time.sleep(0.9)
    print("said", flush=True)
"""


def test_quick_work_shows_nothing(capsys):
    assert list(progress.shown([1, 2, 3], "counting")) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_lines_say_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", -1.0)
    monkeypatch.setattr(progress, "LINE_SECONDS", -1.0)
    assert list(progress.shown([1, 2, 3], "counting")) == [1, 2, 3]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["counting: 1 of 3", "counting: 2 of 3"]
    list(progress.shown([1, 2, 3], "counting", lines=False))
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_is_drawn_and_lines_stay_readable():
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(lines=False)],
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(theirs)
    output = b""
    try:
        while chunk := os.read(ours, 65536):
            output += chunk
    except OSError:  # a pseudo-terminal ends so on Linux
        pass
    os.close(ours)
    assert done.wait() == 0
    assert b"counting" in output and b"/3" in output and output.count(b"said") == 3
