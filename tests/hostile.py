"""What hostile tests share: code in a pickle, and how an input is refused."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from segda.errors import SegdaError


class Evil:
    """What runs a command when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


def seal(content: bytes) -> bytes:
    """The content with a last line as our own files have it: whoever does harm can write it, too."""
    return content + b"\nsegda sha256 " + hashlib.sha256(content).hexdigest().encode() + b"\n"


def refused(call, *arguments, kind: type[SegdaError] = SegdaError) -> str:
    with pytest.raises(kind) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1000
    return message
