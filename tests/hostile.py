"""What hostile tests share: code in a pickle, and how an input is refused."""

from __future__ import annotations

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


def refused(call, *arguments, kind: type[SegdaError] = SegdaError) -> str:
    with pytest.raises(kind) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1000
    return message
