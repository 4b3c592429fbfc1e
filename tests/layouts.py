"""Small data sets on disk, in the layout of each row of DATASETS, and files that no reader should accept."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segda.data.datasets import DATASETS, DataSet
from segda.data.labellings import LABELLINGS
from segda.errors import DataError
from segda.scene import IGNORE

STARS = {
    "cityscapes-foggy": "{condition}",
    "cityscapes-rain": "alpha_{condition}_beta_0.005_dropsize_0.01_pattern_1",
}
"""What stands for `*` in the names of a row's images."""

SIZE = (6, 9)
LAYOUTS = [
    (name, template, labelling)
    for name, row in DATASETS.items()
    if row.images
    for variant in row.variants()
    for template, labelling in variant.labels
]


def save(path: Path, pixels: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if palette:
        picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    picture.save(path)


def sixteen_bits(ids: np.ndarray) -> bytes:
    """A PNG as in SYNTHIA: red holds the ids, green counts objects. Written by hand: Pillow has no such kind."""
    channels = np.zeros((*ids.shape, 3), ">u2")
    channels[..., 0], channels[..., 1] = ids, 700 + np.arange(ids.shape[1])
    return png(*ids.shape[::-1], 16, rows=b"".join(b"\0" + row.tobytes() for row in channels))


def write_row(folder: Path, name: str, template: str, labelling: str) -> dict[tuple[str, str | None], dict]:
    """Two images a split and condition, with labels; (split, condition) -> stem -> (pixels, ids) as drawn.

    The images lie in the layout that the label's template is of.
    """
    row = next(one for one in DATASETS[name].variants() if (template, labelling) in one.labels)
    written: dict[tuple[str, str | None], dict] = {}
    ids = np.array([*LABELLINGS[labelling], IGNORE])
    for split in row.splits:
        for condition in (*row.conditions,) or (None,):
            for k in range(2):
                image, star = row.images[0], STARS.get(name, "").format(condition=condition)
                key = f"scene_{k}"
                if "{condition}" in image:
                    key = f"{condition}_{k}"
                elif condition is not None and "*" not in image:
                    key = row.conditions[condition][0].replace("*", f"_{k}")
                fields = {"split": row.split_folders.get(split, split), "city": "town", "key": key}
                fields |= {"condition": condition, "sequence": f"GOPR{k}"}
                path = image.format(**fields).replace("*", star)
                rng = np.random.default_rng(zlib.crc32(path.encode()))
                pixels = rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
                # Of the label's own path: several images may share it.
                label_path = template.format(**fields)
                label = np.random.default_rng(zlib.crc32(label_path.encode())).choice(ids, SIZE).astype(np.uint8)
                save(folder / path, pixels)
                if path.endswith(".jpg"):  # what is read back is what its own decoder makes of it
                    pixels = cv2.imread(str(folder / path))[..., ::-1]
                if template in row.decoders:
                    (folder / label_path).parent.mkdir(parents=True, exist_ok=True)
                    (folder / label_path).write_bytes(sixteen_bits(label))
                else:
                    save(folder / label_path, label, palette=k == 1)
                written.setdefault((split, condition), {})[Path(path).stem] = pixels, label
    return written


def refused(data: DataSet, path: Path, i: int = 0) -> str:
    """The message of the DataError that reading scene i raises; one line that names the file."""
    with pytest.raises(DataError) as caught:
        data.read(i, label=True)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and "; " in message
    return message


def encoded(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind) if mode else Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def png(width: int, height: int, bits: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    """A PNG written by hand: its header and `rows` as its pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")


NOISE = np.random.default_rng(5).integers(0, 256, (48, 64, 3)).astype(np.uint8)
