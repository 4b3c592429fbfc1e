"""Image and label files: decoding them, and refusing what is not what it should be, with the way out.

Decoders are lenient: a cut-off JPEG comes back grey below the cut, 16 bits become 8, an alpha channel vanishes. Here
the header is read first (a few bytes, no decoding), so that all of it is said before anything is decoded.

An image is an 8-bit RGB PNG or JPEG, or an RGBA PNG that is opaque everywhere; pixels are taken as stored, without
turning them by the camera's orientation tag, since labels are not turned either. A label is an 8-bit greyscale PNG, or
a palette PNG whose indices are the ids, or what another of the DECODERS reads. Files may be in zip archives
(data/files/archives.py).
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

from segda.data.files.archives import read_bytes
from segda.data.labels.labellings import CAMVID_COLOURS, LABELLINGS
from segda.data.labels.polygons import Polygons
from segda.errors import DataError, ImageError

MEGAPIXELS = 80
"""Larger pictures are refused: a few kilobytes of PNG can unpack to any size."""

PNG_KINDS = {0: "greyscale", 2: "RGB", 3: "palette", 4: "greyscale with alpha", 6: "RGBA"}
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PNG_FAULTS = {b"IHDR": "a second header", b"acTL": "several pictures (an animation)"}
SPARE = 1 << 16
"""Bytes that the data of a PNG may be longer than twice its pixels: it unpacks to a thousand times as much."""

SCANS = 64
"""A progressive JPEG of more is refused: each goes over all pixels, and can be a few bytes. Usual ones have 10."""

JPEG_KINDS = {1: "greyscale JPEG", 3: "RGB", 4: "CMYK"}
JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the markers that carry the frame's size
JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}  # the markers without a length


@dataclass(frozen=True)
class Header:
    """What a file says of itself: its size, bits per channel, kind of pixels, whether its end is there, and why it is
    not to be decoded though it is whole.
    """

    height: int
    width: int
    bits: int
    kind: str
    whole: bool
    fault: str = ""


def header(content: bytes) -> Header | None:
    """The header of a PNG or JPEG; None for anything else."""
    if content.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR") and len(content) >= 33:
        return _png_header(content)
    if content.startswith(b"\xff\xd8"):
        return _jpeg_header(content)
    return None


def _png_header(content: bytes) -> Header:
    width, height, bits, colour = struct.unpack_from(">IIBB", content, 16)
    at, whole, fault, packed = 33, False, "", 0
    while at + 12 <= len(content):  # length, name, ..., checksum
        length, name = struct.unpack_from(">I4s", content, at)
        at += 12 + length
        packed += length * (name == b"IDAT")
        fault = PNG_FAULTS.get(name, fault)
        if name == b"IEND":
            whole = True
            break
    if packed > 2 * height * (1 + width * bits * PNG_CHANNELS.get(colour, 1) // 8) + SPARE:
        fault = "more data than its pixels need"
    return Header(height, width, bits, PNG_KINDS.get(colour, f"colour type {colour}"), whole, fault)


def _damaged_chunk(content: bytes) -> str:
    """Of a PNG that is whole: what has another checksum than it says, of what pixels are made of; else nothing.

    Pillow does not look at those of the pixels.
    """
    at = 8
    while content.startswith(b"\x89PNG") and at + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        end = at + 8 + length
        needed = not name[0] & 0x20
        if needed and zlib.crc32(memoryview(content)[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return name.decode("latin-1")
        if name == b"IEND":
            break
        at = end + 4
    return ""


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
            scans = content.count(b"\xff\xda", at)
            fault = f"{scans} scans, more than {SCANS}" if scans > SCANS else ""
            return None if frame is None else Header(*frame, whole, fault)
        else:
            if marker in JPEG_SIZES and at + 10 <= len(content):
                bits, height, width, channels = struct.unpack_from(">BHHB", content, at + 4)
                frame = height, width, bits, JPEG_KINDS.get(channels, f"{channels}-channel")
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None if frame is None else Header(*frame, whole=False)


def content_of(path: Path) -> bytes:
    """The file's bytes; ImageError if it is missing or empty, or cannot be read."""
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file; restore it from the data set's download", path) from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check its permissions", path) from None
    if not content:
        raise ImageError(f"{path}: the file is empty (0 bytes); copy or download it again", path)
    return content


