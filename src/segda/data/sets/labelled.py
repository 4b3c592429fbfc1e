"""Data sets whose images are seen once each: to measure on, to label, to predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segda.data.labels.spaces import Space
from segda.data.sets.dataset import DataSet
from segda.data.sets.datasets import open_data
from segda.errors import RecipeError, nearest


def open_once(spec: str, root: Path, space: Space | None = None) -> DataSet:
    """A data set each of whose images is wanted once; RecipeError for one with weights."""
    dataset = open_data(spec, root, space)
    if dataset.shares is not None:
        raise RecipeError(f"{spec}: weights say how often images are drawn in training; leave them out here")
    return dataset


def open_labelled(spec: str, root: Path, space: Space) -> DataSet:
    """A data set to measure on: every image has its label. These need not tell all classes of the space apart, see
    `measured_classes`.
    """
    dataset = open_once(spec, root, space)
    dataset.check_pairs()
    return dataset


def measured_classes(dataset: DataSet, chosen: Sequence[str] | None) -> tuple[str, ...]:
    """The classes that means over a data set go over, in their order: those that all of its labels tell apart, and of
    these the chosen ones. A class that is never labelled would count as absent or, where predicted, as wrong.

    RecipeError for a chosen class that the space does not have, or where none is left.
    """
    space = dataset.space
    for name in chosen or ():
        if name not in space.classes:
            raise RecipeError(f"evaluate.classes: unknown class {name!r}{nearest(name, space.classes)}")
    known = [name for name in space.classes if all(name in part.classes for part in dataset.parts)]
    found = tuple(name for name in known if chosen is None or name in chosen)
    if not found:
        asked = "the network's classes" if chosen is None else f"evaluate.classes ({', '.join(chosen)})"
        raise RecipeError(
            f"{dataset.spec}: its labels know none of {asked}, but {', '.join(known) or 'none'}; choose other data or "
            "classes"
        )
    return found
