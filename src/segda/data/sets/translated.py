"""A data set whose images another folder shows in another style: as `segda translate` writes them, or other code.

An image of the folder has the path that its original has in its data set (`images/00001.png` of gta5), or the end of
that path, down to the file's name alone: so a folder of images that were translated elsewhere will do. The originals
must be there, too. They tell which images there are, and their labels are the labels. An image may be smaller than its
original (translators are trained on small ones), but shows all of it: when it is read, it is brought to the original's
size, by Pillow's bicubic kernel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from segda.data.files.archives import state
from segda.data.files.images import read_image
from segda.data.labels.spaces import Space
from segda.data.sets.dataset import DataSet, Part, train_ids
from segda.data.sets.unions import Union
from segda.data.stream.augment import resize, same_shape, size_of
from segda.errors import DataError, few
from segda.scene import Scene

SUFFIXES = (".png", ".jpg", ".jpeg")
"""Endings that a translated image keeps; that of one of any other format is .png."""


def translated_data(data: DataSet, folder: Path, but: str | None = None) -> DataSet:
    """The data set with its images from `folder`, where each must be; opens no image. DataError names those that are
    missing.

    but: the spec of a part that keeps its images.
    """
    painted = [part for part in data.parts if part.spec != but]
    if not painted:
        raise DataError(
            f"{folder}: {data.spec} has labels of a network, and then it keeps its images; leave out data.source.images"
        )
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder of translated images of {data.spec}; make it with segda translate RUN --data "
            f"{data.spec} --out {folder}"
        )
    names = [image_names(part) for part in painted]
    identities = chain.from_iterable(part.identities() for part in painted)
    originals = dict(zip(identities, chain.from_iterable(names), strict=True))
    if twice := [name for name, count in Counter(originals.values()).items() if count > 1]:
        raise DataError(
            f"{folder}: {few(twice)} of it would be the translation of two images of {data.spec}; name one data set "
            "alone, or give its YAML file a root: further up"
        )
    found = _nearest(folder, names)
    if missing := [name for of_one in found for name in of_one if not (folder / name).is_file()]:
        count, specs = sum(map(len, painted)), "+".join(part.spec for part in painted)
        way_out = "translate the rest too (segda translate goes on where it stopped), or give another folder"
        if other := _otherwise(folder, missing[0]):
            way_out = f"{other} is there, but an image must have its original's name, with its ending"
        raise DataError(
            f"{folder}: {len(missing)} of the {count} images of {specs} are missing: {few(missing)}; {way_out}"
        )
    files = {part.spec: tuple(of_one) for part, of_one in zip(painted, found, strict=True)}
    parts = tuple(Translated(part, folder, files[part.spec]) if part.spec in files else part for part in data.parts)
    return replace(data, parts=parts) if isinstance(data, Union) else parts[0]


def image_names(part: Part) -> list[str]:
    """The path of each image's translation below the folder. DataError for one that would lie outside of it."""
    names = []
    for _, name in part.identities():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise DataError(
                f"{part.spec}: {name} is not below the folder in which the paths of the YAML file begin, and so has no "
                "place among translated images; give a root: that holds all images"
            )
        names.append(str(path if path.suffix.lower() in SUFFIXES else path.with_name(f"{path.name}.png")))
    return names


def _nearest(folder: Path, names: Sequence[Sequence[str]]) -> list[list[str]]:
    """The paths of the images, or their ends: the longest that one of them has in the folder. Ends that two images
    share are none.
    """
    whole = [list(of_one) for of_one in names]
    for depth in range(max(len(PurePosixPath(name).parts) for of_one in names for name in of_one)):
        ends = [[str(PurePosixPath(*PurePosixPath(name).parts[depth:])) for name in of_one] for of_one in names]
        every = [end for of_one in ends for end in of_one]
        if len(set(every)) < len(every):
            break
        if any((folder / end).is_file() for end in every):
            return ends
    return whole


