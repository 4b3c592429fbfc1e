"""One writer a folder: a lock of the kernel's, which ends with the process that holds it, however that ends.

The lock is on a file in the folder, and so is one for all who reach the folder, by whatever name. The file says who
holds it; it goes when the folder is left. What forks of the holder inherit of it they let go of at once, or a
training's lock would last as long as the last process that reads its images.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from segda.distributed import group
from segda.errors import RunError
from segda.ground.atomic import cannot_write
from segda.ground.safe_yaml import json_values

log = logging.getLogger(__name__)

LOCK = ".lock"
"""The file's name, where a folder has no other for it."""

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system says that has no locks."""

LOOK_AGAIN = 0.1
"""Seconds."""

_held: set[int] = set()
"""The files whose locks this process holds."""


def _let_go() -> None:
    """In a fork: the lock is its parent's alone."""
    for number in _held:
        with suppress(OSError):
            os.close(number)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def alone_in(folder: Path, told: str, *, lock: str = LOCK, patience: float = 0) -> Iterator[None]:
    """Makes the folder, and keeps other writers out of it while the block lasts; made for nothing, it goes again.

    told: to them, as "another process trains in {folder}". lock: the file, from the folder. patience: seconds in which
    another one may leave. RunError, with its host and number, where it does not. Readers know nothing of it.
    """
    path = folder / lock
    number, made = None, []
    try:
        try:
            made = [place for place in (path.parent, *path.parent.parents) if not place.exists()]
            number = _acquired(path, folder, told, patience)
        except OSError as error:
            raise cannot_write(path, error) from error
        _held.add(number)
        yield
    finally:
        if number in _held:  # a fork that comes by here has no part in it
            with suppress(OSError):  # the folder may be gone, or read-only by now
                path.unlink()
            _held.remove(number)
            os.close(number)
        with suppress(OSError):  # something is in it
            for place in made:
                place.rmdir()


@contextmanager
def first_alone_in(folders: Sequence[Path], told: str, *, patience: float = 0) -> Iterator[None]:
    """The same of several processes, for folders that one alone may write to: the first holds them, the others go on
    where it could.
    """
    with ExitStack() as held:

        def hold() -> None:
            for folder in folders:
                held.enter_context(alone_in(folder, told, patience=patience))

        group.on_rank_zero(hold)
        yield


def _acquired(path: Path, folder: Path, told: str, patience: float) -> int:
    """The open file, whose lock this process has."""
    end, waits = time.monotonic() + patience, False
    # A file that is open for writing keeps a disk from being made read-only; some network disks lock no others.
    mode = os.O_RDONLY
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            number = _opened(path, mode)
        except FileNotFoundError:  # the folder went when another one left it
            continue
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = _who(number, told).replace("{folder}", str(folder))
            os.close(number)
            if time.monotonic() >= end:
                raise RunError(f"{who}; wait until it ends, or choose another --out") from None
            if not waits:
                log.info(f"{who}; waits for its end, at most {patience:.0f} s")
                waits = True
            time.sleep(LOOK_AGAIN)
            continue
        except OSError as error:
            if error.errno == errno.EBADF and mode == os.O_RDONLY:
                os.close(number)
                mode = os.O_RDWR
                continue
            if error.errno not in NO_LOCKS:
                os.close(number)
                raise
            log.warning(f"{folder}: its file system has no locks ({error.strerror}); start nothing else there")
        if _is_at(number, path) and _signed(number, path, told):
            return number
        os.close(number)


def _opened(path: Path, mode: int) -> int:
    """The file, made where there is none; a link or what is no file is replaced, never written through."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            path.unlink()
    return os.open(path, mode | os.O_CREAT | os.O_NOFOLLOW, 0o666)


def _is_at(number: int, path: Path) -> bool:
    """Whether the locked file is still that of the path, where who held it before has removed it; and no other's."""
    try:
        there, own = path.lstat(), os.fstat(number)
        if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino) and own.st_nlink > 1:
            path.unlink()  # a second name of what is not ours
            return False
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        return False
    return (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)


def _signed(number: int, path: Path, told: str) -> bool:
    """Writes who holds the folder into the locked file; False where that is another user's, who has gone."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW), "w", encoding="utf-8") as file:
            json.dump({"told": told, "host": socket.gethostname(), "pid": os.getpid()}, file)
        return True
    except OSError as error:
        path.unlink()
        if isinstance(error, PermissionError) and os.fstat(number).st_uid != os.geteuid():
            return False
        os.close(number)
        raise


def _who(number: int, told: str) -> str:
    """Who is at work in a folder; no more than `told` where the file does not say so yet."""
    try:
        found = json_values(os.pread(number, 1000, 0))
        return f"{found['told']} (pid {int(found['pid'])} on {found['host']})"
    except (ValueError, KeyError, TypeError):
        return told
