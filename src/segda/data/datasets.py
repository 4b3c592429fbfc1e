"""Data sets: one reader for all rows of DATASETS.

A data set is written `name:split[:condition]`, for example `camvid:train:day`, and looked for in `<root>/<folder>`,
where the folder is one of its row's usual names (data/rows.py); the root itself may be that folder. Several are joined
by `+`: `cityscapes-foggy:train+cityscapes-rain:train`.

Label files are only opened by `DataSet.read(i, label=True)` and the censuses: a target's ground truth stays unseen.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import cv2
import numpy as np
import torch

from segda.data.images import read_ids, read_image
from segda.data.labels import UNKNOWN, Space, space_named
from segda.data.rows import DATASETS, Row
from segda.errors import DataError, RecipeError, nearest
from segda.scene import IGNORE, Scene

if TYPE_CHECKING:
    from segda.data.unions import Union

STREETS_SIZE = (256, 512)
STREETS_KEPT = 1100
"""Drawn scenes kept in memory by each process, half a megabyte each: all of two domains' training scenes and some.
Drawing one takes far longer than reading a file.
"""


def default_root() -> Path:
    """Where data are looked for when nothing is said: $SEGDA_DATA, else `data`."""
    return Path(os.environ.get("SEGDA_DATA") or "data")


def conditions_of(name: str) -> tuple[str, ...]:
    """The conditions that a data set can be asked for."""
    if not DATASETS[name].drawn:
        return tuple(DATASETS[name].conditions)
    from segda.data import streets

    return tuple(streets.CONDITIONS)


def parse(spec: str) -> tuple[str, str, str | None]:
    """`name:split[:condition]` -> its parts; RecipeError with the nearest name for one that is unknown."""
    name, *rest = spec.split(":")
    if name not in DATASETS:
        raise RecipeError(f"{spec!r}: unknown data set {name!r}{nearest(name, DATASETS)}")
    if len(rest) not in (1, 2):
        raise RecipeError(f"{spec!r}: a data set is written name:split[:condition], for example '{name}:train'")
    if rest[0] not in DATASETS[name].splits:
        raise RecipeError(f"{spec!r}: {name} has no split {rest[0]!r}{nearest(rest[0], DATASETS[name].splits)}")
    if len(rest) == 1:
        return name, rest[0], None
    if rest[1] not in conditions_of(name):
        raise RecipeError(f"{spec!r}: {name} has no condition {rest[1]!r}{nearest(rest[1], conditions_of(name))}")
    return name, rest[0], rest[1]


def data_sets(spec: str) -> set[str]:
    """The names of the data sets in a spec."""
    return {part.split(":")[0] for part in spec.split("+")}


def own_space(spec: str) -> Space:
    """The label space of a data set; RecipeError for several whose own spaces differ."""
    spaces = {DATASETS[parse(part)[0]].space for part in spec.split("+")}
    if len(spaces) > 1:
        raise RecipeError(
            f"{spec}: its parts have the label spaces {', '.join(sorted(spaces))}; choose with data.space"
        )
    return space_named(spaces.pop())


def open_data(spec: str, root: Path | None = None, space: Space | None = None) -> DataSet | Union:
    """The data set `name:split[:condition]` under `root`, its labels in `space` (default: the data set's own).

    Several, joined by `+`, become a Union. Lists the image files and opens none. RecipeError for an unknown part of the
    spec or a space that shares no class with the labels; DataError for a missing folder or an empty split.
    """
    space = space or own_space(spec)
    root = default_root() if root is None else Path(root)
    parts = [_open(part, root, space) for part in spec.split("+")]
    if len(parts) == 1:
        return parts[0]
    from segda.data.unions import Union

    return Union.of(spec, space, parts)


def _open(spec: str, root: Path, space: Space) -> DataSet:
    name, split, condition = parse(spec)
    row = DATASETS[name]
    if not any(space.classes_in(labelling) for _, labelling in row.labels):
        raise RecipeError(f"{spec}: its labels have no class of the space {space.name}; use {row.space}")
    if row.drawn:
        from segda.data import streets

        count = streets.SPLITS[split][1]
        width = len(str(count - 1))
        condition = condition or "day"
        names = tuple(f"{split}_{condition}_{index:0{width}d}" for index in range(count))
        return DataSet(spec, space, row, split, condition, Path(), names, ())
    folder, row = _find(spec, row, split, root)
    found = _matches(folder, row.image_files(split))
    if condition is not None:
        if condition not in row.conditions:
            raise DataError(
                f"{spec}: the images in {folder} lie without the folders that tell their condition; put them as they "
                f"are in the archives, or leave {condition!r} out"
            )
        found = [path for path in found if _is_of(path, condition, row, split)]
        if not found:
            raise DataError(f"{spec}: no image in {folder} is of the condition {condition!r}; {_way_out(row)}")
    names = tuple(Path(path).stem for path in found)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{spec}: two images in {folder} are called {twice!r}; remove one of them")
    return DataSet(spec, space, row, split, condition, folder, names, tuple(found))


def _way_out(row: Row) -> str:
    return f"get the data from {row.page} and see docs/DATA.md"


def _find(spec: str, row: Row, split: str, root: Path) -> tuple[Path, Row]:
    """The folder of a data set, the first under its usual names that has images of the split, and the row as it lies
    there.
    """
    usual = [root / folder for folder in row.folders]
    for folder in (*usual, root):
        for variant in row.variants():
            if _matches(folder, variant.image_files(split)):
                return folder, variant
    there = next((folder for folder in usual if folder.is_dir()), None)
    if there is None:
        also = ", ".join(row.folders[1:])
        raise DataError(f"{spec}: no folder {usual[0]} (nor {also} in {root}); {_way_out(row)}, or give another root")
    templates = (template for variant in row.variants() for template in variant.image_files(split))
    looked_for = " or ".join(str(there / _pattern(template)) for template in templates)
    raise DataError(f"{spec}: no images match {looked_for}; {_way_out(row)}")


FIELD = re.compile(r"\{(\w+)\}")


def _pattern(template: str) -> str:
    """The glob pattern of a path template."""
    return FIELD.sub("*", template)


def _matches(folder: Path, templates: tuple[str, ...]) -> list[str]:
    """Sorted paths, relative to the folder, that match any of the templates."""
    paths = (path for template in templates for path in folder.glob(_pattern(template)))
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _fields(path: str, templates: tuple[str, ...]) -> dict[str, str]:
    """What the fields of the template that matches `path` stand for."""
    for template in templates:
        escaped = re.escape(template).replace(r"\*", "[^/]*")
        match = re.fullmatch(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", escaped), path)
        if match:
            return match.groupdict()
    raise AssertionError(f"{path} matches none of {templates}")


def _is_of(path: str, condition: str, row: Row, split: str) -> bool:
    told = _fields(path, row.image_files(split)).get("condition", Path(path).stem)
    return any(fnmatchcase(told, pattern) for pattern in row.conditions[condition])


@lru_cache(maxsize=STREETS_KEPT)
def _drawn(seed: int, index: int, condition: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    from segda.data import streets

    scene = streets.draw(seed, index, condition, size)
    return scene.image, scene.label


@dataclass(frozen=True)
class DataSet:
    """The images of one split (and condition) and, where there are files, their labels in one space.

    names: stems of the image files. images: their paths in `folder`, in the same order; empty when drawn.
    """

    spec: str
    space: Space
    row: Row
    split: str
    condition: str | None
    folder: Path
    names: tuple[str, ...]
    images: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def parts(self) -> tuple[DataSet, ...]:
        """What it is made of: itself."""
        return (self,)

    def at(self, i: int) -> tuple[DataSet, int]:
        """The part that image i is of, and its number in there."""
        return self, i

    def image_path(self, i: int) -> Path:
        assert not self.row.drawn
        return self.folder / self.images[i]

    def _label_file(self, i: int) -> tuple[Path, str, str]:
        """Label file of image i, labelling of its ids, decoder; the first by rule if none of them exists."""
        fields = _fields(self.images[i], self.row.image_files(self.split))
        choices = [
            (self.folder / template.format(**fields), labelling, decoder)
            for template, labelling, decoder in self.row.label_files(self.split)
        ]
        return next((choice for choice in choices if choice[0].is_file()), choices[0])

    def label_path(self, i: int) -> Path:
        """Where the label of image i is, or would be."""
        return self._label_file(i)[0]

    def labelled(self, i: int) -> bool:
        return self.row.drawn or self.label_path(i).is_file()

    def labels_without_image(self) -> list[Path]:
        """Label files of this split, in whatever condition, whose image is missing."""
        if self.row.drawn or self.row.shared_labels:
            return []
        images = self.row.image_files(self.split)
        known = {tuple(_fields(path, images).values()) for path in _matches(self.folder, images)}
        labels = tuple(template for template, _, _ in self.row.label_files(self.split))
        return [
            self.folder / path
            for path in _matches(self.folder, labels)
            if tuple(_fields(path, labels).values()) not in known
            and not any(fnmatchcase(path, pattern) for pattern in self.row.no_labels)
        ]

    def check_pairs(self) -> None:
        """DataError unless each image has its label and each label its image. Opens no file."""
        if missing := [i for i in range(len(self)) if not self.labelled(i)]:
            first, label = self.image_path(missing[0]), self.label_path(missing[0])
            raise DataError(
                f"{self.spec}: {len(missing)} of {len(self)} images have no label, first {first} "
                f"(looked for {label}); restore the label files or remove these images"
            )
        if spare := self.labels_without_image():
            raise DataError(
                f"{self.spec}: {len(spare)} label files have no image, first {spare[0]}; restore the images "
                "or remove these labels"
            )

    def read(self, i: int, label: bool = False) -> Scene:
        """Scene i: image (3, H, W) uint8 and, only if asked for, label (H, W) uint8 train ids.

        The image may be a view of (H, W, 3) memory and of a cache: do not write to it. Without `label`, no label file
        is opened or even looked for. DataError, naming the file, for what cannot be read or does not fit together.
        """
        if self.row.drawn:
            image = torch.from_numpy(self._draw(i)[0]).permute(2, 0, 1)
        else:
            image = read_image(self.image_path(i))
        if not label:
            return Scene(image, names=(self.names[i],))
        ids, table = self.label_ids(i)
        if ids.shape != tuple(image.shape[1:]):
            size, other = (f"{shape[1]}x{shape[0]}" for shape in (ids.shape, image.shape[1:]))
            what = f"{self.spec}: {self.label_path(i)} is {size} but its image is {other}"
            raise DataError(f"{what}; use the labels that belong to these images, or remove both")
        known = cv2.LUT(ids, table)
        if (known == UNKNOWN).any():
            self._refuse(i, np.bincount(ids.ravel(), minlength=256), table)
        return Scene(image, torch.from_numpy(known), names=(self.names[i],))

    def label_ids(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) uint8 ids as they stand in the label file of image i, and (256,) uint8 what ids mean in it.

        That is train ids, IGNORE, or UNKNOWN for an id that the labelling does not name.
        """
        if self.row.drawn:
            return self._draw(i)[1], _table(self.space.name, self.row.labels[0][1])
        path, labelling, decoder = self._label_file(i)
        return read_ids(path, decoder), _table(self.space.name, labelling)

    def label_census(self, i: int) -> np.ndarray:
        """(C + 1,) int64 pixels of each class in the label of image i, the ignored ones last."""
        ids, table = self.label_ids(i)
        counts = np.bincount(ids.ravel(), minlength=256)
        if counts[table == UNKNOWN].any():
            self._refuse(i, counts, table)
        return self.by_class(counts, table)

    def by_class(self, counts: np.ndarray, table: np.ndarray) -> np.ndarray:
        """(256,) pixels of each id -> (C + 1,) int64 pixels of each class, the ignored ones last."""
        meant = np.zeros(256, np.int64)
        np.add.at(meant, table, counts)
        return np.append(meant[: len(self.space.classes)], meant[IGNORE])

    def label_marks(self) -> Iterator[str]:
        """A line for each label that changes when its file (or, for drawn scenes, the drawing) does."""
        if self.row.drawn:
            from segda import drawing
            from segda.data import streets

            files = (Path(streets.__file__), *sorted(Path(drawing.__path__[0]).glob("*.py")))
            code = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
            yield f"{self.spec} {self.condition} {streets.SPLITS[self.split]} {STREETS_SIZE} {code}"
            return
        tables = {labelling: self.space.lookup(labelling).tobytes().hex() for _, labelling in self.row.labels}
        for i in range(len(self)):
            path, labelling, _ = self._label_file(i)
            state = path.stat()
            yield f"{path.relative_to(self.folder)} {state.st_size} {state.st_mtime_ns} {labelling} {tables[labelling]}"

    def _draw(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        from segda.data import streets

        return _drawn(streets.SPLITS[self.split][0], i, self.condition, STREETS_SIZE)

    def _refuse(self, i: int, counts: np.ndarray, table: np.ndarray) -> NoReturn:
        """DataError for a label with ids that its labelling does not name."""
        unknown = np.flatnonzero((table == UNKNOWN) & (counts > 0))
        ids = ", ".join(f"{id} ({counts[id]} pixels)" for id in unknown[:4]) + (", ..." if len(unknown) > 4 else "")
        path, labelling = (self.names[i], self.row.labels[0][1]) if self.row.drawn else self._label_file(i)[:2]
        raise DataError(
            f"{self.spec}: {path} has id {ids}, which labelling {labelling!r} does not name; use the data set's "
            "official id files, or name the id in data/labellings.py"
        )


@lru_cache
def _table(space: str, labelling: str) -> np.ndarray:
    return space_named(space).lookup(labelling)
