"""What tests start ends with them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import processes

LEAVES = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True, stdout=2)
print(child.pid, flush=True)
"""
"""A program that ends, and leaves a process in a session of its own, as torchrun does."""


def living(number: int) -> bool:
    return number in processes.with_word(processes.TESTS, os.environ[processes.TESTS])


def test_what_a_program_has_left_ends_with_it():
    done = processes.run([sys.executable, "-c", LEAVES], stderr=subprocess.DEVNULL)
    assert done.returncode == 0 and not living(int(done.stdout))


def test_what_hangs_is_ended_with_all_that_came_of_it(monkeypatch):
    monkeypatch.setattr(processes, "HANGS", 0.0)
    heard: list[str] = []

    def asked(process, *_, **given):
        heard.append(process.stdout.readline())
        raise subprocess.TimeoutExpired("it", given["timeout"])

    monkeypatch.setattr(subprocess.Popen, "communicate", asked)
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run([sys.executable, "-c", f"{LEAVES}child.wait()"], stderr=subprocess.DEVNULL)
    assert not living(int(heard[0]))


def test_a_failing_test_leaves_nothing():
    words = [sys.executable, "-c", f"{LEAVES}child.wait()"]
    with pytest.raises(ZeroDivisionError), processes.started(words, stdout=subprocess.PIPE, text=True) as process:
        number = int(process.stdout.readline())
        assert living(number) and processes.left()
        raise ZeroDivisionError
    assert not living(number) and not living(process.pid)
