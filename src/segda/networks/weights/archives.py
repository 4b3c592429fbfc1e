"""Archives of tensors as torch saves them (.pt, .pth): zip files, whose checksums torch writes but does not look at."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from segda.errors import RunFailure


def write_archive(file: Any, content: dict[str, Any], path: Path) -> None:
    """Tensors and plain values into an open file. The same ones give the same bytes, whatever the file is called.

    file: has `write` and `flush`. path: for the message. OSError as of the file; RunFailure for what else torch meets.
    """
    try:
        torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # the file's own; torch's writer then met one of its own
            raise error.__context__ from None
        raise RunFailure(f"cannot write {path}: {error}; choose another folder") from error


def check_archive(path: Path) -> None:
    """BadZipFile, or another error of zipfile, where a zip archive does not hold what was written into it.

    Any other file is passed over, and so is an archive that was saved without checksums (set_crc32_options of torch).
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if any(member.CRC for member in archive.infolist()) and (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"damaged: {damaged} does not have its checksum")
