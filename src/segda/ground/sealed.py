"""Files that end with a digest of themselves: who reads one knows whether it is as it was written.

The last line is `segda sha256 HEX`, the SHA-256 of all bytes before it. Those who read zip archives (torch, numpy)
pass over what comes after them. JSON holds its digest among its values, see `with_digest`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from segda.ground.paths import regular

MARK = b"\nsegda sha256 "
SEAL_BYTES = len(MARK) + 64 + 1
"""How much longer a file is by its last line."""

PART = 1 << 20  # bytes that are read at a time


class Sealed:
    """A file that is written from its beginning; `seal` adds the last line."""

    def __init__(self, file: BinaryIO):
        self.file, self.sum = file, hashlib.sha256()

    def write(self, content: Any) -> int:
        """content: bytes, or whatever shows its memory as bytes."""
        self.sum.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        self.file.flush()

    def seal(self) -> None:
        self.file.write(_seal(self.sum.hexdigest()))


def _seal(digest: str) -> bytes:
    return MARK + digest.encode() + b"\n"


class NoDigest(ValueError):
    """A file does not end with a digest: it is cut off, or was never sealed."""


def check_sealed(path: Path) -> None:
    """ValueError, which says why, unless the file is as it was sealed. OSError when it cannot be read."""
    with regular(path).open("rb") as file:
        left = file.seek(0, 2) - SEAL_BYTES
        file.seek(max(left, 0))
        last = file.read()
        if left < 0 or not last.startswith(MARK):
            raise NoDigest("it does not end with its digest")
        file.seek(0)
        found = hashlib.sha256()
        while part := file.read(min(PART, left)):
            found.update(part)
            left -= len(part)
    if left or _seal(found.hexdigest()) != last:
        raise ValueError("damaged: it is not what was written, by its SHA-256")


DIGEST = "sha256"
"""The key of the digest in a JSON object."""


def with_digest(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as JSON has them and, last of them, the SHA-256 of that."""
    plain = json.loads(json.dumps(values))  # there keys are texts
    return {**plain, DIGEST: _digest(plain)}


def without_digest(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `with_digest`. ValueError when they have been changed, or have no digest."""
    others = {key: value for key, value in values.items() if key != DIGEST}
    if DIGEST not in values:
        raise NoDigest(f"it has no {DIGEST}")
    if values[DIGEST] != _digest(others):
        raise ValueError(f"damaged or edited: it is not what was written, by its {DIGEST}")
    return others


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
