"""RenderedScene street scenes with exact labels and depth: the embedded data set.

A scene is a pure function of (seed, index, condition, size). A street is laid out in metres (a road with a slight bend,
pavements, grass, rows of houses, what stands and moves on them), painted by a pinhole camera from far to near, and then
put into its weather. Layout and labels depend on (seed, index) alone, so the same street can be had by day, in fog,
rain, at dusk, at night and in snow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from segda.data.streets import houses, people, roadside, vehicles, weather
from segda.data.streets.conditions import CONDITIONS, FOG
from segda.data.streets.ground import FAR, GROUNDS, ground, texture
from segda.data.streets.pinhole import Canvas, Painted, Plane
from segda.data.weather.stereo import Camera
from segda.errors import RecipeError, nearest

BASELINE = 0.22
"""Metres between the two cameras that there might have been; about that of Cityscapes."""

WEATHERS = {
    "day": weather.day,
    "rain": weather.rain,
    "dusk": weather.dusk,
    "night": weather.night,
    "snow": weather.snow,
}


@dataclass(frozen=True, slots=True)
class RenderedScene:
    """image (H, W, 3) uint8 RGB, label (H, W) uint8 train ids of cityscapes-19, depth (H, W) float32 metres.

    camera: what the depth would be measured with, had it been by two cameras.
    """

    image: np.ndarray
    label: np.ndarray
    depth: np.ndarray
    camera: Camera


def draw(seed: int, index: int, condition: str, size: tuple[int, int] = (256, 512)) -> RenderedScene:
    """Scene number `index` of `seed` in its weather; see CONDITIONS. size: (height, width)."""
    if condition not in CONDITIONS:
        raise RecipeError(f"streets has no condition {condition!r}{nearest(condition, CONDITIONS)}")
    canvas = street(np.random.default_rng((seed, index)), size)
    view = Painted(canvas, len(GROUNDS))
    texture(canvas, view, np.random.default_rng((seed, index, 1)))
    rng = np.random.default_rng((seed, index, 2))
    if condition in FOG:
        image = weather.fog(weather.day(view, rng), view.depth, FOG[condition], weather.airlight(seed, index))
    else:
        image = WEATHERS[condition](view, rng)
    camera = Camera(canvas.focal, canvas.centre - 0.5, canvas.horizon - 0.5, BASELINE)
    return RenderedScene(image, view.label, view.depth, camera)


def street(rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    """Lays out one street and paints it; the numbers drawn from `rng` do not depend on `size`."""
    canvas = Canvas(
        size, rng.uniform(0.82, 1.0), rng.uniform(0.44, 0.56), rng.uniform(0.4, 0.5), rng.uniform(1.35, 1.75)
    )
    sun, half = (-1 if rng.random() < 0.5 else 1), rng.uniform(3.3, 5.6)
    lane = (half - (2.1 if half > 4.6 else 0.0)) / 2
    start, bend = -lane + rng.uniform(-0.6, 0.6), rng.uniform(-1, 1) * 0.0013
    crossing = rng.uniform(16, 55) if rng.random() < 0.45 else None
    crossed = (crossing, crossing + rng.uniform(6, 10)) if crossing else (2 * FAR, 2 * FAR)
    canvas.road = (start, bend, lane)

    def at(t: float, z: float) -> float:
        """x of what is `t` metres right of the road's middle, z metres ahead."""
        return start + bend * z * z + t

    verges = {
        side: (
            rng.uniform(1.6, 3.8),
            rng.uniform(1.0, 3.5) if rng.random() < 0.4 else 0.0,
            rng.uniform(0.0, 5.0) if rng.random() < 0.4 else 0.0,
        )
        for side in (-1, 1)
    }
    ground(canvas, rng, at, half, lane, verges, crossed)
    todo: list[tuple[float, Callable[[], None]]] = []

    def put(z: float, function, *settings) -> None:
        """Remembers to paint something at depth z, with a generator of its own."""
        own = rng.integers(2**63)
        todo.append((z, lambda: function(canvas, np.random.Generator(np.random.PCG64(own)), *settings)))

    for side, (walk, strip, yard) in verges.items():
        offset = half + walk + strip + yard
        row_of_houses(rng, put, at, side, offset, yard, crossed, sun)
        furniture(rng, put, at, side, half, walk, strip, crossed, sun)
    traffic(rng, put, at, half, lane, crossed, sun)
    for _, paint in sorted(todo, key=lambda item: -item[0]):
        paint()
    return canvas


