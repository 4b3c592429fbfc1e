"""Photographs as people have them: any usual kind of file, turned as viewers turn them, in grey too.

Public data sets are what their pages say, and images.py refuses anything else in them. Of somebody's own files much is
right: PNG, JPEG, WebP, TIFF and BMP; greyscale, repeated to three channels; infrared and thermal images of 16 bits and
more, of which the 1st percentile becomes 0 and the 99th 255, image by image, since cameras use a small part of their
range. The camera's orientation tag is obeyed: the label of such an image was drawn in a viewer that obeys it.

What is refused: palettes, and black and white, which are labels as a rule; transparency; RGB of 16 bits; several
pictures in one file.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segda.data.files.images import check_size, content_of, header, picture_of
from segda.errors import DataError, ImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
"""What names of photographs end with, in whatever case."""

WAYS = (
    ((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz"), "unpack it"),
    ((".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg"), "take pictures of it, as ffmpeg -i FILE %06d.png does"),
    ((".heic", ".heif", ".avif", ".dng", ".cr2", ".nef", ".arw", ".jp2"), "save it as JPEG or PNG"),
    ((".txt",), "YOLO's polygons are not read: export COCO or PNG masks"),
)
"""What names of other files end with, and the way from them to what is read."""

KINDS = "PNG, JPEG, WebP, TIFF or BMP"
OTHERS = ("WEBP", "TIFF", "BMP")
"""Of Pillow's formats, those that are read besides PNG and JPEG."""

ORIENTATION = 0x0112
"""The tag that says how a camera was held: 1 upright, 6 and 8 turned by a quarter, 3 upside down."""

PERCENTILES = (1, 99)
"""Of an image of more than 8 bits, what becomes black and white."""

GREY = {"L": "greyscale", "I;16": "16-bit greyscale", "I;16B": "16-bit greyscale", "I": "32-bit greyscale",
        "F": "greyscale of fractions", "LA": "greyscale"}  # fmt: skip
"""Pillow's modes of one channel, but for alpha."""

DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, OverflowError, EOFError, zlib.error, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises where a file is not whole."""


def way_from(names: Sequence[str]) -> str:
    """The way from files of another kind to what is read, behind a colon; "" where none is known."""
    endings = {PurePosixPath(name).suffix.lower() for name in names}
    return next((f": {way}" for kinds, way in WAYS if endings & {*kinds}), "")


@dataclass(frozen=True)
class Facts:
    """What a photograph's file says of itself.

    size: (height, width) as stored, before it is turned. grey: what kind of greyscale it is, "" where it is none.
    """

    size: tuple[int, int]
    orientation: int
    grey: str

    def shown(self, turned: bool) -> tuple[int, int]:
        """(height, width) of the image as it is read."""
        return self.size[::-1] if turned and self.orientation >= 5 else self.size


def facts_of(path: Path) -> Facts:
    """From the header alone. ImageError where it is damaged, DataError where it is no photograph."""
    content, picture = _pillow(path)
    with picture:
        orientation = _orientation(content, picture)
        width, height = picture.size
        if picture.format == "TIFF" and orientation >= 5:
            width, height = height, width  # Pillow turns these itself
        return Facts((height, width), orientation, _grey(path, content, picture))


def read_photo(path: Path, turned: bool = True) -> Tensor:
    """(3, H, W) uint8 RGB, a view of (H, W, 3) memory; turned: as its orientation tag says.

    ImageError for a file that is missing or damaged, DataError for one of another kind.
    """
    content = content_of(path)
    head = header(content)
    if head is not None and (head.bits, head.kind) == (8, "RGB"):
        picture_of(path)
        bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if bgr is None:
            raise _damaged(path)
        pixels, orientation = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), _tag(content)
    else:
        pixels, orientation = _decoded(path)
    if turned:
        pixels = _turned(pixels, orientation)
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def _pillow(path: Path) -> tuple[bytes, Image.Image]:
    """A file's bytes, and the picture in it before it is decoded."""
    content = content_of(path)
    if header(content) is not None:
        picture_of(path)
        formats: tuple[str, ...] = ("PNG", "JPEG")
    else:
        formats = OTHERS
    try:
        # Pillow's own limit is a warning first; ours is said below.
        with warnings.catch_warnings(action="ignore"):
            picture = Image.open(io.BytesIO(content), formats=formats)
            pictures = getattr(picture, "n_frames", 1)
    except Image.UnidentifiedImageError:
        raise ImageError(f"{path}: neither {KINDS}, or damaged at its start; copy or download it again", path) from None
    except DAMAGED as error:
        raise _damaged(path, error) from None
    check_size(path, *picture.size)
    if pictures > 1:
        raise DataError(f"{path}: holds {pictures} pictures; save each in a file of its own")
    return content, picture


