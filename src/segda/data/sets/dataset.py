"""What a data set is to whoever reads it: images in an order, labels in one space, and where they come from.

Files (files.py), drawn streets (streets.py) and several of these as one (unions.py) are data sets; a video would be.
Labels are opened by `read(i, label=True)`, `label_ids` and `class_counts` alone: a target's ground truth stays unseen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from segda.data.labels.spaces import UNKNOWN, Space
from segda.ground.ignore import IGNORE
from segda.scene import Scene


class DataSet(Protocol):
    """Images by number, 0 .. len - 1."""

    @property
    def spec(self) -> str:
        """As it was written, `name:split[:condition]`."""
        ...

    @property
    def space(self) -> Space:
        """Of its labels as they are read."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Short names of its images, no two the same."""
        ...

    @property
    def parts(self) -> tuple[Part, ...]:
        """The data sets that it is made of; itself where it is one."""
        ...

    @property
    def shares(self) -> tuple[float, ...] | None:
        """How often each part is drawn from, summing to 1; None: as its images are many."""
        ...

    def __len__(self) -> int: ...

    def at(self, i: int) -> tuple[Part, int]:
        """The part that image i is of, and its number in there."""
        ...

    # Images

    def read(self, i: int, label: bool = False) -> Scene:
        """Scene i: image (3, H, W) uint8 and, only if asked for, label (H, W) uint8 train ids.

        The image may be a view of (H, W, 3) memory and of a cache: do not write to it. Without `label`, no label file
        is opened or even looked for. DataError, naming the file, for what cannot be read or does not fit together.
        """
        ...

    def size(self, i: int) -> tuple[int, int]:
        """(height, width) of image i, without decoding it where that can be."""
        ...

    def place(self, i: int) -> str:
        """Where image i is, for messages: its file, or the name of one that is no file."""
        ...

    def image_path(self, i: int) -> Path | None:
        """The file of image i; None where it is none."""
        ...

    def image_mark(self, i: int) -> str:
        """A text that changes when image i does."""
        ...

    # Labels

    def labelled(self, i: int) -> bool:
        """Whether image i has a label. Opens no file."""
        ...

    def label_ids(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) uint8 ids as they stand in the label of image i, and (256,) uint8 what ids mean in it; of ids above
        255 uint16 and (65536,).

        That is train ids, IGNORE, or UNKNOWN for an id that the labelling does not name.
        """
        ...

    def masked(self, i: int) -> bool:
        """Whether it is known where in image i nobody could tell the class. Opens no file."""
        ...

    def invalid(self, i: int) -> np.ndarray:
        """(H, W) bool: where in the label of image i nobody could tell the class from the image alone."""
        ...

    def label_place(self, i: int) -> str:
        """Where the label of image i is, or would be, for messages."""
        ...

    def label_files(self, i: int) -> list[Path]:
        """The files that the label of image i is read from, whether they are there or not; none where it is drawn."""
        ...

    def label_marks(self) -> Iterator[str]:
        """A line for each label that changes when its file (or, for drawn scenes, the drawing) does."""
        ...

    def labels_without_image(self) -> list[Path]:
        """Label files, in whatever condition, whose image is missing; one for each image."""
        ...

    def check_pairs(self) -> None:
        """DataError unless each image has its label and each label its image. Opens no file."""
        ...

    def class_counts(self, i: int) -> np.ndarray:
        """(C + 1,) int64 pixels of each class in the label of image i, the ignored ones last."""
        ...


class Part(DataSet, Protocol):
    """A data set that is one, and can be part of others."""

    @property
    def split(self) -> str: ...

    @property
    def where(self) -> str:
        """Its folder, or how it comes about."""
        ...

    @property
    def at_hand(self) -> bool:
        """Whether a scene that was read stays in this process's memory, and costs too much to be read by another."""
        ...

    @property
    def own_space(self) -> str:
        """The name of the space that its labels are made for."""
        ...

    @property
    def classes(self) -> set[str]:
        """The classes of `space` that its labels tell apart."""
        ...

    def identities(self) -> Iterator[tuple[str, str]]:
        """What tells each image from those of all other data sets: `where`, and its path or name there."""
        ...

    def called(self, i: int) -> set[str]:
        """What a list may call image i, without folders."""
        ...

    def notes(self, labels: int) -> list[str]:
        """Of how many images the public data set is, and where to get the labels where only so many are here."""
        ...

    @property
    def promised(self) -> bool:
        """Whether somebody said that each image has a label: then one that is missing is a fault."""
        ...

    def differ(self, i: int, label: tuple[int, ...], image: tuple[int, ...]) -> str:
        """How the label of image i and the image differ in size, (height, width) each."""
        ...

    def remarks(self, i: int) -> list[tuple[str, str]]:
        """What is done with the files of image i that somebody may not expect: (what, where), the same what for all
        that it is done with.
        """
        ...

    def reading(self) -> list[str]:
        """How its images are read, where somebody may not expect it; looks at the first one's header."""
        ...

    def doubts(self) -> list[str]:
        """What speaks against learning from it, as far as that is seen without opening a file."""
        ...

    def other_names(self) -> list[str]:
        """Where its own list of names contradicts ours: one line for each id."""
        ...


def meant(ids: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(H, W) ids, what ids mean -> (H, W) uint8 of what these do."""
    return cv2.LUT(ids, table) if len(table) == 256 else table[ids]


def train_ids(data: DataSet, i: int) -> np.ndarray:
    """(H, W) uint8 train ids of the label of image i, 255 for what is ignored.

    DataError for an id that the labelling does not name.
    """
    ids, table = data.label_ids(i)
    label = meant(ids, table)
    if (label == UNKNOWN).any():
        data.class_counts(i)  # names the ids in its error
        raise AssertionError("class_counts refuses unknown ids")
    return label


def by_class(counts: np.ndarray, table: np.ndarray, space: Space) -> np.ndarray:
    """Pixels of each id, what ids mean -> (C + 1,) int64 pixels of each class, the ignored ones last."""
    pixels = np.zeros(256, np.int64)
    np.add.at(pixels, table, counts)
    return np.append(pixels[: len(space.classes)], pixels[IGNORE])


def image_weights(data: DataSet) -> np.ndarray:
    """(N,) how often each image is drawn, summing to 1, where there are weights."""
    assert data.shares is not None
    shares = zip(data.parts, data.shares, strict=True)
    return np.concatenate([np.full(len(part), share / len(part)) for part, share in shares])
