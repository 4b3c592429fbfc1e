"""Several data sets as one source or target: `cityscapes-foggy:train+cityscapes-rain:train`.

Each image is drawn as often as any other, so that a part weighs as much as it has images. With weights
(`a:train*2+b:train`) each part is drawn as often as its weight says, whatever its size.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from segda.data.labels.spaces import Space
from segda.data.sets.dataset import Part
from segda.data.sets.specs import file_name
from segda.errors import RecipeError
from segda.scene import Scene


@dataclass(frozen=True)
class Union:
    """Several data sets as one,  the images of its first part, then of its second, ...

    names: those of the parts with their part before them, `cityscapes-foggy-train_STEM`, so that no two are the same.
    ends: the number of the first image that is no more of each part.
    shares: how often each part is drawn, summing to 1; None: as its images are many.
    """

    spec: str
    space: Space
    parts: tuple[Part, ...]
    names: tuple[str, ...]
    ends: tuple[int, ...]
    shares: tuple[float, ...] | None = None

    @classmethod
    def of(cls, spec: str, space: Space, parts: Sequence[Part], weights: Sequence[float | None] | None = None) -> Union:
        """weights: of each part; where any has one, those without have 1.

        RecipeError if an image is in two parts: it would be drawn and counted twice.
        """
        owner: dict[tuple[str, str], Part] = {}
        for part in parts:
            for identity in part.identities():
                if (other := owner.setdefault(identity, part)) is not part:
                    image = identity[1]
                    raise RecipeError(f"{spec}: {part.spec} has images of {other.spec}, first {image}; name each once")
        names = tuple(f"{file_name(part.spec)}_{name}" for part in parts for name in part.names)
        shares = None
        if weights is not None and any(weight is not None for weight in weights):
            known = [1.0 if weight is None else weight for weight in weights]
            shares = tuple(weight / sum(known) for weight in known)
        return cls(spec, space, tuple(parts), names, tuple(accumulate(map(len, parts))), shares)

    def __len__(self) -> int:
        return len(self.names)

    def at(self, i: int) -> tuple[Part, int]:
        """The part that image i is of, and its number in there."""
        assert 0 <= i < len(self)
        k = bisect_right(self.ends, i)
        return self.parts[k], i - (self.ends[k] - len(self.parts[k]))

    # Images

    def read(self, i: int, label: bool = False) -> Scene:
        part, k = self.at(i)
        return part.read(k, label).replace(names=(self.names[i],))

    def size(self, i: int) -> tuple[int, int]:
        part, k = self.at(i)
        return part.size(k)

    def place(self, i: int) -> str:
        part, k = self.at(i)
        return part.place(k)

    def image_path(self, i: int) -> Path | None:
        part, k = self.at(i)
        return part.image_path(k)

    def image_mark(self, i: int) -> str:
        part, k = self.at(i)
        return part.image_mark(k)

    # Labels

    def labelled(self, i: int) -> bool:
        part, k = self.at(i)
        return part.labelled(k)

    def label_ids(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        part, k = self.at(i)
        return part.label_ids(k)

    def masked(self, i: int) -> bool:
        part, k = self.at(i)
        return part.masked(k)

    def invalid(self, i: int) -> np.ndarray:
        part, k = self.at(i)
        return part.invalid(k)

    def label_place(self, i: int) -> str:
        part, k = self.at(i)
        return part.label_place(k)

    def label_files(self, i: int) -> list[Path]:
        part, k = self.at(i)
        return part.label_files(k)

    def label_marks(self) -> Iterator[str]:
        for part in self.parts:
            yield f"{part.spec} in {part.where}"
            yield from part.label_marks()

    def labels_without_image(self) -> list[Path]:
        return sorted({path for part in self.parts for path in part.labels_without_image()})

    def check_pairs(self) -> None:
        for part in self.parts:
            part.check_pairs()

    def class_counts(self, i: int) -> np.ndarray:
        part, k = self.at(i)
        return part.class_counts(k)
