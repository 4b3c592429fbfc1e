"""Paths as people write them, and what must not stand where a file does."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

from segda.errors import RunError

OWN_RECIPE, OWN_DATA = "recipe.yaml", "data.yaml"
"""What `segda init` writes for images of one's own."""


def expanded(path: str | Path) -> Path:
    """A path with `~` and `$VARIABLE` as a shell has them; a variable that is not set, or a user who is none, stays as
    it is written, so that the message that it is not there shows it.
    """
    return Path(os.path.expanduser(os.path.expandvars(path)))


def recipe_file(run: Path) -> Path:
    """The file that makes a folder a run's; RunError where there is none."""
    path = run / "recipe.yaml"
    if not path.is_file():
        raise RunError(f"{run} is not a run folder: it has no recipe.yaml; give the --out of a `segda train`")
    return path


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hex. OSError as of `open`, and as of `regular`."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def regular(path: Path) -> Path:
    """The path, to be opened; OSError for a pipe, a device or a socket: to read one may never end, to open one neither.

    A folder, or nothing, is left to whoever opens it.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return path
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe, a device or a socket, and no file", str(path))
    return path