def picture_of(path: Path) -> tuple[bytes, Header]:
    """The bytes and header of a PNG or JPEG; ImageError if it is missing, empty, cut off, none of them or too large."""
    content = content_of(path)
    head = header(content)
    if head is None:
        raise ImageError(f"{path}: neither a PNG nor a JPEG, or damaged at its start; copy or download it again", path)
    if not head.whole:
        raise ImageError(f"{path}: cut off after {len(content)} bytes; copy or download it again", path)
    check_size(path, head.width, head.height)
    if name := _damaged_chunk(content):
        why = f"its {name} does not have its checksum"
        raise ImageError(f"{path}: damaged, it cannot be decoded ({why}); copy or download it again", path)
    if head.fault:
        raise ImageError(f"{path}: has {head.fault}; save the picture again, as one picture", path)
    return content, head


def check_size(path: Path, width: int, height: int) -> None:
    """ImageError for a picture that is too large, or has no pixels."""
    if height * width > MEGAPIXELS * 1_000_000:
        size = f"{width}x{height}"
        raise ImageError(f"{path}: {size} is more than {MEGAPIXELS} megapixels; cut the picture into tiles", path)
    if not height or not width:
        raise ImageError(f"{path}: has no pixels ({width}x{height}); replace it", path)


def read_image(path: Path) -> Tensor:
    """(3, H, W) uint8 RGB, a view of (H, W, 3) memory. DataError, naming the file, unless it is 8-bit RGB.

    An alpha channel that says nothing (opaque everywhere) is left out.
    """
    content, head = picture_of(path)
    if head.bits != 8 or head.kind not in ("RGB", "RGBA"):
        raise _no_rgb(path, head)
    how = cv2.IMREAD_UNCHANGED if head.kind == "RGBA" else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    bgr = cv2.imdecode(np.frombuffer(content, np.uint8), how)
    if bgr is None:
        raise ImageError(f"{path}: damaged, it cannot be decoded; copy or download it again", path)
    if head.kind == "RGBA":
        if bgr[..., 3].min() < 255:
            raise _no_rgb(path, head)
        return torch.from_numpy(cv2.cvtColor(bgr, cv2.COLOR_BGRA2RGB)).permute(2, 0, 1)
    return torch.from_numpy(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)


def _no_rgb(path: Path, head: Header) -> DataError:
    what = f"{path}: {head.kind} with {head.bits} bits a channel, where 8-bit RGB is needed"
    return DataError(f"{what}; save it as 8-bit RGB, without an alpha channel")


def read_ids(path: Path, decoder: str | Decoder = "ids") -> np.ndarray:
    """(H, W) uint8 ids of a label file, by one of the DECODERS. DataError, naming the file, if it is another kind."""
    return (DECODERS[decoder] if isinstance(decoder, str) else decoder)(path)


def _plain_ids(path: Path) -> np.ndarray:
    """Grey values of a greyscale PNG, indices of a palette PNG."""
    content, head = picture_of(path)
    # Greyscale of 1, 2 or 4 bits is refused with the rest: Pillow would stretch its ids to 0..255. So is JPEG: it keeps
    # no id exactly.
    if head.kind != "palette" and (head.bits, head.kind) != (8, "greyscale"):
        what = f"{path}: {head.kind} with {head.bits} bits a channel, where a label is a PNG of ids, 8-bit greyscale"
        raise DataError(f"{what} or palette; use the data set's id files, not its colour pictures")
    try:
        # The formats are named, since Pillow would try its many others on what is no whole PNG.
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            return np.array(picture, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, zlib.error, struct.error) as error:
        raise ImageError(f"{path}: damaged, it cannot be decoded ({error}); copy or download it again", path) from None


def _first_channel(path: Path) -> np.ndarray:
    """Red of a 16-bit RGB PNG, as in SYNTHIA, where green tells one object from the next."""
    ids = _as_stored(path, (16, "RGB"), "ids are the first of three 16-bit channels")[..., 2]
    if (highest := int(ids.max())) > 255:
        raise DataError(f"{path}: {highest} in its first channel is no id; use the data set's own label files")
    return ids.astype(np.uint8)


