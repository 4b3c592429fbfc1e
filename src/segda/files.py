"""Writing files whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from segda.errors import RunError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`; renames it to `path` when the block ends well, removes it otherwise.

    The file is synced before the rename, so that a reader sees the old file or the whole new one, also after a crash.
    RunError when the folder cannot be written or the disk is full.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`text` as UTF-8 at `path`, whole or not at all."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def cannot_write(path: Path, error: OSError) -> RunError:
    return RunError(f"cannot write {path}: {error.strerror or error}; free space or choose another folder")
