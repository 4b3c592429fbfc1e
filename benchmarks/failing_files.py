"""A file layer in which one thing that a process does to its files fails, once: as a full or a broken disk does.

Counted are, of the files below a folder, in this process and in Python: each file that is opened for writing, each
write, flush and close of one, each fsync, rename, link, removal, and each folder that is made or removed.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from pathlib import Path
from typing import Any

WRITES = "wax+"
NAMES = {"rename": "rename", "replace": "rename", "link": "link", "unlink": "unlink", "remove": "unlink",
         "mkdir": "mkdir", "rmdir": "rmdir", "fsync": "fsync"}  # fmt: skip
"""Function of os -> what it is counted as."""


class FailingFiles:
    """Patches Python's files for the rest of the process. The `fails`-th thing fails with `error`; None: none does."""

    def __init__(self, folder: Path, fails: int | None, error: int):
        self.folder, self.fails, self.error = str(folder.resolve()), fails, error
        self.done: list[str] = []
        """What was done, one after the other."""
        self.failed = ""
        """What did, and of which file."""
        self._open = builtins.open
        builtins.open = io.open = self._opened  # type: ignore[assignment]
        for name, what in NAMES.items():
            setattr(os, name, self._failing(getattr(os, name), what))

    def point(self, what: str, file: str) -> None:
        """One more thing is about to be done to a file."""
        self.done.append(what)
        if len(self.done) == self.fails:
            self.failed = f"{what} of {file.removeprefix(self.folder)} with {errno.errorcode[self.error]}"
            raise OSError(self.error, os.strerror(self.error))

    def _place(self, name: Any, at: int | None = None) -> str:
        """The absolute path; of a descriptor that of its file."""
        if isinstance(name, int):
            return os.readlink(f"/proc/self/fd/{name}")
        folder = os.getcwd() if at is None else os.readlink(f"/proc/self/fd/{at}")
        return os.path.join(folder, os.fsdecode(name))

    def _concerns(self, place: str) -> bool:
        return place.startswith(self.folder + os.sep)

    def _failing(self, function, what: str):
        def call(name, *more, **given):
            place = self._place(name, given.get("dir_fd", given.get("src_dir_fd")))
            if self._concerns(place):
                self.point(what, place)
            return function(name, *more, **given)

        return call

    def _opened(self, name, mode="r", *more, **given):
        place = self._place(name)
        if not set(mode) & set(WRITES) or not self._concerns(place):
            return self._open(name, mode, *more, **given)
        self.point("open", place)
        return FailingFile(self._open(name, mode, *more, **given), place, self)


class FailingFile:
    """A file that is open for writing."""

    def __init__(self, file, place: str, layer: FailingFiles):
        self._file, self._place, self._layer, self._left = file, place, layer, False

    def __getattr__(self, name: str):
        return getattr(self._file, name)

    def __enter__(self) -> FailingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self):
        return iter(self._file)

    def fileno(self) -> int:
        """None, or it would be written past us."""
        raise io.UnsupportedOperation("fileno")

    def write(self, content) -> int:
        self._layer.point("write", self._place)
        return self._file.write(content)

    def flush(self) -> None:
        self._layer.point("flush", self._place)
        self._file.flush()

    def close(self) -> None:
        if self._left:
            return
        self._left = True
        try:
            self._layer.point("close", self._place)
        finally:
            self._file.close()
