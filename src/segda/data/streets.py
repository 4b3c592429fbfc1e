"""Drawn street scenes with exact labels and depth: the embedded data set, a pure function of (seed, index, condition, size).

A street is laid out in metres (a road with a slight bend, pavements, grass, rows of houses, what stands and moves on them),
painted by a pinhole camera from far to near, and then put into its weather. Layout and labels depend on (seed, index) alone,
so the same street can be had by day, in fog, rain, at night and in snow.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from segda.data import things, weather
from segda.data.pinhole import CLASSES, Canvas, Plane, pick, shade, value_noise, vary
from segda.errors import RecipeError, nearest

CONDITIONS: dict[str, str] = {
    "day": "a clear or lightly clouded day",
    "fog": "the day scene in fog of 0.01 per metre (visibility about 300 m)",
    "fog-0.005": "the day scene in thin fog, 0.005 per metre (visibility about 600 m)",
    "fog-0.01": "the same as fog",
    "fog-0.02": "the day scene in thick fog, 0.02 per metre (visibility about 150 m)",
    "rain": "overcast, streaks, haze with depth, and a wet road that mirrors the scene",
    "night": "street lamps, headlights, lit windows, little other light, more noise",
    "snow": "falling flakes, grey sky, white ground and white tops of things",
}

SPLITS: dict[str, tuple[int, int]] = {"train": (1, 500), "val": (2, 100), "test": (3, 100)}
"""Split -> (seed, number of scenes)."""

FAR = 170.0
GROUNDS = ("road", "sidewalk", "sidewalk", "terrain", "sidewalk", "terrain")
"""The first ids of every canvas: road, pavement, kerb, grass, yard, backyard; all on the ground plane."""
ROAD, PAVEMENT, KERB, GRASS, YARD, BACKYARD = range(len(GROUNDS))


@dataclass(frozen=True, slots=True)
class Drawn:
    """image (H, W, 3) uint8 RGB, label (H, W) uint8 train ids of cityscapes-19, depth (H, W) float32 metres."""

    image: np.ndarray
    label: np.ndarray
    depth: np.ndarray


def draw(seed: int, index: int, condition: str, size: tuple[int, int] = (256, 512)) -> Drawn:
    """Scene number `index` of `seed` in its weather; see CONDITIONS. size: (height, width)."""
    if condition not in CONDITIONS:
        raise RecipeError(f"streets has no condition {condition!r}{nearest(condition, CONDITIONS)}")
    canvas = street(np.random.default_rng((seed, index)), size)
    view = weather.View(canvas, len(GROUNDS))
    texture(canvas, view, np.random.default_rng((seed, index, 1)))
    rng = np.random.default_rng((seed, index, 2))
    kind, _, beta = condition.partition("-")
    if kind == "fog":
        clear = weather.day(view, rng)
        image = weather.fog(clear, view.depth, float(beta or 0.01), weather.airlight(seed, index))
    else:
        image = getattr(weather, kind)(view, rng)
    return Drawn(image, view.label, view.depth)


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

    def beside(t: float, z: float) -> tuple[float, float]:
        return at(t, z), z

    verges = {
        side: (
            rng.uniform(1.6, 3.8),
            rng.uniform(1.0, 3.5) if rng.random() < 0.4 else 0.0,
            rng.uniform(0.0, 5.0) if rng.random() < 0.4 else 0.0,
        )
        for side in (-1, 1)
    }
    ground(canvas, rng, at, half, lane, verges, crossed)
    todo: list[tuple[float, object]] = []

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


def ground(canvas: Canvas, rng: np.random.Generator, at, half: float, lane: float, verges, crossed) -> None:
    """Sky, the end of the street, and the ground with its markings."""
    level = Plane(0, 1)
    for name in GROUNDS:
        canvas.new(name, level)
    asphalt = pick(rng, ((88, 88, 90), (104, 102, 100), (72, 74, 80), (118, 112, 106)), 10)
    paving = pick(rng, ((156, 150, 144), (140, 132, 128), (172, 160, 146), (132, 134, 138), (160, 128, 116)), 12)
    grass = pick(rng, ((104, 128, 62), (120, 132, 72), (92, 116, 60), (142, 134, 82)), 14)
    yard = grass if rng.random() < 0.5 else shade(paving, 0.9)
    colours = (asphalt, paving, shade(paving, 1.18), grass, yard, shade(grass, 0.92))
    paint_sky(canvas, rng)
    width = 2.5 * FAR
    canvas.top(((-width, 0), (width, 0), (width, 4 * FAR), (-width, 4 * FAR)), 0, colours[BACKYARD], BACKYARD)
    z = np.concatenate([[NEAREST], np.geomspace(4, 3 * FAR, 22)])

    def band(low: float, high: float, thing: int) -> None:
        edge = np.concatenate([np.stack([at(low, z), z], 1), np.stack([at(high, z), z], 1)[::-1]])
        canvas.top(edge, 0, colours[thing], thing)

    for side, (walk, strip, depth) in verges.items():
        yard_kind = YARD if yard is not grass else GRASS
        edges = (
            (half, 0.18, KERB),
            (half + 0.18, strip, GRASS),
            (half + 0.18 + strip, walk, PAVEMENT),
            (half + 0.18 + strip + walk, depth, yard_kind),
        )
        for low, wide, thing in edges:
            if wide > 0:
                band(*sorted((side * low, side * (low + wide))), thing)
    band(-half, half, ROAD)
    near, far = crossed
    if near < FAR:
        canvas.top(((-width, near), (width, near), (width, far), (-width, far)), 0, asphalt, ROAD)
    for _ in range(rng.integers(0, 4)):
        t, first, long, wide = (
            rng.uniform(-half, half - 1.2),
            rng.uniform(5, 40),
            rng.uniform(1, 8),
            rng.uniform(0.6, 1.6),
        )
        canvas.top(
            [
                (at(a, b), b)
                for a, b in (
                    (t, first),
                    (min(t + wide, half), first),
                    (min(t + wide, half), first + long),
                    (t, first + long),
                )
            ],
            0,
            shade(asphalt, rng.uniform(0.82, 1.12)),
        )
    white = shade((232, 232, 226), rng.uniform(0.86, 1.0))

    def line(t: float, wide: float, starts: np.ndarray, long: float) -> None:
        starts = starts[(starts + long < near - 1.5) | (starts > far + 1)]
        for first, last, strength in ((0, 25, 1.0), (25, 50, 0.75), (50, 110, 0.45)):
            some = starts[(starts >= first) & (starts < last)]
            if len(some):
                a, b = some, some + long
                quads = np.stack(
                    [np.stack([at(t + s * wide / 2, e), e], 1) for s, e in ((-1, a), (1, a), (1, b), (-1, b))],
                    1,
                )
                canvas.top(
                    quads,
                    0,
                    tuple(strength * w + (1 - strength) * c for w, c in zip(white, asphalt, strict=True)),
                )

    solid = np.arange(NEAREST, 100, 2.0)
    style = rng.random()
    if style < 0.75:
        line(0, 0.14, np.arange(rng.uniform(1, 6), 100, 6.0), 3.0)
    elif style < 0.9:
        line(0, 0.14, solid, 2.0)
    if rng.random() < 0.5:
        for side in (-1, 1):
            line(side * (half - 0.25), 0.12, solid, 2.0)
    if half > 4.6 and rng.random() < 0.6:
        for side in (-1, 1):
            line(side * (2 * lane + 0.05), 0.1, np.arange(2.0, 60, 2.5), 1.2)
    if near < FAR:
        stripes = np.arange(-half + 0.4, half - 0.5, 1.0)
        front, back = near - 4.2, near - 1.4
        canvas.top(
            np.stack(
                [
                    np.stack([at(stripes + a, e), np.full_like(stripes, e)], 1)
                    for a, e in ((0, front), (0.5, front), (0.5, back), (0, back))
                ],
                1,
            ),
            0,
            white,
        )
        canvas.top(
            [
                (at(t, e), e)
                for t, e in (
                    (0.1, front - 1.2),
                    (half - 0.2, front - 1.2),
                    (half - 0.2, front - 0.8),
                    (0.1, front - 0.8),
                )
            ],
            0,
            white,
        )


NEAREST = 1.5


def paint_sky(canvas: Canvas, rng: np.random.Generator) -> None:
    """The sky's id everywhere, its colours down to the horizon, and a skyline of trees or houses at the street's end."""
    sky = canvas.new("sky", Plane(0, 1000))
    canvas.ids[:] = sky
    height, width = canvas.size
    rows = min(height, int(canvas.horizon) + 2)
    blue = np.array(vary(rng, (96, 150, 214) if rng.random() < 0.65 else (150, 168, 190), 18), np.float32)
    pale = np.array(vary(rng, (206, 218, 228), 10), np.float32)
    down = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None] ** 0.8
    colour = np.broadcast_to(blue * (1 - down) + pale * down, (rows, 4, 3)).astype(np.uint8)
    canvas.image[:rows] = cv2.resize(colour, (width, rows), interpolation=cv2.INTER_LINEAR)
    cover, seed = rng.uniform(-0.5, 0.5), rng.integers(2**63)
    own = np.random.default_rng(seed)
    small = (max(8, rows // 2), max(16, width // 4))
    clouds = value_noise(own, small, 5) + 0.5 * value_noise(own, small, 11) + 0.25 * value_noise(own, small, 26)
    share = np.clip((clouds + cover) * 1.6, 0, 0.85)
    share = cv2.resize(share, (width, rows), interpolation=cv2.INTER_LINEAR)[..., None]
    white = np.linspace(250, 226, rows, dtype=np.float32)[:, None, None]
    canvas.image[:rows] = (canvas.image[:rows] * (1 - share) + white * share).astype(np.uint8)
    plane = Plane(0, FAR)
    for name, colour, low, high in (
        ("vegetation", (112, 130, 104), 3, 9),
        ("building", (150, 146, 148), 5, 22),
        ("vegetation", (92, 114, 80), 2, 7),
    ):
        x = np.linspace(-150, 150, 61)
        tops = rng.uniform(low, high, 61) * (rng.random(61) < 0.75)
        if name == "building":
            x, tops = np.repeat(np.linspace(-150, 150, 31), 2)[1:-1], np.repeat(tops[:30], 2)
        canvas.paint(
            plane,
            np.concatenate([np.stack([x, tops], 1), ((150, -0.5), (-150, -0.5))]),
            vary(rng, colour, 10),
            canvas.new(name, plane),
        )


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
                things.building,
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
            put(z + long, things.barrier, kind, plane, long, bright)
            for _ in range(rng.integers(1, 4)):
                spot = z + rng.random() * long
                put(
                    spot + 0.1 + long,
                    things.tree if rng.random() < 0.7 else things.bush,
                    at(side * (offset + rng.uniform(1.5, 6)), spot),
                    spot,
                    sun,
                )
        if yard > 1.5 and rng.random() < 0.6:
            spot = z + rng.random() * long
            put(
                spot,
                things.bush if rng.random() < 0.6 else things.tree,
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
            put(z, things.street_lamp, at(side * edge, z), z, side)
    if rng.random() < 0.55:
        for z in np.arange(rng.uniform(8, 16), 100, rng.uniform(8, 15)):
            if free(z) and rng.random() < 0.8:
                put(z, things.tree, at(side * (half + 0.2 + max(0.5, strip / 2)), z), z, sun)
    for _ in range(rng.integers(0, 3)):
        z = rng.uniform(7, 34)
        if free(z):
            put(z, things.traffic_sign, at(side * (edge + 0.1), z), z)
    if crossed[0] < FAR:
        z = crossed[0] - 0.9
        state = int(rng.integers(3))
        put(z, things.traffic_light, at(side * edge, z), z, state)
        if rng.random() < 0.6:
            put(crossed[1] + 1, things.traffic_light, at(side * edge, crossed[1] + 1), crossed[1] + 1, state)
    elif rng.random() < 0.3:
        z = rng.uniform(9, 25)
        put(z, things.traffic_light, at(side * edge, z), z, int(rng.integers(3)))
    for _ in range(rng.integers(1, 6)):
        z = 5.5 + 38 * rng.random() ** 1.5
        for companion in range(1 + int(rng.random() < 0.3)):
            t = side * (inner + rng.uniform(0.3, max(0.5, walk - 0.4)))
            put(z - 0.1 * companion, things.person, at(t + 0.6 * companion, z), z - 0.1 * companion)
    if rng.random() < 0.4:
        z = 6 + 16 * rng.random()
        kind = "bicycle" if rng.random() < 0.65 else "motorcycle"
        for number in range(rng.integers(1, 4)):
            put(
                z + 1.2 * number,
                things.two_wheeler,
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
                put(z, things.car, at(t, z), z, slope(t, z), oncoming, lit)
                long = 5
            elif chance < 0.88:
                kind = ("bus", "truck", "train")[0 if chance < 0.77 else 1 if chance < 0.84 else 2]
                put(z, things.long_vehicle, kind, at(t, z), z, slope(t, z), oncoming, lit)
                long = {"bus": 11, "truck": 8, "train": 24}[kind]
            else:
                put(
                    z,
                    things.two_wheeler,
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
                        put(z, things.car, at(t, z), z, slope(t, z), oncoming, lit)
                    else:
                        put(z, things.long_vehicle, "truck", at(t, z), z, slope(t, z), oncoming, lit)
                        z += 3
                z += rng.uniform(5.2, 7.5)
        if rng.random() < 0.3:
            z, t = rng.uniform(6, 22), side * (half - 0.55 - (2.1 if half > 4.6 else 0))
            put(
                z,
                things.two_wheeler,
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
                put(z, things.crossing_car, x, z)
            else:
                put(
                    z,
                    things.two_wheeler,
                    "bicycle" if rng.random() < 0.65 else "motorcycle",
                    x,
                    z,
                    True,
                    True,
                    False,
                )
        for _ in range(rng.integers(0, 4)):
            z = crossed[0] - rng.uniform(1.6, 4.0)
            put(z, things.person, at(rng.uniform(-half, half), z), z)
    elif rng.random() < 0.35:
        z = rng.uniform(8, 20)
        put(
            z,
            things.two_wheeler,
            "bicycle" if rng.random() < 0.65 else "motorcycle",
            at(rng.uniform(-half, half), z),
            z,
            True,
            True,
            False,
        )


ROUGH = {
    "road": 0.0,
    "building": 0.05,
    "wall": 0.1,
    "fence": 0.08,
    "vegetation": 0.34,
    "sky": 0.0,
    "terrain": 0.0,
    "sidewalk": 0.0,
}


def texture(canvas: Canvas, view: weather.View, rng: np.random.Generator) -> None:
    """Grain of the ground in perspective, leaves, plaster, and soft shadows on the ground; changes canvas.image."""
    height, width = size = canvas.size
    rough = np.array([ROUGH.get(name, 0.03) for name in CLASSES], np.float32)
    fine = value_noise(rng, size, 200) + 0.7 * value_noise(rng, size, 70)
    bright = 1 + rough[view.label] * fine
    first = max(0, int(np.ceil(canvas.horizon)) + 1)
    across, down = canvas.rays()
    z = (canvas.height / np.maximum(down[first:], 1e-4))[:, None]
    x = across[None] * z
    tile = weather.grain(0)
    sample = lambda cells: cv2.remap(
        tile,
        np.ascontiguousarray((x * cells) % 511),
        np.ascontiguousarray(np.broadcast_to(z * cells % 511, x.shape)),
        cv2.INTER_LINEAR,
    )
    near = np.clip(7 / z, 0, 1)
    grain = sample(23.0) * 0.045 * near + sample(1.7) * 0.035 * np.clip(25 / z, 0, 1)
    ids = canvas.ids[first:]
    grounds = ids < len(GROUNDS)
    strength = np.array([1.0, 0.9, 0.8, 2.4, 1.2, 2.2], np.float32)[np.minimum(ids, len(GROUNDS) - 1)]
    bright[first:] = np.where(grounds, 1 + strength * grain, bright[first:])
    dark = np.zeros(size, np.uint8)
    for sx, sz, rx, rz in canvas.spots:
        if sz - rz > NEAREST:
            u = canvas.centre + canvas.focal * (sx + CIRCLE_X * rx) / (sz + CIRCLE_Z * rz)
            v = canvas.horizon + canvas.focal * canvas.height / (sz + CIRCLE_Z * rz)
            cv2.fillConvexPoly(dark, canvas.fixed(np.stack([u, v], 1)), 255, cv2.LINE_8, 4)
    reach = 2 * (width // 170) + 1
    dark = cv2.GaussianBlur(dark[first:], (reach, reach), 0)
    bright[first:] *= 1 - 0.55 * (dark.astype(np.float32) / 255) * grounds
    cv2.multiply(canvas.image, cv2.merge([bright] * 3), dst=canvas.image, dtype=cv2.CV_8U)


CIRCLE_X, CIRCLE_Z = (
    np.cos(np.linspace(0, 6.283, 14)).astype(np.float32),
    np.sin(np.linspace(0, 6.283, 14)).astype(np.float32),
)
