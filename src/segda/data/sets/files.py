"""Data sets of files: one reader for all rows of DATASETS that lie in folders and archives.

Label files are only opened by `read(i, label=True)`, `label_ids` and `class_counts`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import torch
from PIL import Image

from segda.data.files.archives import is_file, open_file, state
from segda.data.files.images import Decoder, read_ids, read_image
from segda.data.labels.mistaken import refuse_train_ids, unknown_ids
from segda.data.labels.spaces import UNKNOWN, Space
from segda.data.rows import Row
from segda.data.sets.dataset import by_class, meant
from segda.data.sets.lists import listed
from segda.data.sets.trees import Tree, fields, pattern
from segda.errors import DataError
from segda.ground.safe_yaml import read_json
from segda.scene import Scene


@dataclass(frozen=True)
class FileSet:
    """The images of one split (and condition) and, where there are files, their labels in one space.

    names: stems of the image files. images: their paths in the tree, in the same order.
    """

    spec: str
    space: Space
    row: Row
    split: str
    condition: str | None
    tree: Tree
    names: tuple[str, ...]
    images: tuple[str, ...]
    shares: ClassVar[None] = None
    at_hand: ClassVar[bool] = False

    @classmethod
    def open(
        cls, spec: str, space: Space, row: Row, name: str, split: str, condition: str | None, root: Path
    ) -> FileSet:
        """The files of a row under `root`; lists them and opens none. DataError for a missing folder, or an empty
        split.
        """
        tree, row, found = _find(spec, row, split, root)
        for wanted in (*((split,) if split in row.lists else ()), *(condition.split(",") if condition else ())):
            found = _held(spec, wanted, found, tree, row, split)
        for path in found:
            check_shown(path, f"{spec}: {path}")
        names = tuple(_name(path, row, split) for path in found)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{spec}: two images in {tree.folder} are called {twice!r}; remove one of them")
        return cls(spec, space, row, split, condition, tree, names, tuple(found))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def folder(self) -> Path:
        """Where its files and archives are."""
        return self.tree.folder

    @property
    def where(self) -> str:
        return str(self.folder)

    @property
    def parts(self) -> tuple[FileSet, ...]:
        return (self,)

    def at(self, i: int) -> tuple[FileSet, int]:
        return self, i

    @property
    def own_space(self) -> str:
        return self.row.space

    @property
    def classes(self) -> set[str]:
        return self.row.classes_in(self.space)

    def identities(self) -> Iterator[tuple[str, str]]:
        return ((self.where, image) for image in self.images)

    def called(self, i: int) -> set[str]:
        path = PurePosixPath(self.images[i])
        return {self.names[i], path.name, path.stem, self.fields_of(i)["key"]}

    def fields_of(self, i: int) -> dict[str, str]:
        """What the fields of its row's template stand for in the path of image i."""
        return fields(self.images[i], self._templates[0])

    # Images

    def image_path(self, i: int) -> Path:
        return self.tree.path(self.images[i])

    def place(self, i: int) -> str:
        return str(self.image_path(i))

    def image_mark(self, i: int) -> str:
        size, mark = state(self.image_path(i))
        return f"{size} {mark}"

    def size(self, i: int) -> tuple[int, int]:
        """From the file's header."""
        try:
            large = warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning)
            with large, open_file(self.image_path(i)) as file, Image.open(file, formats=["PNG", "JPEG"]) as picture:
                return picture.height, picture.width
        except (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            _, height, width = self.read(i).image.shape  # says what is wrong with the file
            return height, width

    def image(self, i: int) -> torch.Tensor:
        """(3, H, W) uint8 RGB of image i."""
        return read_image(self.image_path(i))

    def read(self, i: int, label: bool = False) -> Scene:
        image = self.image(i)
        if not label:
            return Scene(image, names=(self.names[i],))
        ids, table = self.label_ids(i)
        if ids.shape != tuple(image.shape[1:]):
            raise DataError(
                f"{self.spec}: {self.differ(i, ids.shape, tuple(image.shape[1:]))}; use the labels that belong to "
                "these images, or leave both out"
            )
        known = meant(ids, table)
        if (known == UNKNOWN).any():
            raise self._unknown(i, np.bincount(ids.ravel(), minlength=len(table)), table)
        return Scene(image, torch.from_numpy(known), names=(self.names[i],))

    # Labels

    def _label_file(self, i: int) -> tuple[str, str, str | Decoder]:
        """Label file of image i in the tree, labelling of its ids, decoder; the first by rule if none exists."""
        known = self.fields_of(i)
        choices = [
            (template.format(**known), labelling, decoder) for template, labelling, decoder in self._templates[1]
        ]
        return next((choice for choice in choices if is_file(self.tree.path(choice[0]))), choices[0])

    @cached_property
    def _templates(self) -> tuple[tuple[str, ...], tuple[tuple[str, str, str | Decoder], ...]]:
        """Those of its images, and of its labels with what they are."""
        return self.row.image_files(self.split), self.row.label_files(self.split)

    def labelling_of(self, i: int) -> str:
        """What the ids in the label of image i are called by."""
        return self._label_file(i)[1]

    def label_name(self, i: int) -> str:
        """Where the label of image i is, or would be, in the tree."""
        return self._label_file(i)[0]

    def label_path(self, i: int) -> Path:
        """Where the label of image i is, or would be."""
        return self.tree.path(self.label_name(i))

    def label_place(self, i: int) -> str:
        return str(self.label_path(i))

    def label_files(self, i: int) -> list[Path]:
        return [self.label_path(i)]

    @property
    def promised(self) -> bool:
        return False

    def differ(self, i: int, label: tuple[int, ...], image: tuple[int, ...]) -> str:
        """How the label of image i and the image differ in size, (height, width) each."""
        return f"{self.label_path(i)} is {label[1]}x{label[0]}, its image {image[1]}x{image[0]}"

    def labelled(self, i: int) -> bool:
        return bool(self.row.labels) and is_file(self.label_path(i))

    def labels_without_image(self) -> list[Path]:
        if self.row.shared_labels:
            return []
        images = self.row.image_files(self.split)
        known = {tuple(fields(path, images).values()) for path in self.tree.matches(images)}
        labels = tuple(template for template, _, _ in self.row.label_files(self.split))
        spare: dict[tuple[str, ...], str] = {}
        for path in self.tree.matches(labels):
            if not any(fnmatchcase(path, pattern) for pattern in self.row.no_labels):
                spare.setdefault(tuple(fields(path, labels).values()), path)
        return [self.tree.path(path) for whose, path in spare.items() if whose not in known]

    def check_pairs(self) -> None:
        if missing := [i for i in range(len(self)) if not self.labelled(i)]:
            first, label = self.image_path(missing[0]), self.label_path(missing[0])
            raise DataError(
                f"{self.spec}: {len(missing)} of {len(self)} images have no label, first {first} "
                f"(looked for {label}); {self.way_to_labels(len(missing))}"
            )
        if spare := self.labels_without_image():
            raise DataError(
                f"{self.spec}: {len(spare)} label files have no image, first {spare[0]}; restore the images "
                "or remove these labels"
            )

    def labels_from(self) -> str:
        """The way to get labels: the archives that hold them, and their page."""
        return _way_out(self.row, *(template for template, _, _ in self.row.label_files(self.split)))

    def way_to_labels(self, missing: int) -> str:
        """The way out where all labels are missing, or some."""
        if missing == len(self) and self.row.archives:
            return self.labels_from()
        return "restore the label files or remove these images"

    def label_ids(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        name, labelling, decoder = self._label_file(i)
        path = self.tree.path(name)
        ids = read_ids(path, decoder)
        refuse_train_ids(self.spec, path, labelling, ids)
        return ids, self.tables[labelling]

    def _mask_file(self, i: int) -> tuple[Path, int] | None:
        """The mask of image i, and the value that says that nobody could tell; None where there is none."""
        known = self.fields_of(i)
        masks = (
            (self.tree.path(self.row.of(self.split, one).format(**known)), value) for one, value in self.row.invalid
        )
        return next((mask for mask in masks if is_file(mask[0])), None)

    def masked(self, i: int) -> bool:
        return self._mask_file(i) is not None

    def invalid(self, i: int) -> np.ndarray:
        found = self._mask_file(i)
        assert found is not None
        path, value = found
        mask = read_ids(path)
        other = mask[(mask != 0) & (mask != value)]
        if other.size:
            raise DataError(
                f"{path} has the value {other[0]} ({other.size} pixels), where 0 and {value} are known; move the masks "
                "away to measure without UIoU"
            )
        return mask == value

    @cached_property
    def tables(self) -> dict[str, np.ndarray]:
        """Labelling -> (256,) uint8 of what its ids mean in this space."""
        return {labelling: self.space.lookup(labelling, self.row.names(labelling)) for _, labelling in self.row.labels}

    def class_counts(self, i: int) -> np.ndarray:
        ids, table = self.label_ids(i)
        counts = np.bincount(ids.ravel(), minlength=len(table))
        if counts[table == UNKNOWN].any():
            raise self._unknown(i, counts, table)
        return by_class(counts, table, self.space)

    def label_marks(self) -> Iterator[str]:
        tables = {labelling: table.tobytes().hex() for labelling, table in self.tables.items()}
        for i in range(len(self)):
            name, labelling, decoder = self._label_file(i)
            size, mark = state(self.tree.path(name))
            own = "" if isinstance(decoder, str) else f" {decoder}"  # of a YAML file, whose colours may change
            yield f"{name} {size} {mark} {labelling} {tables[labelling]}{own}"

    def _unknown(self, i: int, counts: np.ndarray, table: np.ndarray) -> DataError:
        """The error of a label with ids that its labelling does not name."""
        return unknown_ids(self.spec, self.label_path(i), self.labelling_of(i), counts, table)

    # What is known of it

    def notes(self, labels: int) -> list[str]:
        notes = []
        wanted = self.split if self.condition is None else f"{self.split}:{self.condition}"
        if (known := self.row.counts.get(wanted)) is not None:
            there = "as many as here" if known == len(self) else f"here are {len(self)}"
            notes.append(f"{self.spec}: {known} images in the public data set, {there}")
        if labels < len(self) and self.row.labels:
            notes.append(f"{self.spec}: labels of {labels} of {len(self)} images; for more, {self.labels_from()}")
        return notes

    def reading(self) -> list[str]:
        return []

    def doubts(self) -> list[str]:
        return []

    def remarks(self, i: int) -> list[tuple[str, str]]:
        return []

    def other_names(self) -> list[str]:
        """Names are compared without case, as the authors of ESL do, who build their table from this file."""
        path = next((path for name in self.row.id_names if (path := self.folder / name).is_file()), None)
        if path is None:
            return []
        try:
            theirs = [entry["readable"] for entry in read_json(path)["labels"]]
            theirs = [name.lower() for name in theirs]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return [f"{path} is no list of names ({type(error).__name__}: {error})"]
        ours = [name.lower() for name in self.row.names(self.row.labels[0][1]).values()]
        pairs = enumerate(zip_longest(theirs, ours, fillvalue="nothing"))
        return [f"{path}: id {id} is {name}, here {known}" for id, (name, known) in pairs if name != known]


def check_shown(name: str, where: str) -> None:
    """DataError for an image's name with a line's end, a terminal's command or the like: it will stand in tables, pages
    and the names of files.
    """
    if not name.isprintable():
        raise DataError(f"{where}: the name has characters that cannot be shown; rename the file")


def _name(path: str, row: Row, split: str) -> str:
    if not row.name_with:
        return Path(path).stem
    known = fields(path, row.image_files(split))
    return "_".join((*(known[one] for one in row.name_with), Path(path).stem))


def _way_out(row: Row, *names: str) -> str:
    """Where to get what lies at a path; of all archives where none is said to hold it."""
    archives = dict.fromkeys(name for path in names for name in row.archives_of(path))
    what = " and ".join(archives or dict.fromkeys(one.name for one in row.archives)) or "the data"
    return f"get {what} from {row.page} and see docs/DATA.md"


def _find(spec: str, row: Row, split: str, root: Path) -> tuple[Tree, Row, list[str]]:
    """The folder of a data set, the first under its usual names that has images of the split, the row as it lies there,
    and the images.
    """
    usual = [root / folder for folder in row.folders]
    for folder in (*usual, root):
        tree = Tree.of(folder, row.archives)
        for variant in row.variants():
            if found := tree.matches(variant.image_files(split)):
                return tree, variant, found
    there = next((folder for folder in usual if folder.is_dir()), None)
    templates = [template for variant in row.variants() for template in variant.image_files(split)]
    if there is None:
        also = ", ".join(row.folders[1:])
        raise DataError(
            f"{spec}: no folder {usual[0]} (nor {also} in {root}); {_way_out(row, *templates)}, or give another root"
        )
    looked_for = " or ".join(str(there / pattern(template)) for template in templates)
    raise DataError(f"{spec}: no images match {looked_for}; {_way_out(row, *templates)}")


def _held(spec: str, wanted: str, found: list[str], tree: Tree, row: Row, split: str) -> list[str]:
    """Those of the images that a condition holds for, or that are in the list of a split. DataError if none is."""
    templates = row.image_files(split)
    if (told := row.lists.get(wanted)) is not None:
        file = tree.path(row.of(split, told.file))
        names = listed(file, told, row.page)
        held = [path for path in found if fields(path, templates)[told.by] in names]
        if not held:
            raise DataError(f"{spec}: {file} names no image in {tree.folder}; {_way_out(row, *templates)}")
        return held
    if wanted not in row.conditions:
        raise DataError(
            f"{spec}: the images in {tree.folder} lie without the folders that tell their condition; put them as they "
            f"are in the archives, or leave {wanted!r} out"
        )
    held = [path for path in found if _is_of(path, row.conditions[wanted], templates)]
    if not held:
        raise DataError(
            f"{spec}: no image in {tree.folder} is of the condition {wanted!r}; {_way_out(row, *templates)}"
        )
    return held


def _is_of(path: str, patterns: tuple[str, ...], templates: tuple[str, ...]) -> bool:
    known = fields(path, templates)
    for one in patterns:
        field, _, glob = one.rpartition("=")
        if fnmatchcase(known[field] if field else known.get("condition", Path(path).stem), glob):
            return True
    return False
