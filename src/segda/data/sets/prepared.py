"""Labels as train ids and class statistics as files, as DAFormer's and EB_DA's tools read them.

Unlike the authors' converters, ours lists Cityscapes in order, and refuses ids that the labelling does not name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from segda.data.labels.spaces import SPACES, Space, space_named
from segda.data.rows import DATASETS
from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.dataset import train_ids
from segda.data.sets.datasets import open_data
from segda.data.sets.files import FileSet
from segda.data.sets.specs import file_name, own_space, parse, parts_of, row_of
from segda.data.sets.trees import pattern
from segda.errors import DataError, RecipeError, RunError
from segda.ground.alone import alone_in
from segda.ground.atomic import atomic_write, cannot_write, remove_partial, write_text
from segda.ground.pool import Pool
from segda.ground.progress import track

TRAIN_IDS = SPACES["cityscapes-19"]
"""The space that `_labelTrainIds` in a file's name means, to all who read such files."""

COUNTED = "train"
"""The split whose statistics are written when none is named: the one that is drawn from in training."""

Counts = dict[str, int]


@dataclass
class Prepared:
    """What became of a data set. labels: PNGs; lists: JSON and text files; there: those that were there before."""

    out: Path
    space: str
    labels: int = 0
    there: int = 0
    lists: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What to print."""
        told = [f"{self.out}: {self.labels} labels in the ids of {self.space} written, {self.there} were there"]
        if self.lists:
            told.append(f"beside them {', '.join(path.name for path in self.lists)}")
        return [*told, *self.left_out]


def _wanted(spec: str) -> tuple[str, list[str]]:
    """The data set's name, and the specs of what to prepare of it."""
    if spec not in DATASETS and len(parts_of(spec)) > 1:
        raise RecipeError(f"{spec}: prepare takes one data set at a time")
    name, splits = (spec, DATASETS[spec].splits) if spec in DATASETS else (parse(spec)[0], ())
    if row_of(name).shared_labels:
        raise RecipeError(f"{spec}: {name} has the labels of another data set; prepare cityscapes")
    return name, [f"{name}:{split}" for split in splits] or [spec]


def _space(spec: str, wanted: str | None) -> Space:
    if wanted is not None:
        return space_named(wanted)
    own = own_space(spec)
    return TRAIN_IDS if set(own.classes) <= set(TRAIN_IDS.classes) else own


def _open(wanted: Sequence[str], root: Path, space: Space, prepared: Prepared) -> list[FileSet]:
    """The splits that are there and have labels; the others are noted. DataError if none is, or one is half there."""
    found: list[FileSet] = []
    faults: list[DataError] = []
    for spec in wanted:
        try:
            data = open_data(spec, root, space)
            if not isinstance(data, FileSet):
                name = spec.split(":")[0]
                raise RecipeError(f"{spec}: {name} is drawn and has no files; `segda draw` writes some, with train ids")
            if not any(map(data.labelled, range(len(data)))):
                raise DataError(f"{spec}: none of the {len(data)} images has a label (looked for {data.label_path(0)})")
        except DataError as fault:
            faults.append(fault)
            continue
        data.check_pairs()
        found.append(data)
    if not found:
        raise faults[0]
    prepared.left_out = [f"left out: {fault}" for fault in faults]
    return found


def label_names(data: FileSet) -> list[PurePosixPath]:
    """Where the train ids of each image go, in the tree of the data set, by the rule of the authors' converters.

    labels/00001.png -> labels/00001_labelTrainIds.png; an ending that says what the ids are (_labelIds) is replaced.
    Ids of another space than Cityscapes' have its name instead: labels/00001_camvid-11.png.
    """
    kind = "labelTrainIds" if data.space.classes == TRAIN_IDS.classes else data.space.name
    names = []
    for i in range(len(data)):
        path = PurePosixPath(data.label_name(i))
        stem = path.stem
        for ending in ("_labelTrainIds", "_labelIds", "_polygons"):
            stem = stem.removesuffix(ending)
        names.append(path.with_name(f"{stem}_{kind}.png"))
    return names


def _taken_for_labels(data: FileSet) -> PurePosixPath | None:
    """The first file name that our own reader would take for a label of an image that is missing."""
    others = [path for path, _, _ in data.row.label_files(data.split) if "labelTrainIds" not in path]
    first = label_names(data)[0]
    if any(fnmatchcase(str(first), spared) for spared in data.row.no_labels):
        return None
    return first if any(fnmatchcase(str(first), pattern(other)) for other in others) else None


