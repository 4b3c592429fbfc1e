"""What an exported file says of itself, as JSON in the place that its format has for that, under the name `segda`.

classes      the classes in the order of the ids, each with its colour
input        "uint8": RGB from 0 to 255; "float": RGB from 0 to 1. (B, 3, H, W)
output       "ids": the class of each pixel, (B, H, W) uint8; "probabilities": of each class, (B, C, H, W) float32
size         (height, width) of the images that it takes; null for any
smallest     pixels of an image's shorter side that it needs
evaluate     how its run shows images to the network, which `segda predict` does as well
network      its block of the recipe, as it is built anew
space, precision, recipe, weights, step    where it comes from
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import TypeAdapter, ValidationError

from segda.data.labels.spaces import Space
from segda.data.stream.settings import Kernel, Shape
from segda.errors import WeightsError
from segda.evaluation.inference import Settings, Size
from segda.ground.choices import ExportPrecision, GivenAs, Said, Softmax, Weights
from segda.ground.safe_yaml import json_values
from segda.recipes.keys import Evaluate

NAME = "segda"
"""What the JSON is called in a file."""

MOST_CLASSES = 255
"""A class is one byte, of which 255 is nobody's."""

LONGEST = 99_999
"""Pixels of a side, at most."""


class Runner(Protocol):
    """(B, 3, H, W) uint8, or float32 from 0 to 1 -> what comes out, as About says."""

    def __call__(self, images: np.ndarray) -> np.ndarray: ...


@dataclass
class Shown:
    """How images are shown to the network, see evaluation/inference.py."""

    resize: tuple[int, int] | None
    shape: Shape
    kernel: Kernel
    how: Literal["whole", "slide"]
    window: Size | None
    stride: Size | None
    scales: tuple[float, ...]
    flip: bool
    softmax: Softmax
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class About:
    """See the module's doc string."""

    space: str
    classes: dict[str, tuple[int, int, int]]
    input: GivenAs
    output: Said
    size: Size | None
    smallest: int
    precision: ExportPrecision
    recipe: str | None
    weights: Weights
    step: int | None
    network: dict[str, Any]
    evaluate: Shown

    def label_space(self) -> Space:
        return Space(self.space, self.classes)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def sentence(self) -> str:
        """What goes in and what comes out, in words."""
        size = f"any size from {self.smallest}" if self.size is None else f"{self.size[1]}x{self.size[0]}"
        given = {"uint8": "uint8 RGB", "float": "float32 RGB from 0 to 1"}[self.input]
        said = {"ids": "the class of each pixel, (B, H, W) uint8", "probabilities": "(B, C, H, W) float32"}[self.output]
        return f"in: (B, 3, H, W) {given} of {size}; out: {said}; {len(self.classes)} classes"


def about_from(text: str | None, where: object) -> About:
    """What the JSON of a file says; WeightsError where there is none, or another one."""
    if text is None:
        raise WeightsError(
            f"{where}: does not say that segda exported it; give a run folder or the --out of segda export"
        )
    try:
        table = json_values(text)
        known = {field.name: table[field.name] for field in fields(About)}
        found = TypeAdapter(About).validate_json(json.dumps(known), strict=True)
        Evaluate.model_validate(asdict(found.evaluate))
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{where}: what it says of itself cannot be read ({reason}); export it again") from error
    names = (*found.classes, found.space)
    colours = (part for colour in found.classes.values() for part in colour)
    if (
        not 2 <= len(found.classes) <= MOST_CLASSES
        or not all(map(str.isprintable, names))
        or not all(0 <= part < 256 for part in colours)
    ):
        raise WeightsError(f"{where}: what it says of its classes cannot be; export it again")
    sizes = (found.size, found.evaluate.resize, found.evaluate.window, found.evaluate.stride)
    sides = (found.smallest, *(side for size in sizes for side in size or ()))
    if not all(0 < side <= LONGEST for side in sides):
        raise WeightsError(f"{where}: what it says of sizes cannot be; export it again")
    return found


def shown(settings: Settings, size: Size | None) -> Shown:
    """As a run's recipe says; of a file of one size: stretched to it, whole."""
    told = {field.name: getattr(settings, field.name) for field in fields(Shown)}
    told = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    if size is not None:
        told |= {"resize": size[::-1], "shape": "stretch", "how": "whole", "window": None, "stride": None}
        told |= {"scales": (1.0,)}
    return Shown(**told)
