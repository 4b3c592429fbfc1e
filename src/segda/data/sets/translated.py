"""A data set whose images another folder shows in another style: as `segda translate` writes them, or other code.

An image of the folder has the path that its original has in its data set (`images/00001.png` of gta5), or the end of
that path, down to the file's name alone: so a folder of images that were translated elsewhere will do. The originals
must be there, too. They tell which images there are, and their labels are the labels. An image may be smaller than its
original (translators are trained on small ones), but shows all of it: when it is read, it is brought to the original's
size, by Pillow's bicubic kernel.

A folder of ours says what it was made of (translation.json), and is taken for these data alone, once it is whole. One
that was made elsewhere says nothing, and its names are all there is to go by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from segda.data.files.archives import state
from segda.data.files.images import read_image
from segda.data.sets.around import Around, with_parts
from segda.data.sets.dataset import DataSet, Part, train_ids
from segda.data.sets.specs import FOLDER, pieces_of
from segda.data.stream.augment import resize, same_shape, size_of
from segda.errors import DataError, RunError, few
from segda.ground.paths import expanded
from segda.ground.safe_yaml import read_json
from segda.scene import Scene

SUMMARY = "translation.json"

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
    refuse_other(folder, [part.spec for part in painted])
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
    pairs = zip(painted, found, strict=True)
    return with_parts(data, {part.spec: Translated(part, folder, tuple(of_one)) for part, of_one in pairs})


def refuse_other(folder: Path, specs: Sequence[str]) -> None:
    """DataError where a folder of ours was made of other data than these, or is not whole."""
    if not (folder / SUMMARY).is_file():
        return
    summary = read_summary(folder)
    made_of = summary["data"]["spec"]
    if other := [spec for spec in specs if not _covers(made_of, spec)]:
        raise DataError(
            f"{folder} holds images translated of {made_of}, not of {'+'.join(other)}; give the folder made of that, "
            f"or make one with segda translate RUN --data {'+'.join(other)}"
        )
    if summary.get("finished") is not True:
        raise DataError(
            f"{folder}: the translation of {made_of} was interrupted; repeat the call of segda translate, which goes on"
        )


def _covers(made_of: str, spec: str) -> bool:
    """Whether the images of one data set are among those that a spec is of, by name, split and condition."""
    ((name, split, conditions),) = pieces_of(spec)
    return any(_same_set(one, name) and at == split and having <= conditions for one, at, having in pieces_of(made_of))


def _same_set(then: str, now: str) -> bool:
    """Whether two names are of one data set. A YAML file that is no more where it was is known by its own name."""
    if not (then.startswith(FOLDER) and now.startswith(FOLDER)):
        return then == now
    one, other = (expanded(name.removeprefix(FOLDER)) for name in (then, now))
    return one.resolve() == other.resolve() if one.exists() else one.name == other.name


def read_summary(folder: Path) -> dict[str, Any]:
    """How a folder of translated images was made. RunError where that is not to be read."""
    path = folder / SUMMARY
    try:
        found = dict(read_json(path))
        if not isinstance(found["network"], dict) or not isinstance(found["data"]["spec"], str):
            raise ValueError("it was edited or damaged")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} cannot be read ({error}); remove the folder and translate anew") from error
    return found


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
class Translated(Around):
    """A data set that is one, with the images of a folder; all else is the original's.

    files: the path of each image in the folder.
    """

    folder: Path
    files: tuple[str, ...]

    # Images

    def image_path(self, i: int) -> Path:
        return self.folder / self.files[i]

    def place(self, i: int) -> str:
        return str(self.image_path(i))

    def image_mark(self, i: int) -> str:
        size, mark = state(self.image_path(i))
        return f"{size} {mark}"

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

    # What is known of it

    @property
    def where(self) -> str:
        return str(self.folder)

    def identities(self) -> Iterator[tuple[str, str]]:
        return ((self.where, name) for name in self.files)

    def reading(self) -> list[str]:
        return [f"{self.spec}: images from {self.folder}", *self.original.reading()]
