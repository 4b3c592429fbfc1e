"""Drawn streets as a data set: no files, and a label for every image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import torch

from segda.data.labels.mistaken import unknown_ids
from segda.data.labels.spaces import UNKNOWN, Space
from segda.data.sets.dataset import by_class
from segda.data.streets import streets
from segda.data.streets.conditions import SPLITS
from segda.errors import DataError
from segda.scene import Scene

SIZE = (256, 512)
KEPT = 1100
"""Drawn scenes kept in memory by each process, half a megabyte each: all of two domains' training scenes and some.
Drawing one takes far longer than reading a file.
"""

LABELLING = "cityscapes-train"
OWN_SPACE = "cityscapes-19"


@lru_cache(maxsize=KEPT)
def drawn(seed: int, index: int, condition: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of a scene, as long as they are kept in memory."""
    scene = streets.draw(seed, index, condition, size)
    return scene.image, scene.label


@dataclass(frozen=True)
class Streets:
    """The scenes of one split in one condition."""

    spec: str
    space: Space
    split: str
    condition: str
    shares: ClassVar[None] = None
    at_hand: ClassVar[bool] = True
    where: ClassVar[str] = "drawn"
    own_space: ClassVar[str] = OWN_SPACE

    @classmethod
    def of(cls, spec: str, space: Space, split: str, condition: str | None) -> Streets:
        """Without a condition, by day."""
        return cls(spec, space, split, condition or "day")

    def __len__(self) -> int:
        return SPLITS[self.split][1]

    @cached_property
    def names(self) -> tuple[str, ...]:
        width = len(str(len(self) - 1))
        return tuple(f"{self.split}_{self.condition}_{index:0{width}d}" for index in range(len(self)))

    @property
    def parts(self) -> tuple[Streets, ...]:
        return (self,)

    def at(self, i: int) -> tuple[Streets, int]:
        return self, i

    @property
    def classes(self) -> set[str]:
        return self.space.classes_in(LABELLING)

    def identities(self) -> Iterator[tuple[str, str]]:
        return ((self.where, name) for name in self.names)

    def called(self, i: int) -> set[str]:
        return {self.names[i]}

    # Images

    def image_path(self, i: int) -> None:
        return None

    def place(self, i: int) -> str:
        return self.names[i]

    def image_mark(self, i: int) -> str:
        return ""

    def size(self, i: int) -> tuple[int, int]:
        return SIZE

    def read(self, i: int, label: bool = False) -> Scene:
        image = torch.from_numpy(self._drawn(i)[0]).permute(2, 0, 1)
        if not label:
            return Scene(image, names=(self.names[i],))
        ids, table = self.label_ids(i)
        known = cv2.LUT(ids, table)
        if (known == UNKNOWN).any():
            raise self._unknown(i, np.bincount(ids.ravel(), minlength=256), table)
        return Scene(image, torch.from_numpy(known), names=(self.names[i],))

    def _drawn(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return drawn(SPLITS[self.split][0], i, self.condition, SIZE)

    # Labels

    def labelled(self, i: int) -> bool:
        return True

    def label_ids(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self._drawn(i)[1], self._table

    @cached_property
    def _table(self) -> np.ndarray:
        return self.space.lookup(LABELLING)

    def masked(self, i: int) -> bool:
        return False

    def invalid(self, i: int) -> np.ndarray:
        raise AssertionError("drawn streets have no masks")

    def label_place(self, i: int) -> str:
        return self.names[i]

    def label_files(self, i: int) -> list[Path]:
        return []

    def label_marks(self) -> Iterator[str]:
        files = sorted(Path(streets.__file__).parent.glob("*.py"))
        code = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
        yield f"{self.spec} {self.condition} {SPLITS[self.split]} {SIZE} {code}"

    def labels_without_image(self) -> list[Path]:
        return []

    def check_pairs(self) -> None:
        """Each scene is drawn with its label."""

    def class_counts(self, i: int) -> np.ndarray:
        ids, table = self.label_ids(i)
        counts = np.bincount(ids.ravel(), minlength=256)
        if counts[table == UNKNOWN].any():
            raise self._unknown(i, counts, table)
        return by_class(counts, table, self.space)

    def _unknown(self, i: int, counts: np.ndarray, table: np.ndarray) -> DataError:
        return unknown_ids(self.spec, self.names[i], LABELLING, counts, table)

    # What is known of it

    @property
    def promised(self) -> bool:
        return True

    def differ(self, i: int, label: tuple[int, ...], image: tuple[int, ...]) -> str:
        raise AssertionError("a scene is drawn with its label")

    def remarks(self, i: int) -> list[tuple[str, str]]:
        return []

    def reading(self) -> list[str]:
        return []

    def doubts(self) -> list[str]:
        return []

    def notes(self, labels: int) -> list[str]:
        return []

    def other_names(self) -> list[str]:
        return []
