"""A part of a data set with something in the place of its own, as images or labels of another folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, cast

from segda.data.sets.dataset import DataSet, Part
from segda.data.sets.unions import Union


@dataclass(frozen=True)
class Around:
    """What a class around a part does not say, the original says."""

    original: Part

    def __getattr__(self, name: str) -> Any:
        if name == "original" or name.startswith("__"):  # not there yet when it is unpickled
            raise AttributeError(name)
        return getattr(self.original, name)

    def __len__(self) -> int:
        return len(self.original)

    @property
    def parts(self) -> tuple[Self, ...]:
        return (self,)

    def at(self, i: int) -> tuple[Self, int]:
        return self, i


def with_parts(data: DataSet, around: Mapping[str, Around]) -> DataSet:
    """The data set with those of its parts replaced that are named by their specs."""
    parts = tuple(cast(Part, around.get(part.spec, part)) for part in data.parts)
    return replace(data, parts=parts) if isinstance(data, Union) else parts[0]
