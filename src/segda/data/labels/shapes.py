"""Labels that are shapes with names, drawn into a picture of ids: polygons, boxes, ellipses, masks of single things.

In the order of their file, later ones over earlier ones, as labelme, CVAT and Label Studio show them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from segda.errors import DataError, nearest

Point = tuple[float, float]

FAR = 1e6
"""Pixels: a corner is less far from the picture's."""


@dataclass(frozen=True)
class Shape:
    """One thing, and what it is called: rings of corners (x, y) in pixels; or a mask, whose upper left pixel lies at
    `at` (x, y).
    """

    name: str
    rings: tuple[tuple[Point, ...], ...] = ()
    mask: np.ndarray | None = None
    at: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Drawing:
    """What a tool says of one image. size: (height, width); None where it does not say. bare: how many of its shapes
    have no area (points, lines).
    """

    size: tuple[int, int] | None
    shapes: Sequence[Shape] = ()
    bare: int = 0


def ellipse(x: float, y: float, across: float, down: float, turned: float = 0.0) -> tuple[Point, ...]:
    """The ring of an ellipse around (x, y), its radii in pixels, turned clockwise by so many degrees."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    return rotated([(x + across * np.cos(a), y + down * np.sin(a)) for a in angles], (x, y), turned)


def box(left: float, top: float, right: float, bottom: float, turned: float = 0.0) -> tuple[Point, ...]:
    """The ring of a box, turned clockwise about its upper left corner by so many degrees."""
    return rotated([(left, top), (right, top), (right, bottom), (left, bottom)], (left, top), turned)


def rotated(points: Iterable[Point], about: Point, degrees: float) -> tuple[Point, ...]:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return tuple(
        (
            float(about[0] + cos * (x - about[0]) - sin * (y - about[1])),
            float(about[1] + sin * (x - about[0]) + cos * (y - about[1])),
        )
        for x, y in points
    )


@dataclass(frozen=True)
class Names:
    """What names of shapes are. ids: of each class, and of what is ignored. rest: the id of what no shape covers."""

    ids: Mapping[str, int] = field(hash=False)
    rest: int

    def id(self, name: str, where: str) -> int:
        """DataError for a name that is no class."""
        if name not in self.ids:
            raise DataError(
                f"{where} has a {name!r}, which is no class{nearest(name, self.ids)}; name it in the YAML file, under "
                f"classes or as ignored: [{name}]"
            )
        return self.ids[name]


def draw(drawing: Drawing, size: tuple[int, int], names: Names, where: str) -> np.ndarray:
    """(H, W) uint8 ids for size (height, width). DataError for a name that is no class, or a shape that is nowhere."""
    picture = Image.new("L", (size[1], size[0]), names.rest)
    pen = ImageDraw.Draw(picture)
    for shape in drawing.shapes:
        id = names.id(shape.name, where)
        if shape.mask is not None:
            mask = Image.fromarray(shape.mask.astype(np.uint8) * 255)
            picture.paste(id, (shape.at[0], shape.at[1]), mask)
        for ring in shape.rings:
            if not all(abs(place) < FAR for corner in ring for place in corner):
                raise DataError(f"{where}: a corner of a {shape.name!r} is nowhere near the picture; mend the shape")
            if len(ring) >= 3:
                pen.polygon(ring, fill=id, outline=id)
    return np.asarray(picture, np.uint8).copy()
