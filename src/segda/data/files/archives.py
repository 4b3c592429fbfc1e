"""Zip archives read in place: a file inside one is an ordinary path, `DATA/images.zip/images/00001.png`.

Nothing is unpacked. An archive is opened once a process: forked readers that shared one would move each other's place
in it. Archives come from anywhere, so a member whose name leads out of the archive is refused, as is one that claims to
be larger than any picture: a few bytes can unpack to any number.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from segda.errors import DataError, ImageError
from segda.ground.paths import regular

MEGABYTES = 512
"""Larger members are refused; a picture of the 80 megapixels that are read at most has half of that, uncompressed."""

AGAIN = "download it again, or remove it if its content lies unpacked beside it"


def read_bytes(path: Path) -> bytes:
    """The content of a file, which may be in a zip archive. FileNotFoundError or another OSError as of a file,
    DataError for a damaged archive.
    """
    try:
        return regular(path).read_bytes()
    except (NotADirectoryError, FileNotFoundError):
        inside = _inside(path)
        if inside is None:
            raise
    archive, member = inside
    opened = _opened(archive)
    try:
        info = opened.getinfo(member)
    except KeyError:
        raise FileNotFoundError(path) from None
    if info.file_size > MEGABYTES << 20:
        raise DataError(f"{path}: {info.file_size >> 20} megabytes unpacked, more than {MEGABYTES}; {AGAIN}")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the others unpack all that there is
        names = zipfile.compressor_names  # type: ignore[attr-defined]  # there since Python 3.3, but undocumented
        kind = names.get(info.compress_type, info.compress_type)
        raise DataError(f"{archive}: {member} cannot be read in place (its compression is {kind}); unpack the archive")
    try:
        with opened.open(info) as file:
            return file.read(info.file_size + 1)  # without a number, all that there is, whatever the size says
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, struct.error) as error:
        raise ImageError(f"{archive} is damaged at {member} ({error}); {AGAIN}", path) from None
    except (NotImplementedError, RuntimeError) as error:  # a kind of compression, or a password
        raise DataError(f"{archive}: {member} cannot be read in place ({error}); unpack the archive") from None


def open_file(path: Path) -> BinaryIO:
    """A file, which may be in a zip archive, to read its beginning; the caller closes it."""
    return regular(path).open("rb") if _inside(path) is None else io.BytesIO(read_bytes(path))


def is_file(path: Path) -> bool:
    """Whether there is such a file, also inside an archive."""
    if path.is_file():
        return True
    inside = _inside(path)
    return inside is not None and inside[1] in _opened(inside[0]).NameToInfo


def state(path: Path) -> tuple[int, int]:
    """(size, what changes with the content): the time of a file, the checksum of a member of an archive."""
    inside = _inside(path)
    if inside is None:
        found = path.stat()
        return found.st_size, found.st_mtime_ns
    info = _opened(inside[0]).getinfo(inside[1])
    return info.file_size, info.CRC


def content_mark(path: Path) -> str:
    """What changes with the content and with nothing else: the checksum of a member of an archive, the SHA-256 of a
    file; "" where none can be read.
    """
    try:
        inside = _inside(path)
        if inside is not None:
            return f"{_opened(inside[0]).getinfo(inside[1]).CRC:08x}"
        return hashlib.sha256(regular(path).read_bytes()).hexdigest()
    except (OSError, KeyError):
        return ""


def members(archive: Path) -> tuple[str, ...]:
    """The files in an archive, hidden ones left out. DataError for half an archive, or one with a name that leads out
    of it.
    """
    names = []
    for name, info in _opened(archive).NameToInfo.items():
        if "\\" in name or name[1:2] == ":" or name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise DataError(f"{archive}: its member {name!r} leads out of the archive; do not use it, {AGAIN}")
        if not info.is_dir() and not PurePosixPath(name).name.startswith("."):
            names.append(name)
    return tuple(names)


def _inside(path: Path) -> tuple[Path, str] | None:
    """The archive that a path leads into, and the member's name; None for any other path."""
    text = path.as_posix()
    at = text.find(".zip/")
    while at >= 0:
        archive = Path(text[: at + 4])
        if archive.is_file():
            return archive, text[at + 5 :]
        at = text.find(".zip/", at + 5)
    return None


def _opened(archive: Path) -> zipfile.ZipFile:
    found = archive.stat()
    return _open(archive, os.getpid(), found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=64)
def _open(archive: Path, process: int, size: int, changed: int) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error):
        raise DataError(f"{archive}: half an archive, or none ({size} bytes without an end); {AGAIN}") from None
    except OSError as error:
        raise DataError(f"{archive}: cannot be read ({error.strerror}); check its permissions") from None