def _decoded(path: Path) -> tuple[np.ndarray, int]:
    """(H, W, 3) uint8 as stored, and the orientation tag."""
    content, picture = _pillow(path)
    with picture:
        grey, orientation = _grey(path, content, picture), _orientation(content, picture)
        tiff = picture.format == "TIFF"
        try:
            with warnings.catch_warnings(action="ignore"):
                pixels = np.array(picture)
        except DAMAGED as error:
            raise _damaged(path, error) from None
    if picture.mode in ("RGBA", "LA"):
        if pixels[..., -1].min() < 255:
            raise DataError(f"{path}: parts of it are transparent; save it without an alpha channel")
        pixels = pixels[..., 0] if picture.mode == "LA" else pixels[..., :3]
    if tiff:
        pixels = _turned_back(pixels, orientation)  # Pillow has turned it
    if grey:
        pixels = np.repeat(_eight_bits(path, pixels)[..., None], 3, axis=2)
    return pixels, orientation


def _grey(path: Path, content: bytes, picture: Image.Image) -> str:
    """What kind of greyscale a picture is; DataError where it is neither greyscale nor RGB."""
    head, mode = header(content), picture.mode
    bits = 8 if head is None else head.bits
    if mode == "I" and head is not None:
        mode = "I;16"  # as older versions of Pillow call it
    if mode in ("P", "PA", "1") or bits < 8:
        what = "a palette picture" if mode in ("P", "PA") else "black and white"
        raise DataError(
            f"{path}: is {what}, as labels are; leave it out of the images (a path with {{key}} says which they are), "
            "or save it as RGB if it is a photograph"
        )
    if mode in GREY and (mode != "LA" or bits == 8):
        return GREY[mode]
    if mode in ("RGB", "RGBA") and bits == 8:
        return ""
    raise DataError(
        f"{path}: {mode} with {bits} bits a channel, where an image is RGB of 8 bits or greyscale; save it so"
    )


def _eight_bits(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Of one channel: 8 bits as they are, others stretched between their PERCENTILES; all one value becomes 0."""
    if pixels.dtype == np.uint8:
        return pixels
    if not np.isfinite(pixels).all():
        raise DataError(f"{path}: has values that are no numbers (NaN or infinite); replace them")
    low, high = np.percentile(pixels, PERCENTILES)
    if high <= low:
        low, high = float(pixels.min()), float(pixels.max())
    scaled = (pixels - low) / ((high - low) or 1.0)
    return (scaled.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _tag(content: bytes) -> int:
    """The orientation tag of a PNG or JPEG; 1 where it has none, or one that says nothing."""
    if b"Exif\0\0" not in content and b"eXIf" not in content:
        return 1
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
            return _orientation(content, picture)
    except DAMAGED:
        return 1


def _orientation(content: bytes, picture: Image.Image) -> int:
    try:
        with warnings.catch_warnings(action="ignore"):
            tag = picture.getexif().get(ORIENTATION, 1)
    except DAMAGED:  # the pixels are whole, what the camera wrote of them is not
        return 1
    return tag if tag in range(1, 9) else 1


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, ...) as stored -> as it is shown."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _turned_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, ...) as it is shown -> as stored: a quarter turn is undone by the other."""
    return _turned(pixels, {6: 8, 8: 6}.get(orientation, orientation))


def _damaged(path: Path, error: Exception | None = None) -> ImageError:
    why = f" ({' '.join(str(error).split())})" if error is not None else ""
    return ImageError(f"{path}: damaged, it cannot be decoded{why}; copy or download it again", path)
