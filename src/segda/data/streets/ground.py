"""The ground of a street with its markings, grain and shadows; the sky above it and the skyline at its end."""

from __future__ import annotations

import cv2
import numpy as np

from segda.data.streets.noise import grain, value_noise
from segda.data.streets.paints import pick, shade, vary
from segda.data.streets.pinhole import CLASSES, Canvas, Painted, Plane

FAR = 170.0
"""Metres to the end of the street."""
NEAREST = 1.5
"""Metres to the nearest ground that is painted."""
GROUNDS = ("road", "sidewalk", "sidewalk", "terrain", "sidewalk", "terrain")
"""The first ids of every canvas: road, pavement, kerb, grass, yard, backyard; all on the ground plane."""
ROAD, PAVEMENT, KERB, GRASS, YARD, BACKYARD = range(len(GROUNDS))

PLASTER = 0.03
ROUGH = {"building": 0.05, "wall": 0.1, "fence": 0.08, "vegetation": 0.34} | dict.fromkeys(
    ("road", "sidewalk", "terrain", "sky"), 0.0
)
"""How much the brightness of a class varies from place to place, PLASTER if not said; the ground has its own grain."""

CIRCLE_X, CIRCLE_Z = (turn(np.linspace(0, 6.283, 14)).astype(np.float32) for turn in (np.cos, np.sin))


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
                left, right = sorted((side * low, side * (low + wide)))
                band(left, right, thing)
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
                red, green, blue = (strength * w + (1 - strength) * c for w, c in zip(white, asphalt, strict=True))
                canvas.top(quads, 0, (red, green, blue))

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


def paint_sky(canvas: Canvas, rng: np.random.Generator) -> None:
    """The sky's id everywhere, its colours down to the horizon, a skyline of trees or houses at the street's end."""
    sky = canvas.new("sky", Plane(0, 1000))
    canvas.ids[:] = sky
    height, width = canvas.size
    rows = min(height, int(canvas.horizon) + 2)
    blue = np.array(vary(rng, (96, 150, 214) if rng.random() < 0.65 else (150, 168, 190), 18), np.float32)
    pale = np.array(vary(rng, (206, 218, 228), 10), np.float32)
    down = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None] ** 0.8
    gradient = np.broadcast_to(blue * (1 - down) + pale * down, (rows, 4, 3)).astype(np.uint8)
    canvas.image[:rows] = cv2.resize(gradient, (width, rows), interpolation=cv2.INTER_LINEAR)
    cover, seed = rng.uniform(-0.5, 0.5), rng.integers(2**63)
    own = np.random.default_rng(seed)
    small = (max(8, rows // 2), max(16, width // 4))
    clouds = value_noise(own, small, 5) + 0.5 * value_noise(own, small, 11) + 0.25 * value_noise(own, small, 26)
    share: np.ndarray = np.clip((clouds + cover) * 1.6, 0, 0.85)
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


def texture(canvas: Canvas, view: Painted, rng: np.random.Generator) -> None:
    """Grain of the ground in perspective, leaves, plaster, and soft shadows on the ground; changes canvas.image."""
    size = canvas.size
    width = size[1]
    rough = np.array([ROUGH.get(name, PLASTER) for name in CLASSES], np.float32)
    fine = value_noise(rng, size, 200) + 0.7 * value_noise(rng, size, 70)
    bright = 1 + rough[view.label] * fine
    first = max(0, int(np.ceil(canvas.horizon)) + 1)
    across, down = canvas.rays()
    z = (canvas.height / np.maximum(down[first:], 1e-4))[:, None]
    x = across[None] * z
    tile = grain(0)

    def sample(cells: float) -> np.ndarray:
        across_tile = np.ascontiguousarray((x * cells) % 511)
        down_tile = np.ascontiguousarray(np.broadcast_to(z * cells % 511, x.shape))
        return cv2.remap(tile, across_tile, down_tile, cv2.INTER_LINEAR)

    near = np.clip(7 / z, 0, 1)
    rough_ground = sample(23.0) * 0.045 * near + sample(1.7) * 0.035 * np.clip(25 / z, 0, 1)
    ids = canvas.ids[first:]
    grounds = ids < len(GROUNDS)
    strength = np.array([1.0, 0.9, 0.8, 2.4, 1.2, 2.2], np.float32)[np.minimum(ids, len(GROUNDS) - 1)]
    bright[first:] = np.where(grounds, 1 + strength * rough_ground, bright[first:])
    dark: np.ndarray = np.zeros(size, np.uint8)
    for sx, sz, rx, rz in canvas.spots:
        if sz - rz > NEAREST:
            u = canvas.centre + canvas.focal * (sx + CIRCLE_X * rx) / (sz + CIRCLE_Z * rz)
            v = canvas.horizon + canvas.focal * canvas.height / (sz + CIRCLE_Z * rz)
            cv2.fillConvexPoly(dark, canvas.fixed(np.stack([u, v], 1)), 255, cv2.LINE_8, 4)
    reach = 2 * (width // 170) + 1
    dark = cv2.GaussianBlur(dark[first:], (reach, reach), 0)
    bright[first:] *= 1 - 0.55 * (dark.astype(np.float32) / 255) * grounds
    cv2.multiply(canvas.image, cv2.merge([bright] * 3), dst=canvas.image, dtype=cv2.CV_8U)
