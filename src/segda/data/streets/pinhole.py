"""A painter with a pinhole camera: polygons in metres become an image, and the ids of what each pixel shows.

The camera stands at the origin, `height` above a flat ground, and looks along z; x is to the right, y is up from the
ground:

    u = centre + focal x / z,    v = horizon + focal (height - y) / z        (pixels, to the right and down)

Everything is painted from far to near. Beside the image, every silhouette goes into `ids`, without smoothing; an id is
a row (class, plane, light), so that exact labels, depth and what glows at night are read from one buffer after the last
stroke.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from segda.data.labels.spaces import SPACES
from segda.data.streets.paints import Colour

CLASSES = {name: index for index, name in enumerate(SPACES["cityscapes-19"].classes)}
NEAR, SKY_DEPTH = 0.6, 1000.0
SUBPIXEL = 4
"""Polygon corners are given to OpenCV in sixteenths of a pixel."""


@dataclass(frozen=True, slots=True)
class Plane:
    """An upright plane: local (l, y) metres lie at (x + dx l, y, z + dz l). Facing the camera: dx, dz = 1, 0."""

    x: float
    z: float
    dx: float = 1.0
    dz: float = 0.0

    def beside(self, l: float, back: float = 0.0) -> Plane:
        """The same direction, `l` metres further along it and `back` metres further from the camera."""
        return Plane(self.x + self.dx * l, self.z + self.dz * l + back, self.dx, self.dz)


class Canvas:
    """What has been painted so far.

    lamps, beams: sources of light (x, y, z). spots: shadows on the ground.
    """

    def __init__(self, size: tuple[int, int], focal: float, centre: float, horizon: float, height: float):
        self.size = size
        self.focal, self.centre, self.horizon = focal * size[1], centre * size[1], horizon * size[0]
        self.height = height
        self.image = np.zeros((*size, 3), np.uint8)
        self.ids = np.zeros(size, np.uint16)
        self.rows: list[tuple[int, float, float, float, Colour]] = []
        self.spots: list[tuple[float, float, float, float]] = []
        self.lamps: list[tuple[float, float, float]] = []
        self.road = (0.0, 0.0, 0.0)  # see `street`: start, bend and half the distance of the lanes
        self.beams: list[tuple[float, float, float]] = []

    def new(self, name: str, plane: Plane, light: Colour = (0, 0, 0)) -> int:
        """An id for pixels of class `name` on `plane`; `light` is the RGB that they give off at night."""
        depth_times = plane.z * plane.dx - plane.x * plane.dz
        self.rows.append((CLASSES[name], depth_times, plane.dx, plane.dz, light))
        return len(self.rows) - 1

    def pixels(self, plane: Plane, points) -> np.ndarray:
        """(..., 2) local metres -> (..., 2) int32 sixteenths of a pixel."""
        points = np.asarray(points, np.float32)
        # Most planes face the camera: one depth for all corners.
        depth = np.maximum(plane.z + plane.dz * points[..., 0], NEAR) if plane.dz else max(plane.z, NEAR)
        pixels = np.empty_like(points)
        pixels[..., 0] = self.centre + self.focal * (plane.x + plane.dx * points[..., 0]) / depth
        pixels[..., 1] = self.horizon + self.focal * (self.height - points[..., 1]) / depth
        return self.fixed(pixels)

    def fixed(self, pixels: np.ndarray) -> np.ndarray:
        return (pixels * (1 << SUBPIXEL) - (1 << (SUBPIXEL - 1))).astype(np.int32)

    def fill(self, pixels: np.ndarray, colour: Colour, thing: int | None = None) -> None:
        """One polygon, or (n, m, 2) of them at a time when none overlaps another; into `ids` too if it is a `thing`."""
        polygons = [pixels] if pixels.ndim == 2 else list(pixels)
        cv2.fillPoly(self.image, polygons, colour, cv2.LINE_AA, SUBPIXEL)
        if thing is not None:
            cv2.fillPoly(self.ids, polygons, thing, cv2.LINE_8, SUBPIXEL)

    def paint(self, plane: Plane, points, colour: Colour, thing: int | None = None) -> None:
        self.fill(self.pixels(plane, points), colour, thing)

    def box(self, plane: Plane, left: float, bottom: float, right: float, top: float, colour: Colour, thing=None):
        self.paint(plane, ((left, bottom), (right, bottom), (right, top), (left, top)), colour, thing)

    def disc(self, plane: Plane, l: float, y: float, rx: float, ry: float, colour: Colour, thing=None) -> None:
        self.paint(plane, CIRCLE * (rx, ry) + (l, y), colour, thing)

    def top(self, corners, y: float, colour: Colour, thing: int | None = None) -> None:
        """Level polygons at height y with corners (..., 2) = (x, z): a bonnet, the road, its markings."""
        corners = np.asarray(corners, np.float32)
        depth = np.maximum(corners[..., 1], NEAR)
        u = self.centre + self.focal * corners[..., 0] / depth
        v = self.horizon + self.focal * (self.height - y) / depth
        self.fill(self.fixed(np.stack([u, v], -1)), colour, thing)

    def pixel_size(self, plane: Plane) -> float:
        """Pixels a metre."""
        return self.focal / max(plane.z, NEAR)

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """(W,) and (H,): x / z of each column, and (height - y) / z of each row (positive below the horizon)."""
        height, width = self.size
        across = (np.arange(width, dtype=np.float32) + 0.5 - self.centre) / self.focal
        down = (np.arange(height, dtype=np.float32) + 0.5 - self.horizon) / self.focal
        return across, down

    def label(self) -> np.ndarray:
        """(H, W) uint8 train ids."""
        return np.array([row[0] for row in self.rows], np.uint8)[self.ids]

    def light(self) -> np.ndarray:
        """(H, W, 3) float32, 0..255: what the pixels give off by themselves at night."""
        return np.array([row[4] for row in self.rows], np.float32)[self.ids]

    def depth(self, grounds: int) -> np.ndarray:
        """(H, W) float32 metres along z.

        Ids below `grounds` lie on the ground, where depth = height / row ray; a plane's depth is
        (z dx - x dz) / (dx - s dz) for the column ray s; the sky's is SKY_DEPTH.
        """
        across, down = self.rays()
        table = np.array([row[1:4] for row in self.rows], np.float32)
        times, dx, dz = (np.ascontiguousarray(column)[self.ids] for column in table.T)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = times / (dx - across * dz)
        ground = np.minimum(self.height / np.maximum(down, 1e-6), SKY_DEPTH)
        depth = np.where(self.ids < grounds, ground[:, None], depth)
        return np.clip(depth, NEAR, SKY_DEPTH, out=depth)


ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1).astype(np.float32)


class Painted:
    """A painted street with what the weather needs to know of each pixel."""

    def __init__(self, canvas: Canvas, grounds: int):
        self.canvas = canvas
        self.label, self.depth = canvas.label(), canvas.depth(grounds)
        self.ground = canvas.ids < grounds