def _red_channel(path: Path) -> np.ndarray:
    """Red of an 8-bit RGB or RGBA PNG, as the simulator CARLA writes it, or a plain PNG of ids."""
    _, head = picture_of(path)
    if head.kind in ("greyscale", "palette"):
        return _plain_ids(path)
    return _as_stored(path, (8, "RGB"), "ids are the red of 8-bit RGB", (8, "RGBA"))[..., 2].copy()


def _instances(path: Path) -> np.ndarray:
    """Ids from Cityscapes' numbers of objects, 16 bits: 26003 is the third car, 7 is road."""
    numbers = _as_stored(path, (16, "greyscale"), "numbers of objects are 16-bit greyscale")
    ids = np.where(numbers < 1000, numbers, numbers // 1000)
    if (highest := int(ids.max())) > 255:
        raise DataError(f"{path}: {highest} is no id, nor the first digits of one; use the data set's own files")
    return ids.astype(np.uint8)


def read_disparity(path: Path) -> np.ndarray:
    """(H, W) uint16 of a 16-bit greyscale PNG. DataError, naming the file, for any other."""
    content, head = picture_of(path)
    if (head.bits, head.kind) != (16, "greyscale"):
        raise DataError(f"{path}: {head.kind} with {head.bits} bits a channel; disparities are 16-bit greyscale PNGs")
    return _decoded(path, content)


def _as_stored(path: Path, wanted: tuple[int, str], where: str, other: tuple[int, str] | None = None) -> np.ndarray:
    """Pixels of a PNG of a kind (bits, name), (H, W) or (H, W, BGR or BGRA)."""
    content, head = picture_of(path)
    if (head.bits, head.kind) not in (wanted, other):
        what = f"{path}: {head.kind} with {head.bits} bits a channel, where {where}"
        raise DataError(f"{what}; use the data set's own label files")
    return _decoded(path, content)


def _decoded(path: Path, content: bytes) -> np.ndarray:
    """A PNG's pixels as they are stored."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ImageError(f"{path}: damaged, it cannot be decoded; copy or download it again", path)
    return pixels


@dataclass(frozen=True)
class Colours:
    """Decoder of labels that are RGB pictures: known is (colour, id) of each; IGNORE may be an id."""

    known: tuple[tuple[tuple[int, int, int], int], ...]

    def __call__(self, path: Path) -> np.ndarray:
        """(H, W) uint8 ids. DataError with the first colour that is none of them, and the nearest: a JPEG or a picture
        that has been resized has colours in between.
        """
        rgb = read_image(path).numpy().astype(np.int32)
        code = (rgb[0] << 16) | (rgb[1] << 8) | rgb[2]
        codes = np.array([(r << 16) | (g << 8) | b for (r, g, b), _ in self.known])
        order = codes.argsort()
        at = np.minimum(np.searchsorted(codes[order], code), len(codes) - 1)
        if (unknown := codes[order][at] != code).any():
            first = rgb[:, unknown][:, 0]
            pixels = f"{int(unknown.sum())} pixels of colours"
            raise DataError(
                f"{path} has {pixels} that no class has, first {tuple(first.tolist())}; use the data set's own label "
                "files, never resized or saved as JPEG, or give the colour to a class"
            )
        return np.array([id for _, id in self.known], np.uint8)[order][at]


Decoder = Callable[[Path], np.ndarray]

DECODERS: dict[str, Decoder] = {
    "ids": _plain_ids,
    "first channel": _first_channel,
    "red channel": _red_channel,
    "instances": _instances,
    "colours of CamVid": Colours(tuple((colour, id) for id, colour in enumerate(CAMVID_COLOURS.values()))),
    "polygons of Cityscapes": Polygons(
        (("unlabeled", 0), *((name, id) for id, name in LABELLINGS["cityscapes"].items())), 0, ("license plate",)
    ),
    "polygons of IDD": Polygons(tuple((name, id) for id, name in LABELLINGS["idd"].items()), 35),
}
"""How the ids of a label file are read; a row of data/rows names another than the first where it is needed."""