def row_of_houses(rng: np.random.Generator, put, at, side: int, offset: float, yard: float, crossed, sun: int) -> None:
    """One side of the street, piece after piece: houses, and gaps with fences, walls, hedges and trees."""
    built = (0.95, 0.7, 0.45, 0.12)[rng.integers(4)]
    tall = int(rng.integers(2, 6))
    bright, gable = rng.uniform(1.0, 1.18), rng.uniform(0.75, 0.95)
    if side == sun:
        bright, gable = rng.uniform(0.62, 0.8), rng.uniform(0.85, 1.05)
    z = rng.uniform(1.6, 3.0)
    kind = ("fence", "wall", "hedge")[rng.integers(3)]
    while z < 120:
        house = rng.random() < built
        long = rng.uniform(8, 18) if house else rng.uniform(5, 14)
        if z < crossed[1] + 1.5 and z + long > crossed[0] - 1.5:
            if crossed[0] - 1.5 - z > 4:
                long = crossed[0] - 1.5 - z
            else:
                z = crossed[1] + 1.5
        x = at(side * offset, z)
        plane = Plane(x, z, (at(side * offset, z + long) - x) / long, 1.0)
        if house:
            put(
                z + long,
                houses.building,
                plane,
                long,
                max(1, tall + int(rng.integers(-1, 2))),
                side,
                bright,
                gable,
            )
        else:
            if rng.random() < 0.35:
                kind = ("fence", "wall", "hedge")[rng.integers(3)]
            put(z + long, roadside.barrier, kind, plane, long, bright)
            for _ in range(rng.integers(1, 4)):
                spot = z + rng.random() * long
                put(
                    spot + 0.1 + long,
                    roadside.tree if rng.random() < 0.7 else roadside.bush,
                    at(side * (offset + rng.uniform(1.5, 6)), spot),
                    spot,
                    sun,
                )
        if yard > 1.5 and rng.random() < 0.6:
            spot = z + rng.random() * long
            put(
                spot,
                roadside.bush if rng.random() < 0.6 else roadside.tree,
                at(side * (offset - 0.8), spot),
                max(spot, 4.0),
                sun,
            )
        z += long + (rng.uniform(0.5, 4) if rng.random() < 0.3 else 0)


def furniture(
    rng: np.random.Generator, put, at, side: int, half: float, walk: float, strip: float, crossed, sun: int
) -> None:
    """What stands and walks on one pavement."""
    edge, inner = half + 0.5, half + 0.3 + strip

    def free(z: float) -> bool:
        return not crossed[0] - 1 < z < crossed[1] + 1

    for z in np.arange(rng.uniform(7, 24), 110, rng.uniform(18, 28)):
        if free(z):
            put(z, roadside.street_lamp, at(side * edge, z), z, side)
    if rng.random() < 0.55:
        for z in np.arange(rng.uniform(8, 16), 100, rng.uniform(8, 15)):
            if free(z) and rng.random() < 0.8:
                put(z, roadside.tree, at(side * (half + 0.2 + max(0.5, strip / 2)), z), z, sun)
    for _ in range(rng.integers(0, 3)):
        z = rng.uniform(7, 34)
        if free(z):
            put(z, roadside.traffic_sign, at(side * (edge + 0.1), z), z)
    if crossed[0] < FAR:
        z = crossed[0] - 0.9
        state = int(rng.integers(3))
        put(z, roadside.traffic_light, at(side * edge, z), z, state)
        if rng.random() < 0.6:
            put(crossed[1] + 1, roadside.traffic_light, at(side * edge, crossed[1] + 1), crossed[1] + 1, state)
    elif rng.random() < 0.3:
        z = rng.uniform(9, 25)
        put(z, roadside.traffic_light, at(side * edge, z), z, int(rng.integers(3)))
    for _ in range(rng.integers(1, 6)):
        z = 5.5 + 38 * rng.random() ** 1.5
        for companion in range(1 + int(rng.random() < 0.3)):
            t = side * (inner + rng.uniform(0.3, max(0.5, walk - 0.4)))
            put(z - 0.1 * companion, people.person, at(t + 0.6 * companion, z), z - 0.1 * companion)
    if rng.random() < 0.4:
        z = 6 + 16 * rng.random()
        kind = "bicycle" if rng.random() < 0.65 else "motorcycle"
        for number in range(rng.integers(1, 4)):
            put(
                z + 1.2 * number,
                people.two_wheeler,
                kind,
                at(side * (inner + max(0.6, walk - 0.8)), z + 1.2 * number),
                z + 1.2 * number,
                rng.random() < 0.75,
                False,
                False,
            )


