"""Writing files whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from segda.errors import RunError, RunFailure

FAILURES = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EMFILE, errno.ENOENT, errno.ESTALE}
"""What is no matter of the path that was asked for: the disk is full or broken, or a folder has gone meanwhile."""


@contextmanager
def atomic_write(path: Path, *, lasting: bool = False) -> Iterator[Path]:
    """Gives a temporary path beside `path`; renames it to `path` when the block ends well, removes it otherwise.

    The file is synced before the rename, so that a reader sees the old file or the whole new one, also after a crash.
    lasting: its folder is synced, too, so that after this no crash brings the old file back; that costs as much again.
    RunError when the folder cannot be written or the disk is full.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)  # were it a link, another file would be written
        yield partial
        sync(partial)
        partial.replace(path)
        if lasting:
            sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """An empty folder for the time of the block, whatever a killed call has left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


PARTIAL = ".partial"
"""How the temporary files of `atomic_write` end. One that is found was left by a process that was killed."""


def is_partial(path: Path) -> bool:
    """Whether a file has such a name: .NAME.PROCESS.partial."""
    return re.fullmatch(rf"\..+\.\d+{re.escape(PARTIAL)}", path.name, re.DOTALL) is not None


def remove_partial(folder: Path) -> None:
    """Removes what killed processes left of files in `folder` and the folders in it. RunError when that cannot be."""
    for path in filter(is_partial, folder.rglob(f".*{PARTIAL}")):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error


def sync(path: Path) -> None:
    """What was written to a file, or the names in a folder, are on the disk when this returns."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        # Some network file systems have no such thing for a folder.
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(number)


def write_text(path: Path, text: str) -> None:
    """`text` as UTF-8 at `path`, whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def cannot_write(path: Path, error: OSError) -> RunError:
    """RunFailure where the machine is to blame, RunError where it may be the path."""
    kind = RunFailure if error.errno in FAILURES else RunError
    return kind(f"cannot write {path}: {error.strerror or error}; free space or choose another folder")