def _otherwise(folder: Path, name: str) -> PurePosixPath | None:
    """An image of the folder that would be the one of this path, or of an end of it, but for its ending."""
    parts = PurePosixPath(name).parts
    ends = (PurePosixPath(*parts[depth:]) for depth in range(len(parts)))
    others = (end.with_suffix(suffix) for end in ends for suffix in SUFFIXES)
    return next((other for other in others if (folder / other).is_file()), None)


@dataclass(frozen=True)
class Translated:
    """A data set that is one, with the images of a folder; all else is the original's.

    files: the path of each image in the folder.
    """

    original: Part
    folder: Path
    files: tuple[str, ...]

    @property
    def spec(self) -> str:
        return self.original.spec

    @property
    def space(self) -> Space:
        return self.original.space

    @property
    def names(self) -> tuple[str, ...]:
        return self.original.names

    @property
    def parts(self) -> tuple[Translated, ...]:
        return (self,)

    @property
    def shares(self) -> tuple[float, ...] | None:
        return self.original.shares

    def __len__(self) -> int:
        return len(self.original)

    def at(self, i: int) -> tuple[Translated, int]:
        return self, i

    # Images

    def image_path(self, i: int) -> Path:
        return self.folder / self.files[i]

    def place(self, i: int) -> str:
        return str(self.image_path(i))

    def image_mark(self, i: int) -> str:
        size, mark = state(self.image_path(i))
        return f"{size} {mark}"

    def size(self, i: int) -> tuple[int, int]:
        return self.original.size(i)

    def read(self, i: int, label: bool = False) -> Scene:
        scene, size = Scene(read_image(self.image_path(i)), names=(self.names[i],)), self.size(i)
        if not same_shape(size_of(scene), size):
            (height, width), (tall, wide) = size_of(scene), size
            raise DataError(
                f"{self.spec}: {self.image_path(i)} is {width}x{height}, its original {self.original.place(i)} is "
                f"{wide}x{tall}: not the same picture at another scale; translate whole images"
            )
        scene = resize(scene, (size[1], size[0]), "stretch", "bicubic")
        if not label:
            return scene
        known = train_ids(self.original, i)
        if known.shape != size:
            raise DataError(f"{self.spec}: {self.differ(i, known.shape, size)}; use the labels of these images")
        return scene.replace(label=torch.from_numpy(known))

    # Labels: the original's

    def labelled(self, i: int) -> bool:
        return self.original.labelled(i)

    def label_ids(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self.original.label_ids(i)

    def masked(self, i: int) -> bool:
        return self.original.masked(i)

    def invalid(self, i: int) -> np.ndarray:
        return self.original.invalid(i)

    def label_place(self, i: int) -> str:
        return self.original.label_place(i)

    def label_marks(self) -> Iterator[str]:
        return self.original.label_marks()

    def labels_without_image(self) -> list[Path]:
        return self.original.labels_without_image()

    def check_pairs(self) -> None:
        self.original.check_pairs()

    def class_counts(self, i: int) -> np.ndarray:
        return self.original.class_counts(i)

    # What is known of it

    @property
    def split(self) -> str:
        return self.original.split

    @property
    def where(self) -> str:
        return str(self.folder)

    @property
    def at_hand(self) -> bool:
        return self.original.at_hand

    @property
    def own_space(self) -> str:
        return self.original.own_space

    @property
    def classes(self) -> set[str]:
        return self.original.classes

    def identities(self) -> Iterator[tuple[str, str]]:
        return ((self.where, name) for name in self.files)

    def called(self, i: int) -> set[str]:
        return self.original.called(i)

    def notes(self, labels: int) -> list[str]:
        return self.original.notes(labels)

    @property
    def promised(self) -> bool:
        return self.original.promised

    def differ(self, i: int, label: tuple[int, ...], image: tuple[int, ...]) -> str:
        return self.original.differ(i, label, image)

    def remarks(self, i: int) -> list[tuple[str, str]]:
        return self.original.remarks(i)

    def reading(self) -> list[str]:
        return [f"{self.spec}: images from {self.folder}", *self.original.reading()]

    def doubts(self) -> list[str]:
        return self.original.doubts()

    def other_names(self) -> list[str]:
        return self.original.other_names()
