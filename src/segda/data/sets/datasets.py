"""Data sets: one reader for all rows of DATASETS.

A data set is written `name:split[:condition]`, for example `camvid:train:day`, and looked for in `<root>/<folder>`,
where the folder is one of its row's usual names (data/rows/); the root itself may be that folder. Zip archives that
lie in it are read in place. Several are joined by `+`: `cityscapes-foggy:train+cityscapes-rain:train`; see
data/sets/specs.py.

Label files are only opened by `DataSet.read(i, label=True)` and the censuses: a target's ground truth stays unseen.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NoReturn

import cv2
import numpy as np
import torch

from segda.data.files.archives import is_file, state
from segda.data.files.images import Decoder, read_ids, read_image
from segda.data.labels.mistaken import refuse_train_ids, unknown_ids
from segda.data.labels.spaces import UNKNOWN, Space
from segda.data.rows import DATASETS, Row
from segda.data.sets.folders import FOLDER, folder_root
from segda.data.sets.lists import listed
from segda.data.sets.specs import conditions_of, data_sets, file_name, own_space, parse, parts_of, row_of
from segda.data.sets.trees import FIELD, Tree, fields, pattern
from segda.errors import DataError, RecipeError
from segda.scene import IGNORE, Scene

if TYPE_CHECKING:
    from segda.data.sets.unions import Union

__all__ = [
    "DATASETS",
    "FIELD",
    "DataSet",
    "Row",
    "Space",
    "conditions_of",
    "data_sets",
    "default_root",
    "file_name",
    "open_data",
    "own_space",
    "parse",
]
"""With what other modules need of specs.py, rows/ and trees.py to talk about data sets."""

STREETS_SIZE = (256, 512)
STREETS_KEPT = 1100
"""Drawn scenes kept in memory by each process, half a megabyte each: all of two domains' training scenes and some.
Drawing one takes far longer than reading a file.
"""


def default_root() -> Path:
    """Where data are looked for when nothing is said: $SEGDA_DATA, else `data`."""
    return Path(os.environ.get("SEGDA_DATA") or "data")


def open_data(spec: str, root: Path | None = None, space: Space | None = None) -> DataSet | Union:
    """The data set `name:split[:condition]` under `root`, its labels in `space` (default: the data set's own).

    Several, joined by `+`, become a Union. Lists the image files and opens none. RecipeError for an unknown part of the
    spec or a space that shares no class with the labels; DataError for a missing folder or an empty split.
    """
    space = space or own_space(spec)
    root = default_root() if root is None else Path(root)
    told = parts_of(spec)
    parts = [_open(part, root, space) for part, _ in told]
    weights = [weight for _, weight in told]
    if len(parts) == 1:
        if weights[0] is not None:
            raise RecipeError(f"{spec}: a weight has no effect on a data set alone; leave out the *")
        return parts[0]
    from segda.data.sets.unions import Union

    return Union.of(spec, space, parts, weights)


def _open(spec: str, root: Path, space: Space) -> DataSet:
    name, split, condition = parse(spec)
    row = row_of(name, split)
    if row.labels and not row.classes_in(space):
        raise RecipeError(f"{spec}: its labels have no class of the space {space.name}; use {row.space}")
    if row.rendered:
        from segda.data.streets import streets

        count = streets.SPLITS[split][1]
        width = len(str(count - 1))
        condition = condition or "day"
        names = tuple(f"{split}_{condition}_{index:0{width}d}" for index in range(count))
        return DataSet(spec, space, row, split, condition, Tree(Path()), names, ())
    if name.startswith(FOLDER):
        tree = Tree(folder_root(name.removeprefix(FOLDER)))
        if not (found := tree.matches(row.images)):
            looked_for = " or ".join(str(tree.folder / pattern(image)) for image in row.images)
            raise DataError(f"{spec}: no images match {looked_for}; correct splits.{split} in the YAML file")
    else:
        tree, row, found = _find(spec, row, split, root)
    for wanted in (*((split,) if split in row.lists else ()), *(condition.split(",") if condition else ())):
        found = _held(spec, wanted, found, tree, row, split)
    for path in found:
        check_shown(path, f"{spec}: {path}")
    names = tuple(_name(path, row, split) for path in found)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{spec}: two images in {tree.folder} are called {twice!r}; remove one of them")
    return DataSet(spec, space, row, split, condition, tree, names, tuple(found))


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


@lru_cache(maxsize=STREETS_KEPT)
def _drawn(seed: int, index: int, condition: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    from segda.data.streets import streets

    scene = streets.draw(seed, index, condition, size)
    return scene.image, scene.label


@dataclass(frozen=True)
class DataSet:
    """The images of one split (and condition) and, where there are files, their labels in one space.

    names: stems of the image files. images: their paths in the tree, in the same order; empty when drawn.
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
    """All images are drawn alike, see Union."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def folder(self) -> Path:
        """Where its files and archives are."""
        return self.tree.folder

    @property
    def parts(self) -> tuple[DataSet, ...]:
        """What it is made of: itself."""
        return (self,)

    def at(self, i: int) -> tuple[DataSet, int]:
        """The part that image i is of, and its number in there."""
        return self, i

    def image_path(self, i: int) -> Path:
        assert not self.row.rendered
        return self.tree.path(self.images[i])

    def _label_file(self, i: int) -> tuple[str, str, str | Decoder]:
        """Label file of image i in the tree, labelling of its ids, decoder; the first by rule if none exists."""
        if not self.row.labels:
            raise DataError(f"{self.spec}: no labels are told for this split; name them in the YAML file")
        known = fields(self.images[i], self._templates[0])
        first = None
        for template, labelling, decoder in self._templates[1]:
            choice = template.format(**known), labelling, decoder
            if is_file(self.tree.path(choice[0])):
                return choice
            first = first or choice
        return first

    @cached_property
    def _templates(self) -> tuple[tuple[str, ...], tuple[tuple[str, str, str | Decoder], ...]]:
        """Those of its images, and of its labels with what they are."""
        return self.row.image_files(self.split), self.row.label_files(self.split)

    def label_name(self, i: int) -> str:
        """Where the label of image i is, or would be, in the tree."""
        return self._label_file(i)[0]

    def label_path(self, i: int) -> Path:
        """Where the label of image i is, or would be."""
        return self.tree.path(self.label_name(i))

    def labelled(self, i: int) -> bool:
        return self.row.rendered or (bool(self.row.labels) and is_file(self.label_path(i)))

    def labels_without_image(self) -> list[Path]:
        """Label files of this split, in whatever condition, whose image is missing; one for each image."""
        if self.row.rendered or self.row.shared_labels:
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
        """DataError unless each image has its label and each label its image. Opens no file."""
        if missing := [i for i in range(len(self)) if not self.labelled(i)]:
            first, label = self.image_path(missing[0]), self.label_path(missing[0])
            raise DataError(
                f"{self.spec}: {len(missing)} of {len(self)} images have no label, first {first} "
                f"(looked for {label}); {self._way_to_labels(len(missing))}"
            )
        if spare := self.labels_without_image():
            raise DataError(
                f"{self.spec}: {len(spare)} label files have no image, first {spare[0]}; restore the images "
                "or remove these labels"
            )

    def labels_from(self) -> str:
        """The way to get labels: the archives that hold them, and their page."""
        return _way_out(self.row, *(template for template, _, _ in self.row.label_files(self.split)))

    def _way_to_labels(self, missing: int) -> str:
        """The way out where all labels are missing, or some."""
        if missing == len(self) and self.row.archives:
            return self.labels_from()
        return "restore the label files or remove these images"

    def read(self, i: int, label: bool = False) -> Scene:
        """Scene i: image (3, H, W) uint8 and, only if asked for, label (H, W) uint8 train ids.

        The image may be a view of (H, W, 3) memory and of a cache: do not write to it. Without `label`, no label file
        is opened or even looked for. DataError, naming the file, for what cannot be read or does not fit together.
        """
        if self.row.rendered:
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
        if self.row.rendered:
            return self._draw(i)[1], self.tables[self.row.labels[0][1]]
        name, labelling, decoder = self._label_file(i)
        path = self.tree.path(name)
        ids = read_ids(path, decoder)
        refuse_train_ids(self.spec, path, labelling, ids)
        return ids, self.tables[labelling]

    @cached_property
    def tables(self) -> dict[str, np.ndarray]:
        """Labelling -> (256,) uint8 of what its ids mean in this space."""
        return {labelling: self.space.lookup(labelling, self.row.names(labelling)) for _, labelling in self.row.labels}

    def class_counts(self, i: int) -> np.ndarray:
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
        if self.row.rendered:
            from segda.data import streets as drawing
            from segda.data.streets import streets

            files = (Path(streets.__file__), *sorted(Path(drawing.__path__[0]).glob("*.py")))
            code = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
            yield f"{self.spec} {self.condition} {streets.SPLITS[self.split]} {STREETS_SIZE} {code}"
            return
        tables = {labelling: table.tobytes().hex() for labelling, table in self.tables.items()}
        for i in range(len(self)):
            name, labelling, decoder = self._label_file(i)
            size, mark = state(self.tree.path(name))
            own = "" if isinstance(decoder, str) else f" {decoder}"  # of a YAML file, whose colours may change
            yield f"{name} {size} {mark} {labelling} {tables[labelling]}{own}"

    def _draw(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        from segda.data.streets import streets

        return _drawn(streets.SPLITS[self.split][0], i, self.condition, STREETS_SIZE)

    def _refuse(self, i: int, counts: np.ndarray, table: np.ndarray) -> NoReturn:
        """DataError for a label with ids that its labelling does not name."""
        if self.row.rendered:
            raise unknown_ids(self.spec, self.names[i], self.row.labels[0][1], counts, table)
        name, labelling, _ = self._label_file(i)
        raise unknown_ids(self.spec, self.tree.path(name), labelling, counts, table)
