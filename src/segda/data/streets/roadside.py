"""What stands beside the road: trees, bushes, lamps, traffic lights, signs, walls, fences, hedges.

Lengths are metres; `plane` passes through the foot of a thing, l = 0 is its middle; colours are drawn from `rng`.
"""

from __future__ import annotations

import numpy as np

from segda.data.streets.paints import LAMP, Colour, pick, shade, vary
from segda.data.streets.pinhole import CIRCLE, Canvas, Plane


def blob(rng: np.random.Generator, count: int, rough: float) -> np.ndarray:
    """(count, 2): a closed wavy outline of radius about 1."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    radius = 1 + rng.uniform(-rough, rough, count)
    return np.stack([np.cos(angle) * radius, np.sin(angle) * radius], 1).astype(np.float32)


def foliage(
    canvas: Canvas,
    rng: np.random.Generator,
    plane: Plane,
    l: float,
    y: float,
    rx: float,
    ry: float,
    green: Colour,
    thing: int,
    sun: int,
):
    """A crown: a wavy outline, darker below, with lighter tufts towards the sun; leaves come from the texture later."""
    canvas.paint(plane, blob(rng, 26, 0.16) * (rx, ry) + (l, y), shade(green, 0.72), thing)
    spots = rng.uniform(-0.55, 0.55, (7, 2))
    sizes = rng.uniform(0.2, 0.42, 7)
    for (a, b), part in zip(spots[np.argsort(spots[:, 1])], sizes, strict=True):
        light = 0.95 + 0.35 * b + 0.12 * sun * a
        canvas.paint(
            plane,
            CIRCLE * (rx * part, ry * part) + (l + a * rx + 0.08 * sun * rx, y + b * ry + 0.06 * ry),
            shade(green, light),
        )


def tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float, sun: int):
    plane, green = (
        Plane(x, z),
        pick(rng, ((74, 104, 44), (92, 120, 52), (58, 88, 48), (120, 126, 50), (150, 112, 44)), 14),
    )
    thing = canvas.new("vegetation", plane)
    trunk, radius = rng.uniform(1.6, 2.8), rng.uniform(1.3, 2.6)
    tall = radius * rng.uniform(0.95, 1.5)
    canvas.spots.append((x + sun * -0.6, z, radius * 0.9, radius * 0.7))
    canvas.paint(
        plane,
        ((-0.16, 0), (0.16, 0), (0.1, trunk + 0.6), (-0.1, trunk + 0.6)),
        vary(rng, (78, 62, 48), 10),
        thing,
    )
    if rng.random() < 0.15:
        canvas.paint(
            plane,
            np.array(
                (
                    (-1, 0),
                    (1, 0),
                    (0.55, 0.4),
                    (0.7, 0.38),
                    (0.3, 0.75),
                    (0.4, 0.73),
                    (0, 1.2),
                    (-0.4, 0.73),
                    (-0.3, 0.75),
                    (-0.7, 0.38),
                    (-0.55, 0.4),
                )
            )
            * (radius * 0.8, tall * 2.2)
            + (0, trunk * 0.5),
            shade(green, 0.65),
            thing,
        )
        canvas.paint(
            plane,
            np.array(((0, 0.05), (sun * 0.6, 0.05), (sun * 0.2, 0.7), (0, 1.1))) * (radius * 0.8, tall * 2.2)
            + (0, trunk * 0.5),
            shade(green, 0.85),
        )
    else:
        foliage(canvas, rng, plane, 0, trunk + tall * 0.8, radius, tall, green, thing, sun)


def bush(canvas: Canvas, rng: np.random.Generator, x: float, z: float, sun: int):
    plane, green = Plane(x, z), pick(rng, ((70, 100, 46), (90, 116, 56), (60, 84, 50)), 14)
    radius = rng.uniform(0.5, 1.1)
    canvas.spots.append((x, z, radius, radius * 0.6))
    foliage(
        canvas,
        rng,
        plane,
        0,
        radius * 0.55,
        radius,
        radius * 0.75,
        green,
        canvas.new("vegetation", plane),
        sun,
    )


def post(canvas: Canvas, plane: Plane, top: float, colour: Colour, thick: float = 0.07) -> int:
    thing = canvas.new("pole", plane)
    canvas.box(plane, -thick, 0, thick, top, colour, thing)
    canvas.box(plane, thick * 0.3, 0, thick, top, shade(colour, 0.7))
    return thing


def street_lamp(canvas: Canvas, rng: np.random.Generator, x: float, z: float, side: int):
    """A lamp post whose arm reaches over the road (`side` is -1 on the left of the road)."""
    plane, colour, tall = Plane(x, z), vary(rng, (104, 108, 108), 22), rng.uniform(5.5, 8.0)
    pole = post(canvas, plane, tall, colour, 0.085)
    reach = -side * rng.uniform(1.2, 2.0)
    canvas.paint(plane, ((0, tall - 0.14), (reach, tall + 0.16), (reach, tall + 0.28), (0, tall)), colour, pole)
    lamp = canvas.new("pole", plane, LAMP)
    canvas.paint(
        plane,
        (
            (reach * 0.8, tall + 0.08),
            (reach * 1.25, tall + 0.12),
            (reach * 1.25, tall + 0.26),
            (reach * 0.8, tall + 0.24),
        ),
        (206, 204, 190),
        lamp,
    )
    canvas.lamps.append((x + reach, tall, z))
    canvas.spots.append((x, z, 0.25, 0.2))


def traffic_light(canvas: Canvas, rng: np.random.Generator, x: float, z: float, state: int):
    plane, tall = Plane(x, z), rng.uniform(2.9, 3.6)
    post(canvas, plane, tall, vary(rng, (90, 92, 94), 16))
    case = canvas.new("traffic light", plane)
    canvas.box(plane, -0.2, tall - 0.15, 0.2, tall + 0.95, (26, 30, 28), case)
    for place, (on, off) in enumerate(
        (((70, 255, 130), (20, 60, 36)), ((255, 190, 40), (70, 56, 20)), ((255, 44, 30), (70, 22, 20)))
    ):
        shining = place == state
        thing = canvas.new("traffic light", plane, on) if shining else None
        canvas.disc(plane, 0, tall + 0.06 + 0.34 * place, 0.13, 0.13, on if shining else off, thing)
    canvas.spots.append((x, z, 0.25, 0.2))


def traffic_sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float):
    plane, tall, size = Plane(x, z), rng.uniform(2.1, 2.9), rng.uniform(0.34, 0.46)
    post(canvas, plane, tall + 0.1, vary(rng, (150, 152, 154), 14), 0.045)
    sign, red, blue = (
        canvas.new("traffic sign", plane),
        vary(rng, (196, 26, 30), 12),
        vary(rng, (24, 74, 168), 14),
    )
    kind = rng.integers(6)
    if kind == 0:
        canvas.disc(plane, 0, tall, size, size, red, sign)
        canvas.disc(plane, 0, tall, size * 0.74, size * 0.74, (240, 240, 236))
        canvas.box(plane, -size * 0.3, tall - size * 0.3, size * 0.3, tall + size * 0.3, (40, 40, 42))
    elif kind == 1:
        triangle = np.array(((-1.05, -0.75), (1.05, -0.75), (0, 1.05)))
        canvas.paint(plane, triangle * size + (0, tall), red, sign)
        canvas.paint(plane, triangle * size * 0.62 + (0, tall), (242, 240, 232))
    elif kind == 2:
        canvas.box(plane, -size, tall - size, size, tall + size, blue, sign)
        canvas.box(plane, -size * 0.45, tall - size * 0.6, size * 0.45, tall + size * 0.6, (240, 242, 244))
    elif kind == 3:
        canvas.paint(
            plane,
            np.array([(np.cos(a), np.sin(a)) for a in np.pi / 8 + np.arange(8) * np.pi / 4]) * size + (0, tall),
            red,
            sign,
        )
        canvas.box(plane, -size * 0.7, tall - size * 0.2, size * 0.7, tall + size * 0.2, (244, 240, 240))
    elif kind == 4:
        canvas.disc(plane, 0, tall, size, size, blue, sign)
        canvas.paint(
            plane,
            np.array(((-0.2, -0.6), (0.2, -0.6), (0.2, 0.1), (0.5, 0.1), (0, 0.7), (-0.5, 0.1), (-0.2, 0.1))) * size
            + (0, tall),
            (240, 242, 246),
        )
    else:
        canvas.paint(
            plane,
            np.array(((-1, 0), (0, -1), (1, 0), (0, 1))) * size * 1.1 + (0, tall),
            (244, 244, 240),
            sign,
        )
        canvas.paint(plane, np.array(((-1, 0), (0, -1), (1, 0), (0, 1))) * size * 0.78 + (0, tall), (236, 180, 30))
    canvas.spots.append((x, z, 0.22, 0.18))


def barrier(canvas: Canvas, rng: np.random.Generator, kind: str, plane: Plane, length: float, sun: float):
    """A wall, a fence or a hedge along the street; a fence's label is its whole panel, so the panel is painted."""
    thing = canvas.new({"hedge": "vegetation"}.get(kind, kind), plane)
    if kind == "wall":
        tall, colour = (
            rng.uniform(1.2, 2.6),
            shade(pick(rng, ((150, 140, 128), (168, 104, 84), (170, 170, 166), (120, 116, 112)), 14), sun),
        )
        canvas.box(plane, 0, 0, length, tall, colour, thing)
        canvas.box(plane, 0, tall - 0.14, length, tall + 0.04, shade(colour, 1.2), thing)
        for course in np.arange(0.3, tall - 0.2, 0.3):
            canvas.box(plane, 0, course - 0.015, length, course + 0.015, shade(colour, 0.8))
    elif kind == "fence":
        tall, colour = (
            rng.uniform(0.9, 1.8),
            shade(pick(rng, ((126, 96, 66), (70, 74, 78), (196, 194, 186), (60, 90, 66)), 12), sun),
        )
        canvas.box(plane, 0, 0, length, tall, shade(colour, 0.55), thing)
        step = 0.3
        starts = np.arange(0, length - step * 0.5, step)
        bar = np.array(((0, 0.02), (step * 0.55, 0.02), (step * 0.55, tall), (0, tall)), np.float32)
        bars = bar[None] + np.stack([starts, np.zeros_like(starts)], 1)[:, None]
        canvas.fill(canvas.pixels(plane, bars), colour)
        for rail in (0.25, 0.8):
            canvas.box(plane, 0, tall * rail - 0.05, length, tall * rail + 0.05, shade(colour, 0.85))
    else:
        tall, green = rng.uniform(0.9, 1.9), shade(pick(rng, ((62, 92, 44), (80, 108, 50)), 12), sun)
        count = max(3, int(length / 0.7))
        ridge = np.stack([np.linspace(length, 0, count), tall + rng.uniform(-0.12, 0.12, count)], 1)
        canvas.paint(plane, np.concatenate([((0, 0), (length, 0)), ridge]), shade(green, 0.8), thing)
        canvas.paint(plane, np.concatenate([((0, tall * 0.75), (length, tall * 0.75)), ridge]), shade(green, 1.1))
