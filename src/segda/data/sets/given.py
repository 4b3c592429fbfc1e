"""Images to predict: files, folders of them, or those of a data set; no label is looked for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from segda.data.files.photos import SUFFIXES, facts_of, read_photo, way_from
from segda.data.sets.dataset import DataSet
from segda.data.sets.files import check_shown
from segda.data.sets.labelled import open_once
from segda.errors import DataError
from segda.scene import Scene


@dataclass(frozen=True)
class Given:
    """An image to predict: its name without suffix, what to call it in a message, and how to read it.

    path: its file; None for a drawn one. below: its folder from the one that was given on.
    """

    stem: str
    where: str
    path: Path | None
    read: Callable[[], Tensor]
    below: str = ""


@dataclass(frozen=True)
class GivenImages:
    """Images to predict, read as those of a data set are."""

    images: Sequence[Given]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, i: int, label: bool = False) -> Scene:
        assert not label
        return Scene(self.images[i].read())


def images_of(inputs: Sequence[Path], out: Path | None = None) -> list[Given]:
    """Files, and the images of folders and their subfolders, each once. out: a folder that is left out."""
    found: dict[Path, str] = {}
    for given in inputs:
        for path, below in _images(Path(given), out):
            found.setdefault(path, below)
    for path, below in found.items():
        check_shown(f"{below}{path.stem}", str(path))
    return [Given(path.stem, str(path), path, partial(read_photo, path), below) for path, below in found.items()]


def grey_images(images: Sequence[Given]) -> dict[str, int]:
    """Kind of greyscale -> how many of the files are of it."""
    files = (image.path for image in images if image.path is not None)
    return dict(Counter(kind for path in files if (kind := facts_of(path).grey)))


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


def _images(given: Path, out: Path | None) -> list[tuple[Path, str]]:
    """The file itself, or the images of a folder and of those in it by their paths (hidden ones are left out), each
    with its folder from there on.
    """
    kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
    if given.is_dir():
        found = sorted(_walked(given, None if out is None else out.resolve()))
        if not found:
            raise DataError(f"{given}: no images in this folder ({kinds}); give files or another folder")
        return [(path, path.relative_to(given).parent.as_posix()) for path in found]
    if not given.exists():
        raise DataError(f"{given}: no such file or folder; give images ({kinds}) or folders of them")
    if given.suffix.lower() not in SUFFIXES:
        raise DataError(f"{given}: not a kind of image that can be read{way_from([given.name])}; use one of {kinds}")
    return [(given, "")]


def _walked(folder: Path, out: Path | None) -> list[Path]:
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(place, name).resolve() != out]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    # A link that leads nowhere is an image that is missing.
    there = (path for path in found if path.is_file() or (path.is_symlink() and not path.exists()))
    return [path for path in there if path.suffix.lower() in SUFFIXES]
