"""How far a long thing is: a bar on a terminal, plain lines elsewhere, nothing for what is quick."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from segda.ground import progress, speaking

SCRIPT = """
import time
from segda.ground.progress import shown, track
from segda.ground.speaking import mark_lines
mark_lines({label!r})
with shown():
    for _ in track(range(3), "counting", lines={lines}):
        time.sleep(0.9)
        print("said", flush=True)
"""


@pytest.fixture
def slow(monkeypatch):
    """All work is long enough to be shown."""
    monkeypatch.setattr(progress, "QUIET_SECONDS", -1.0)
    monkeypatch.setattr(progress, "LINE_SECONDS", -1.0)


def shown_of(capsys) -> list[str]:
    """The lines that were shown, without the time."""
    return [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()]


def test_quick_work_shows_nothing(capsys):
    with progress.shown():
        assert list(progress.track([1, 2, 3], "counting")) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_lines_say_how_far_it_is(capsys, slow):
    with progress.shown():
        assert list(progress.track([1, 2, 3], "counting")) == [1, 2, 3]
        assert shown_of(capsys) == ["counting: 1 of 3", "counting: 2 of 3"]
        list(progress.track([1, 2, 3], "counting", lines=False))
        assert capsys.readouterr().err == ""


def test_outside_of_shown_nothing_is_shown(capsys, slow):
    assert list(progress.track([1, 2, 3], "counting")) == [1, 2, 3]
    with progress.shown(), progress.shown():
        pass
    list(progress.track([1, 2, 3], "counting"))
    assert capsys.readouterr() == ("", "")


def test_of_several_processes_the_first_alone_shows(capsys, slow, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, expected in (("1", []), ("0", ["counting: 1 of 2"])):
        monkeypatch.setenv("RANK", rank)
        with progress.shown():
            assert list(progress.track([1, 2], "counting")) == [1, 2]
        assert shown_of(capsys) == expected


def test_work_within_work_and_in_threads_goes_on(capsys, slow):
    with progress.shown(), ThreadPoolExecutor(2) as pool:
        for _ in progress.track([1, 2], "outer"):
            with progress.shown():
                assert list(progress.track([1, 2], "inner")) == [1, 2]
        assert shown_of(capsys) == ["inner: 1 of 2", "outer: 1 of 2", "inner: 1 of 2"]
        in_threads = pool.map(lambda n: list(progress.track(range(n), "thread")), range(4))
        assert [len(items) for items in in_threads] == [0, 1, 2, 3]
        assert capsys.readouterr().err == ""


def on_a_terminal(label: str | None) -> bytes:
    """What a terminal gets of the script."""
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(lines=False, label=label)],
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
    return output


def test_on_a_terminal_a_bar_is_drawn_and_lines_stay_readable():
    output = on_a_terminal(None)
    assert b"counting" in output and b"/3" in output and output.count(b"said") == 3


def test_with_a_label_others_print_there_too_so_that_no_bar_is_drawn():
    assert on_a_terminal("ebda").split() == [b"said"] * 3


def test_a_label_stands_before_the_lines(capsys, slow):
    speaking.mark_lines("a")
    try:
        with progress.shown():
            list(progress.track([1, 2], "counting"))
    finally:
        speaking.mark_lines(None)
    assert shown_of(capsys) == ["[a] counting: 1 of 2"]
