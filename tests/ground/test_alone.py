"""One writer a folder: who is kept out, for how long, and what is left."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
from pathlib import Path
from threading import Event, Thread

import pytest

from conftest import hearing
from segda.errors import RunError, RunFailure
from segda.ground import alone
from segda.ground.alone import LOCK, alone_in

TOLD = "another process draws in {folder}"


def refused(folder: Path, **given) -> str:
    with pytest.raises(RunError) as error, alone_in(folder, TOLD, **given):
        pass
    assert not isinstance(error.value, RunFailure) and error.value.exit_code == 2
    return str(error.value)


def test_a_second_one_is_told_who_the_first_one_is(tmp_path):
    folder = tmp_path / "new" / "out"
    with alone_in(folder, "another process trains in {folder}"):
        assert refused(folder) == (
            f"another process trains in {folder} (pid {os.getpid()} on {socket.gethostname()}); wait until it ends, or "
            "choose another --out"
        )
        (tmp_path / "link").symlink_to(folder)
        assert "another process trains in" in refused(tmp_path / "link")
        (folder / LOCK).write_text("{")
        assert refused(folder).startswith(f"another process draws in {folder}; ")
    assert not list(tmp_path.glob("new"))


def test_what_was_there_stays_and_what_was_written_stays(tmp_path):
    with alone_in(tmp_path, TOLD):
        pass
    assert tmp_path.is_dir() and not list(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), alone_in(tmp_path / "out", TOLD):
        (tmp_path / "out" / "x").write_text("kept")
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x"]


def test_the_lock_ends_with_its_process_whatever_forks_of_it_do(tmp_path):
    ready, told = os.pipe()
    lasts, end = os.pipe()
    holder = os.fork()
    if holder == 0:
        with alone_in(tmp_path, TOLD):
            if os.fork() == 0:  # as a process that reads images; ends when the test closes its pipe
                os.close(end)
                os.write(told, b".")
                os.read(lasts, 1)
                os._exit(0)
            os.close(end)
            os.read(lasts, 1)
        os._exit(1)
    try:
        assert os.read(ready, 1) == b"."
        assert f"(pid {holder} on " in refused(tmp_path)
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        with alone_in(tmp_path, TOLD):
            assert refused(tmp_path)
    finally:
        for number in (ready, told, lasts, end):
            os.close(number)
    assert not list(tmp_path.iterdir())


def test_one_that_leaves_in_time_is_waited_for(tmp_path):
    here, leave = Event(), Event()

    def hold():
        with alone_in(tmp_path, TOLD):
            here.set()
            leave.wait()

    other = Thread(target=hold)
    other.start()
    here.wait()
    lines: list[str] = []
    with hearing(lambda line: (lines.append(line), leave.set())), alone_in(tmp_path, TOLD, patience=600):
        other.join()
        (line,) = lines
        assert line.startswith(TOLD.format(folder=tmp_path)) and line.endswith("waits for its end, at most 600 s")
        assert refused(tmp_path)


def test_a_file_that_its_holder_removed_meanwhile_is_no_lock(tmp_path, monkeypatch):
    flock, locked = fcntl.flock, []

    def removed_first(number, how):
        if not locked:
            (tmp_path / LOCK).unlink()
        locked.append(number)
        flock(number, how)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", removed_first)
        held = alone_in(tmp_path, TOLD)
        held.__enter__()
    assert len(locked) == 2 and refused(tmp_path)
    held.__exit__(None, None, None)


def test_links_are_replaced_and_never_written_through(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("kept")
    for name in ("soft", "hard"):
        (tmp_path / name).mkdir()
    (tmp_path / "soft" / LOCK).symlink_to(secret)
    (tmp_path / "hard" / LOCK).hardlink_to(secret)
    for name in ("soft", "hard"):
        with alone_in(tmp_path / name, TOLD):
            assert refused(tmp_path / name)
        assert secret.read_text() == "kept" and not list((tmp_path / name).iterdir())


def test_where_there_are_no_locks_that_is_said(tmp_path, monkeypatch, warned):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(alone.fcntl, "flock", none)
    with alone_in(tmp_path, TOLD), alone_in(tmp_path, TOLD):
        pass
    assert warned == 2 * [f"{tmp_path}: its file system has no locks (No locks available); start nothing else there"]


def test_a_file_system_that_locks_only_what_can_be_written_locks_too(tmp_path, monkeypatch):
    flock, modes = fcntl.flock, []

    def as_nfs(number, how):
        modes.append(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE)
        if modes[-1] == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(number, how)

    monkeypatch.setattr(alone.fcntl, "flock", as_nfs)
    with alone_in(tmp_path, TOLD):
        assert modes == [os.O_RDONLY, os.O_RDWR]
        assert f"(pid {os.getpid()} on " in refused(tmp_path)


def test_a_disk_that_is_full_leaves_no_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(alone.json, "dump", full)
    with pytest.raises(RunFailure, match="No space left"), alone_in(tmp_path / "out", TOLD):
        pass
    assert not list(tmp_path.iterdir())


def test_the_file_of_another_user_who_has_gone_is_replaced(tmp_path, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("needs another user's file")
    (tmp_path / LOCK).write_text("theirs")
    os.chown(tmp_path / LOCK, 12345, 12345)
    real = os.open

    def not_theirs(path, mode, *more):
        if mode & os.O_WRONLY and os.stat(path).st_uid == 12345:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, mode, *more)

    monkeypatch.setattr(alone.os, "open", not_theirs)
    with alone_in(tmp_path, TOLD):
        assert (tmp_path / LOCK).stat().st_uid == 0 and f"(pid {os.getpid()} on " in refused(tmp_path)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(tmp_path / "file/out") and "file/out/.lock" in refused(tmp_path / "file/out")
    (tmp_path / LOCK).mkdir()
    assert "Is a directory" in refused(tmp_path)
