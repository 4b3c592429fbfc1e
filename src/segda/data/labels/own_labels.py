"""Labels of somebody's own, decoded: ids or colours, in whatever kind of picture keeps them exactly, or as `.npy`.

A public data set's labels are of one kind, and images.py refuses another. Here ids may be greyscale of 1 to 16 bits,
the indices of a palette, or RGB whose channels are equal; colours may be RGB, RGBA, a palette or grey. Alpha says
nothing; where it blends colours, they are none of the classes'. JPEG keeps no value exactly, and is refused.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segda.data.files.images import check_size, content_of, header, picture_of
from segda.data.files.photos import DAMAGED
from segda.errors import DataError, ImageError
from segda.ground.ignore import IGNORE

PICTURES = (".png", ".tif", ".tiff", ".bmp", ".gif")
"""What names of label pictures end with."""

LOSSY = (".jpg", ".jpeg", ".webp")
"""What names of pictures end with that hardly keep a label."""

HIGHEST = 65535
SOME = 4
"""Values and colours that a message names."""


@dataclass(frozen=True)
class Stored:
    """The pixels of a label file.

    values: (H, W) integers, or (H, W, 3) uint8 colours. palette: (256, 3) uint8 of indices. bits: of one channel.
    """

    values: np.ndarray
    palette: np.ndarray | None = None
    bits: int = 8


def stored(path: Path) -> Stored:
    """What a label file holds. ImageError for a damaged file, DataError for one of a kind that keeps no labels."""
    if path.suffix.lower() == ".npy":
        return Stored(_array(path), bits=16)
    content = content_of(path)
    head = header(content)
    if content.startswith(b"\xff\xd8"):
        raise _lossy(path, "a JPEG")
    if content[8:12] == b"WEBP" and b"VP8L" not in content[12:64]:
        raise _lossy(path, "a lossy WebP")
    if head is not None:
        picture_of(path)
    try:
        with warnings.catch_warnings(action="ignore"):
            picture = Image.open(io.BytesIO(content), formats=("PNG", "TIFF", "BMP", "GIF", "WEBP"))
            check_size(path, *picture.size)
            if getattr(picture, "n_frames", 1) > 1:
                raise DataError(f"{path}: holds several pictures; a label is one")
            values = np.array(picture)
    except Image.UnidentifiedImageError:
        what = "a label is a PNG (or TIFF, BMP), an .npy, or JSON of a tool that docs/DATA.md names"
        raise ImageError(f"{path}: no picture that can be read, or damaged at its start; {what}", path) from None
    except DAMAGED as error:
        if isinstance(error, DataError):
            raise
        why = " ".join(str(error).split())
        raise ImageError(f"{path}: damaged, it cannot be decoded ({why}); copy it again", path) from None
    return _sorted(path, picture, values, 8 if head is None else head.bits)


def _sorted(path: Path, picture: Image.Image, values: np.ndarray, bits: int) -> Stored:
    """Pillow's pixels as what they are."""
    mode = picture.mode
    if mode == "1":
        return Stored(values.astype(np.uint8), bits=1)
    if mode == "P":
        colours = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(colours)] = colours
        return Stored(values, palette)
    if mode == "L":
        return Stored(values // (255 // (2**bits - 1)) if bits < 8 else values, bits=min(bits, 8))
    if mode in ("I;16", "I;16B", "I"):
        return Stored(_whole(path, values), bits=16)
    if mode in ("LA", "RGB", "RGBA") and bits == 8:
        alpha = values[..., -1] if mode != "RGB" else None
        colours = values[..., :1].repeat(3, 2) if mode == "LA" else values[..., :3]
        if alpha is not None and not np.isin(alpha, (0, 255)).all():
            raise DataError(
                f"{path}: its alpha blends colours at edges, which are then none of the classes'; save it without "
                "alpha and without smoothing"
            )
        return Stored(colours)
    raise DataError(f"{path}: {mode} with {bits} bits a channel holds no ids or colours; save it as 8- or 16-bit PNG")


def _array(path: Path) -> np.ndarray:
    try:
        values = np.load(io.BytesIO(content_of(path)), allow_pickle=False)
        assert isinstance(values, np.ndarray)
    except ImageError:
        raise
    except Exception as error:  # every one: of a damaged header numpy lets through whatever Python says
        why = " ".join(str(error).split())
        raise ImageError(f"{path}: no array that numpy can read ({why}); save it again with numpy.save", path) from None
    if values.ndim != 2:
        raise DataError(
            f"{path}: has the shape {values.shape}, where a label is (height, width); save ids, one a pixel"
        )
    check_size(path, values.shape[1], values.shape[0])
    return _whole(path, values)


def _whole(path: Path, values: np.ndarray) -> np.ndarray:
    """Integers from 0 to HIGHEST as uint8 where they fit, else uint16; DataError for anything else."""
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype.kind not in "iuf" or (values.dtype.kind == "f" and not (values == np.round(values)).all()):
        raise DataError(f"{path}: its values are no whole numbers ({values.dtype}); a label has one id a pixel")
    low, high = values.min(), values.max()
    if low < 0 or high > HIGHEST:
        odd = low if low < 0 else high
        way = "write 255 where nothing is labelled" if low < 0 else "number the classes from 0"
        raise DataError(f"{path}: {odd:g} is no id (0 to {HIGHEST}); {way}")
    return values.astype(np.uint8 if high <= 255 else np.uint16)


def _lossy(path: Path, what: str) -> DataError:
    return DataError(
        f"{path}: is {what}, which changes values: at the edges of its areas are ids that nobody wrote; export the "
        "labels again as PNG"
    )


def colours_in(pixels: np.ndarray) -> list[tuple[tuple[int, int, int], int]]:
    """The colours of (H, W, 3) uint8 and how many pixels have each, the most frequent first."""
    code = (pixels[..., 0].astype(np.int64) << 16) | (pixels[..., 1].astype(np.int64) << 8) | pixels[..., 2]
    codes, counts = np.unique(code, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [
        ((int(c) >> 16, int(c) >> 8 & 255, int(c) & 255), int(n))
        for c, n in zip(codes[order], counts[order], strict=True)
    ]


@dataclass(frozen=True)
class OwnIds:
    """Decoder of labels whose values are ids. white: the id of 1 in black and white, 255 or 1."""

    white: int

    def __call__(self, path: Path) -> np.ndarray:
        """(H, W) uint8, or uint16 where an id is above 255."""
        found = stored(path)
        values = found.values
        if values.ndim == 3:
            if not (values == values[..., :1]).all():
                seen = ", ".join(str(list(colour)) for colour, _ in colours_in(values)[:SOME])
                raise DataError(
                    f"{path}: is a picture in colours ({seen}, ...), where labels_are says ids; write labels_are: "
                    "colours in the YAML file, and the colour of each class, as road: {colour: [128, 64, 128]}"
                )
            values = values[..., 0]
        if found.bits == 1:
            return values * np.uint8(self.white)
        return np.ascontiguousarray(values)


@dataclass(frozen=True)
class OwnColours:
    """Decoder of labels that are pictures in the classes' colours. known: (colour, id) of each; IGNORE may be an id."""

    known: tuple[tuple[tuple[int, int, int], int], ...]

    def __call__(self, path: Path) -> np.ndarray:
        """(H, W) uint8 ids. DataError with the colours that are none of them: a picture that has been resized has
        colours in between.
        """
        found = stored(path)
        values = found.values
        if found.palette is not None:
            values = found.palette[values]
        elif found.bits == 16:
            raise DataError(f"{path}: has 16 bits, so values and no colours; write labels_are: ids")
        elif values.ndim == 2:
            scale = 255 // (2**found.bits - 1)
            values = np.repeat((values * scale)[..., None], 3, 2)
        code = (values[..., 0].astype(np.int64) << 16) | (values[..., 1].astype(np.int64) << 8) | values[..., 2]
        codes = np.array([(r << 16) | (g << 8) | b for (r, g, b), _ in self.known])
        order = codes.argsort()
        at = np.minimum(np.searchsorted(codes[order], code), len(codes) - 1)
        if (unknown := codes[order][at] != code).any():
            raise self._unknown(path, values, unknown)
        return np.array([id for _, id in self.known], np.uint8)[order][at]

    def _unknown(self, path: Path, values: np.ndarray, unknown: np.ndarray) -> DataError:
        seen = colours_in(values[unknown][None])
        told = ", ".join(f"{list(colour)} ({count} pixels)" for colour, count in seen[:SOME])
        more = ", ..." if len(seen) > SOME else ""
        if len(seen) > len(self.known) * 4 + SOME:
            way = "so many come of resizing, smoothing or JPEG; export the labels again, exactly as they were drawn"
        elif (values == values[..., :1]).all() and values.max() < 64:
            way = "these look like ids; write labels_are: ids, and the id of each class"
        else:
            listed = ", ".join(str(list(colour)) for colour, _ in seen[:SOME])
            way = f"give each to a class in the YAML file, or write ignored: [{listed}]"
        return DataError(f"{path} has colours that no class has: {told}{more}; {way}")


def white_id(ids: Iterable[int]) -> int:
    """What white stands for in black and white, of the ids that are named."""
    named = set(ids)
    return IGNORE if IGNORE in named and 1 not in named else 1
