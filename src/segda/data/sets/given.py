"""Images to predict: files, folders of them, or those of a data set; no label is looked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segda.data.files.images import MEGAPIXELS, read_image
from segda.data.sets.dataset import DataSet
from segda.data.sets.files import check_shown
from segda.data.sets.labelled import open_once
from segda.errors import DataError
from segda.ground.paths import regular
from segda.scene import Scene

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


@dataclass(frozen=True)
class Given:
    """An image to predict: its name without suffix, what to call it in a message, and how to read it.

    path: its file; None for a drawn one.
    """

    stem: str
    where: str
    path: Path | None
    read: Callable[[], Tensor]


@dataclass(frozen=True)
class GivenImages:
    """Images to predict, read as those of a data set are."""

    images: Sequence[Given]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, i: int, label: bool = False) -> Scene:
        assert not label
        return Scene(self.images[i].read())


def images_of(inputs: Sequence[Path]) -> list[Given]:
    """Files, and the images of folders, each once."""
    paths = dict.fromkeys(image for given in inputs for image in _images(Path(given)))
    for path in paths:
        check_shown(path.stem, str(path))
    return [Given(path.stem, str(path), path, partial(read_any, path)) for path in paths]


def images_in(data: str, root: Path) -> list[Given]:
    """The images of a data set, in its order; its labels are not looked for."""
    dataset = open_once(data, root)
    found = []
    for part in dataset.parts:
        for i, name in enumerate(part.names):
            path = part.image_path(i)
            where = f"{part.spec} {name}" if path is None else str(path)
            found.append(Given(name, where, path, partial(_image, part, i)))
    return found


def _image(dataset: DataSet, i: int) -> Tensor:
    return dataset.read(i).image


def _images(given: Path) -> list[Path]:
    """The file itself, or a folder's images by name (its subfolders and hidden files are left out)."""
    kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
    if given.is_dir():
        found = sorted(
            path
            for path in given.iterdir()
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
        if not found:
            raise DataError(f"{given}: no images in this folder ({kinds}); give files or another folder")
        return found
    if not given.exists():
        raise DataError(f"{given}: no such file or folder; give images ({kinds}) or folders of them")
    if given.suffix.lower() not in SUFFIXES:
        raise DataError(f"{given}: not a kind of image that can be read; use one of {kinds}")
    return [given]


def read_any(path: Path) -> Tensor:
    """(3, H, W) uint8 RGB of a PNG, JPEG, BMP or WebP; DataError for all but whole 8-bit RGB."""
    if path.suffix.lower() not in (".bmp", ".webp"):
        return read_image(path)
    try:
        # Pillow's own limit is a warning first; ours is said below.
        ours = warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)
        with ours, Image.open(regular(path), formats=["BMP", "WEBP"]) as picture:
            if picture.height * picture.width > MEGAPIXELS * 1_000_000:
                size = f"{picture.width}x{picture.height}"
                raise DataError(f"{path}: {size} is more than {MEGAPIXELS} megapixels; cut the picture into tiles")
            if picture.mode != "RGB":
                raise DataError(f"{path}: pixels of kind {picture.mode}, where 8-bit RGB is needed; save it as RGB")
            return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())}); copy or save it again") from error
