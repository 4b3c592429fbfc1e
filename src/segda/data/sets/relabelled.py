"""A data set with pseudo-labels in the place of its own: the images of another domain as a labelled source.

In a union the parts that the folder of labels was made for take them, the others keep their own labels:
`cityscapes:train+dark-zurich:train:twilight`, MGCDA's training on translated images with ground truth and on real ones
with labels of a network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segda.data.files.archives import state
from segda.data.labels.pseudo_labels import PseudoLabels, read_summary
from segda.data.sets.around import Around, with_parts
from segda.data.sets.dataset import DataSet, by_class
from segda.data.stream.augment import resize_label, size_of
from segda.errors import DataError
from segda.scene import Scene

TRAIN_IDS = np.arange(256, dtype=np.uint8)
"""What pseudo-labels' ids mean: themselves."""


def relabelled(dataset: DataSet, folder: Path, key: str) -> DataSet:
    """The data set, those of its parts that the folder's labels were made for with these. key: what names the folder.

    DataError, naming the file, for a folder of other data or other classes, or one that lacks labels.
    """
    spec = made_for(folder, dataset)
    if all(part.spec != spec for part in dataset.parts):
        raise DataError(
            f"{key}: {folder} has labels of {spec}, which is no part of {dataset.spec}; add it there with a +, or "
            "give labels of one of its parts"
        )
    around = {
        part.spec: Relabelled(part, PseudoLabels.open(folder, part, dataset.space))
        for part in dataset.parts
        if part.spec == spec
    }
    return with_parts(dataset, around)


def made_for(folder: Path, dataset: DataSet) -> str:
    """The spec of the data that a folder of pseudo-labels is of; DataError where it is no such folder."""
    return str(read_summary(folder, dataset.spec).get("data"))


@dataclass(frozen=True)
class Relabelled(Around):
    """A part with pseudo-labels, brought to the size of its images; everything else is as it says."""

    labels: PseudoLabels

    @property
    def classes(self) -> set[str]:
        return set(self.original.space.classes)

    def read(self, i: int, label: bool = False) -> Scene:
        scene = self.original.read(i)
        if not label:
            return scene
        size = size_of(scene)
        return scene.replace(label=resize_label(self.labels.read(i, size), size, "bilinear"))

    def labelled(self, i: int) -> bool:
        return True

    def masked(self, i: int) -> bool:
        return False

    def label_ids(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        label = self.read(i, label=True).label
        assert label is not None
        return label.numpy(), TRAIN_IDS

    def label_place(self, i: int) -> str:
        return str(self.labels.path(i))

    def label_files(self, i: int) -> list[Path]:
        return [self.labels.path(i)]

    def label_marks(self) -> Iterator[str]:
        for i in range(len(self)):
            path = self.labels.path(i)
            size, mark = state(path)
            yield f"{path} {size} {mark}"

    def labels_without_image(self) -> list[Path]:
        return []

    def check_pairs(self) -> None:
        """PseudoLabels.open has found a label for each image."""

    def class_counts(self, i: int) -> np.ndarray:
        ids, table = self.label_ids(i)
        return by_class(np.bincount(ids.ravel(), minlength=256), table, self.original.space)
