"""Image and label files: decoding them, and refusing what is not what it should be, with the way out.

Decoders are lenient: a cut-off JPEG comes back grey below the cut, 16 bits become 8, an alpha channel vanishes. Here
the header is read first (a few bytes, no decoding), so that all of it is said before anything is decoded.

An image is an 8-bit RGB PNG or JPEG, or an RGBA PNG that is opaque everywhere; pixels are taken as stored, without
turning them by the camera's orientation tag, since labels are not turned either. A label is an 8-bit greyscale PNG, or
a palette PNG whose indices are the ids, or what another of the DECODERS reads.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segda.errors import DataError

MEGAPIXELS = 80
"""Larger pictures are refused: a few kilobytes of PNG can unpack to any size."""

PNG_KINDS = {0: "greyscale", 2: "RGB", 3: "palette", 4: "greyscale with alpha", 6: "RGBA"}
JPEG_KINDS = {1: "greyscale JPEG", 3: "RGB", 4: "CMYK"}
JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the markers that carry the frame's size
JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}  # the markers without a length


@dataclass(frozen=True)
class Header:
    """What a file says of itself: its size, bits per channel, kind of pixels, whether its end is there."""

    height: int
    width: int
    bits: int
    kind: str
    whole: bool


def header(content: bytes) -> Header | None:
    """The header of a PNG or JPEG; None for anything else."""
    if content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) >= 33:
        return _png_header(content)
    if content.startswith(b"\xff\xd8"):
        return _jpeg_header(content)
    return None


def _png_header(content: bytes) -> Header:
    width, height, bits, colour = struct.unpack_from(">IIBB", content, 16)
    at, whole = 8, False
    while at + 12 <= len(content):  # length, name, ..., checksum
        length, name = struct.unpack_from(">I4s", content, at)
        at += 12 + length
        if name == b"IEND":
            whole = True
            break
    return Header(height, width, bits, PNG_KINDS.get(colour, f"colour type {colour}"), whole)


def _jpeg_header(content: bytes) -> Header | None:
    at, frame = 2, None
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in JPEG_BARE:
            at += 2
        elif marker == 0xDA:  # the pixels begin; inside them FF is never followed by D9, except at their end
            whole = content.rfind(b"\xff\xd9", at) >= 0
            return None if frame is None else Header(*frame, whole)
        else:
            if marker in JPEG_SIZES and at + 10 <= len(content):
                bits, height, width, channels = struct.unpack_from(">BHHB", content, at + 4)
                frame = height, width, bits, JPEG_KINDS.get(channels, f"{channels}-channel")
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None if frame is None else Header(*frame, whole=False)


def _open(path: Path) -> tuple[bytes, Header]:
    """The file's bytes and header; DataError if it is missing, empty, cut off, not a picture or too large."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; restore it from the data set's download") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if not content:
        raise DataError(f"{path}: the file is empty (0 bytes); copy or download it again")
    head = header(content)
    if head is None:
        raise DataError(f"{path}: neither a PNG nor a JPEG, or damaged at its start; copy or download it again")
    if not head.whole:
        raise DataError(f"{path}: cut off after {len(content)} bytes; copy or download it again")
    if head.height * head.width > MEGAPIXELS * 1_000_000:
        size = f"{head.width}x{head.height}"
        raise DataError(f"{path}: {size} is more than {MEGAPIXELS} megapixels; cut the picture into tiles")
    if not head.height or not head.width:
        raise DataError(f"{path}: has no pixels ({head.width}x{head.height}); replace it")
    return content, head


def read_image(path: Path) -> Tensor:
    """(3, H, W) uint8 RGB, a view of (H, W, 3) memory. DataError, naming the file, unless it is 8-bit RGB.

    An alpha channel that says nothing (opaque everywhere) is left out.
    """
    content, head = _open(path)
    if head.bits != 8 or head.kind not in ("RGB", "RGBA"):
        raise _no_rgb(path, head)
    how = cv2.IMREAD_UNCHANGED if head.kind == "RGBA" else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    bgr = cv2.imdecode(np.frombuffer(content, np.uint8), how)
    if bgr is None:
        raise DataError(f"{path}: damaged, it cannot be decoded; copy or download it again")
    if head.kind == "RGBA":
        if bgr[..., 3].min() < 255:
            raise _no_rgb(path, head)
        return torch.from_numpy(cv2.cvtColor(bgr, cv2.COLOR_BGRA2RGB)).permute(2, 0, 1)
    return torch.from_numpy(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)


def _no_rgb(path: Path, head: Header) -> DataError:
    what = f"{path}: {head.kind} with {head.bits} bits a channel, where 8-bit RGB is needed"
    return DataError(f"{what}; save it as 8-bit RGB, without an alpha channel")


def read_ids(path: Path, decoder: str = "ids") -> np.ndarray:
    """(H, W) uint8 ids of a label file, by one of the DECODERS. DataError, naming the file, if it is another kind."""
    content, head = _open(path)
    return DECODERS[decoder](path, content, head)


def _plain_ids(path: Path, content: bytes, head: Header) -> np.ndarray:
    """Grey values of a greyscale PNG, indices of a palette PNG."""
    # Greyscale of 1, 2 or 4 bits is refused with the rest: Pillow would stretch its ids to 0..255. So is JPEG: it keeps
    # no id exactly.
    if head.kind != "palette" and (head.bits, head.kind) != (8, "greyscale"):
        what = f"{path}: {head.kind} with {head.bits} bits a channel, where a label is a PNG of ids, 8-bit greyscale"
        raise DataError(f"{what} or palette; use the data set's id files, not its colour pictures")
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return np.array(picture, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: damaged, it cannot be decoded ({error}); copy or download it again") from None


def _first_channel(path: Path, content: bytes, head: Header) -> np.ndarray:
    """Red of a 16-bit RGB PNG, as in SYNTHIA, where green tells one object from the next."""
    if (head.bits, head.kind) != (16, "RGB"):
        what = f"{path}: {head.kind} with {head.bits} bits a channel, where ids are the first of three 16-bit channels"
        raise DataError(f"{what}; use the data set's own label files")
    bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if bgr is None:
        raise DataError(f"{path}: damaged, it cannot be decoded; copy or download it again")
    ids = bgr[..., 2]
    if (highest := int(ids.max())) > 255:
        raise DataError(f"{path}: {highest} in its first channel is no id; use the data set's own label files")
    return ids.astype(np.uint8)


DECODERS: dict[str, Callable[[Path, bytes, Header], np.ndarray]] = {
    "ids": _plain_ids,
    "first channel": _first_channel,
}
"""How the ids of a label file are read; a row of data/rows.py names another than the first where it is needed."""