def traffic(rng: np.random.Generator, put, at, half: float, lane: float, crossed, sun: int) -> None:
    """Vehicles in both lanes, at the kerbs and on the cross-street, and people on the zebra crossing."""
    lit = 0.78 if sun > 0 else 1.1

    def slope(t: float, z: float) -> float:
        return at(t, z + 1) - at(t, z)

    for side in (-1, 1):
        oncoming = side < 0
        z = rng.uniform(8, 24) if side > 0 else rng.uniform(6.5, 22)
        while z < 100:
            t, chance = side * lane + rng.uniform(-0.2, 0.2), rng.random()
            if chance < 0.7:
                put(z, vehicles.car, at(t, z), z, slope(t, z), oncoming, lit)
                long = 5
            elif chance < 0.88:
                kind = ("bus", "truck", "train")[0 if chance < 0.77 else 1 if chance < 0.84 else 2]
                put(z, vehicles.long_vehicle, kind, at(t, z), z, slope(t, z), oncoming, lit)
                long = {"bus": 11, "truck": 8, "train": 24}[kind]
            else:
                put(
                    z,
                    people.two_wheeler,
                    "motorcycle" if chance < 0.95 else "bicycle",
                    at(t, z),
                    z,
                    False,
                    True,
                    oncoming,
                )
                long = 3
            z += long + rng.uniform(4, 26)
        if half > 4.6:
            z = rng.uniform(5, 14)
            while z < 80:
                if rng.random() < 0.7 and not crossed[0] - 8 < z < crossed[1] + 1:
                    t = side * (half - 1.05)
                    if rng.random() < 0.92:
                        put(z, vehicles.car, at(t, z), z, slope(t, z), oncoming, lit)
                    else:
                        put(z, vehicles.long_vehicle, "truck", at(t, z), z, slope(t, z), oncoming, lit)
                        z += 3
                z += rng.uniform(5.2, 7.5)
        if rng.random() < 0.3:
            z, t = rng.uniform(6, 22), side * (half - 0.55 - (2.1 if half > 4.6 else 0))
            put(
                z,
                people.two_wheeler,
                "bicycle" if rng.random() < 0.7 else "motorcycle",
                at(t, z),
                z,
                False,
                True,
                oncoming,
            )
    if crossed[0] < FAR:
        for _ in range(rng.integers(0, 3)):
            z, x = rng.uniform(crossed[0] + 1, crossed[1] - 1), rng.uniform(-0.5, 0.5) * crossed[0]
            if rng.random() < 0.5:
                put(z, vehicles.crossing_car, x, z)
            else:
                put(
                    z,
                    people.two_wheeler,
                    "bicycle" if rng.random() < 0.65 else "motorcycle",
                    x,
                    z,
                    True,
                    True,
                    False,
                )
        for _ in range(rng.integers(0, 4)):
            z = crossed[0] - rng.uniform(1.6, 4.0)
            put(z, people.person, at(rng.uniform(-half, half), z), z)
    elif rng.random() < 0.35:
        z = rng.uniform(8, 20)
        put(
            z,
            people.two_wheeler,
            "bicycle" if rng.random() < 0.65 else "motorcycle",
            at(rng.uniform(-half, half), z),
            z,
            True,
            True,
            False,
        )
