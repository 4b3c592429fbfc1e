"""Bringing what a translator painted to the size of its original, along the original's edges.

    joint    MGCDA (Sakaridis et al., PAMI 2020): see `jointly_enlarged` in pseudo_labelling/cross_bilateral.py

Without it an image stays as large as the translator saw it, and is enlarged by a plain kernel when it is read
(data/sets/translated.py). The numbers lie in enlarge.yaml with their sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from segda.errors import RecipeError
from segda.pseudo_labelling.cross_bilateral import jointly_enlarged, unit_lab
from segda.recipes.build import changed, check

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Joint:
    """space, colour: see `jointly_enlarged`."""

    space: float
    colour: float

    def __post_init__(self) -> None:
        for key in ("space", "colour"):
            if not 0 < (value := getattr(self, key)) < float("inf"):
                raise RecipeError(f"enlarge.{key}: {value} is not above 0")

    def enlarged(self, painted: np.ndarray, original: np.ndarray) -> np.ndarray:
        """(h, w, 3) and (H, W, 3) uint8 RGB -> (H, W, 3) uint8: the painted image, as large as its original."""
        pixels = jointly_enlarged(painted, unit_lab(original), space=self.space, colour=self.colour)
        return np.rint(pixels).astype(np.uint8)


ENLARGEMENTS: dict[str, type] = {"joint": Joint}


def enlarge_spec(enlarge: str | Mapping[str, Any], changes: Sequence[str] = ()) -> dict[str, Any]:
    """An enlargement's name, or a mapping of its name and settings -> all of them; a bare name has the shipped ones.

    changes: "KEY=VALUE", the value in YAML. RecipeError for an unknown enlargement or setting.
    """
    text = (files("segda.training") / "enlarge.yaml").read_text(encoding="utf-8")
    return check(ENLARGEMENTS, changed(enlarge, yaml.safe_load(text), changes, "--enlarge-set"), "enlarge", ())


def is_larger(original: Size, painted: Size) -> bool:
    """Whether (height, width) of the first are those of an enlarged image of the second."""
    return original != painted and all(one >= other for one, other in zip(original, painted, strict=True))
