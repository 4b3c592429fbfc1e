"""Data sets whose images are seen once each: to measure on, to label, to predict."""

from __future__ import annotations

from pathlib import Path

from segda.data.labels.spaces import Space
from segda.data.sets.dataset import DataSet
from segda.data.sets.datasets import open_data
from segda.errors import RecipeError


def open_once(spec: str, root: Path, space: Space | None = None) -> DataSet:
    """A data set each of whose images is wanted once; RecipeError for one with weights."""
    dataset = open_data(spec, root, space)
    if dataset.shares is not None:
        raise RecipeError(f"{spec}: weights say how often images are drawn in training; leave them out here")
    return dataset


def open_labelled(spec: str, root: Path, space: Space) -> DataSet:
    """A data set to measure on: every image has its label, and the labels tell all classes of the space apart.

    RecipeError when they do not: a class that is never labelled would count as absent or, where predicted, as wrong.
    """
    dataset = open_once(spec, root, space)
    for part in dataset.parts:
        named = part.classes
        lacking = [name for name in space.classes if name not in named]
        if lacking:
            raise RecipeError(
                f"{part.spec}: its labels do not know the network's {', '.join(lacking)} (space {space.name}); "
                f"choose data with these classes, or train with data.space {part.own_space}"
            )
    dataset.check_pairs()
    return dataset
