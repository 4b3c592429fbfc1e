"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """A path with `~` and `$VARIABLE` as a shell has them; a variable that is not set, or a user who is none, stays as
    it is written, so that the message that it is not there shows it.
    """
    return Path(os.path.expanduser(os.path.expandvars(path)))