def _outside(data: FileSet) -> PurePosixPath | None:
    """The first file that would not be below the folder to write."""
    return next((path for path in label_names(data) if path.is_absolute() or ".." in path.parts), None)


def scene_names(data: FileSet) -> list[str]:
    """CITY/KEY of each image of Cityscapes, in order."""
    folder = f"leftImg8bit/{data.split}/"
    return [image.removeprefix(folder).removesuffix("_leftImg8bit.png") for image in data.images]


def statistics(files: Sequence[str], pixels: np.ndarray) -> dict[str, list | dict]:
    """File name -> content of the authors' three files.

    files: label of each image; pixels (N, C + 1) as of `class_statistics`. Classes are train ids, as keys of JSON.
    Those that an image lacks are left out of it, as are ignored pixels.
    """
    of_file: dict[str, Counts] = {}
    with_class: dict[str, list[list[str | int]]] = {}
    for file, row in zip(files, pixels[:, :-1].tolist(), strict=True):
        of_file[file] = {str(train_id): count for train_id, count in enumerate(row) if count}
        for train_id, count in of_file[file].items():
            with_class.setdefault(train_id, []).append([file, count])
    return {
        "sample_class_stats.json": [{**counts, "file": file} for file, counts in of_file.items()],
        "sample_class_stats_dict.json": of_file,
        "samples_with_class.json": with_class,
    }


def _list(prepared: Prepared, title: str, content: str) -> None:
    path = prepared.out / title
    if not path.exists():
        write_text(path, content)
    elif path.read_text(encoding="utf-8") != content:
        raise RunError(f"{path} is there with another content; remove it, or choose another --out")
    prepared.lists.append(path)


@dataclass(frozen=True)
class _Write:
    """Writes the train ids of the n-th label; False, and nothing done, where the file is there."""

    labels: Sequence[tuple[Path, tuple[FileSet, int]]]

    def __call__(self, n: int) -> bool:
        path, (data, i) = self.labels[n]
        if path.exists():
            return False
        label = train_ids(data, i)
        with atomic_write(path) as partial:
            try:
                Image.fromarray(label).save(partial, format="PNG")
            except OSError as error:
                raise cannot_write(path, error) from error
        return True


def write_prepared(
    spec: str,
    root: Path,
    out: Path | None,
    in_place: bool,
    space: str | None,
    statistics_only: bool,
    workers: int | None,
) -> Prepared:
    """Writes the labels of a data set and the statistics of its training split, what is not there yet."""
    name, wanted = _wanted(spec)
    target = _space(wanted[0], space)
    prepared = Prepared(out or Path("prepared") / file_name(name), target.name)
    found = _open(wanted, root, target, prepared)
    if in_place:
        prepared.out = found[0].folder
    for data in found:
        if in_place and (taken := _taken_for_labels(data)):
            raise RecipeError(
                f"--cache: {taken} beside the labels would be read as a label without an image; give --out"
            )
        if not in_place and (outside := _outside(data)):
            raise RecipeError(
                f"{spec}: {outside} is not below the folder in which the paths of the YAML file begin, and so has no "
                "place in --out; give a root: that holds all labels"
            )
    with alone_in(prepared.out, "another process prepares data in {folder}"):
        remove_partial(prepared.out)
        _write_all(name, wanted, found, prepared, statistics_only, workers)
    return prepared


def _write_all(
    name: str,
    wanted: Sequence[str],
    found: Sequence[FileSet],
    prepared: Prepared,
    statistics_only: bool,
    workers: int | None,
) -> None:
    """Statistics and lists, then the labels."""
    counted = next((data for data in found if data.split == COUNTED), None) if len(wanted) > 1 else found[0]
    if counted is not None:
        pixels = class_statistics(counted, prepared.out / ".segda", workers)
        files = [str(prepared.out / path) for path in label_names(counted)]
        for title, content in statistics(files, pixels).items():
            _list(prepared, title, json.dumps(content, indent=2))
    if name == "cityscapes":
        for data in found:
            _list(prepared, f"{data.split}.txt", "".join(f"{line}\n" for line in scene_names(data)))
    if not statistics_only:
        labels: dict[Path, tuple[FileSet, int]] = {}  # an image may be in several splits
        for data in found:
            for i, path in enumerate(label_names(data)):
                labels.setdefault(prepared.out / path, (data, i))
        for written in track(Pool(_Write(tuple(labels.items())), len(labels), workers), f"labels of {name}"):
            prepared.labels += written
            prepared.there += not written
