"""Who wrote a PNG, in the PNG: so that what segda wrote can be replaced, and what others have is left alone."""

from __future__ import annotations

from pathlib import Path

from PIL.PngImagePlugin import PngInfo

HEAD = 4096
"""Bytes; the signature stands before the pixels."""


def signature(writer: str) -> PngInfo:
    """For Pillow's `save`: writer is a command, as "segda predict"."""
    info = PngInfo()
    info.add_text("Software", writer)
    return info


def is_signed(path: Path, writer: str) -> bool:
    """Whether the command wrote the file at a path, as far as its first bytes say so."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return f"tEXtSoftware\0{writer}".encode() in file.read(HEAD)
