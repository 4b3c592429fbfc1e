"""Persons, bicycles and motorcycles, with and without riders.

Lengths are metres; `plane` passes through the foot of a thing, l = 0 is its middle; colours are drawn from `rng`.
"""

from __future__ import annotations

import numpy as np

from segda.data.streets.paints import CLOTHES, HEAD, PAINTS, SKINS, STEEL, TAIL, TROUSERS, TYRE, pick, shade
from segda.data.streets.pinhole import Canvas, Plane


def head(canvas: Canvas, rng: np.random.Generator, plane: Plane, l: float, y: float, thing: int, helmet: bool):
    skin, hair = (
        pick(rng, SKINS, 8),
        pick(rng, ((50, 36, 26), (24, 20, 20), (150, 120, 70), (130, 128, 126)), 10),
    )
    cap = pick(rng, PAINTS) if helmet else hair
    canvas.disc(plane, l, y + 0.025, 0.105, 0.13, cap, thing)
    canvas.disc(plane, l, y - 0.03, 0.085, 0.1, skin, thing)


def person(canvas: Canvas, rng: np.random.Generator, x: float, z: float):
    """A walking or standing person: legs, coat, arms, head; a bag now and then."""
    tall = rng.uniform(1.5, 1.92) * (0.7 if rng.random() < 0.12 else 1.0)
    plane, unit = Plane(x, z), tall / 1.75
    coat, legs = pick(rng, CLOTHES), pick(rng, TROUSERS)
    stride, wide = rng.uniform(0.02, 0.3), rng.uniform(0.18, 0.25)
    body = canvas.new("person", plane)
    canvas.spots.append((x, z, 0.42, 0.3))

    def limb(points, colour):
        canvas.paint(plane, np.asarray(points, np.float32) * unit, colour, body)

    limb(((-0.02, 0.88), (0.14, 0.88), (0.1 + stride, 0.06), (stride, 0.06)), shade(legs, 0.8))
    limb(((-0.14, 0.88), (0.02, 0.88), (-stride, 0.06), (-0.1 - stride, 0.06)), legs)
    for foot in (stride + 0.07, -stride - 0.03):
        limb(((foot - 0.08, 0), (foot + 0.12, 0), (foot + 0.08, 0.09), (foot - 0.08, 0.09)), (34, 28, 26))
    long_coat = 0.55 if rng.random() < 0.3 else 0.82
    limb(
        (
            (-wide * 0.85, long_coat),
            (wide * 0.85, long_coat),
            (wide * 0.7, 1.1),
            (wide, 1.42),
            (0.08, 1.5),
            (-0.08, 1.5),
            (-wide, 1.42),
            (-wide * 0.7, 1.1),
        ),
        coat,
    )
    swing = rng.uniform(-0.15, 0.2)
    for sign in (-1, 1):
        limb(
            (
                (sign * wide * 0.75, 1.42),
                (sign * wide * 1.1, 1.4),
                (sign * (wide * 1.15 + swing * 0.3) + swing * 0.4, 0.86),
                (sign * wide * 0.9 + swing * 0.4, 0.86),
            ),
            shade(coat, 0.78),
        )
    if rng.random() < 0.3:
        limb(
            ((wide * 0.8, 0.75), (wide + 0.28, 0.75), (wide + 0.25, 1.08), (wide * 0.9, 1.08)),
            pick(rng, CLOTHES),
        )
    head(canvas, rng, Plane(x, z), 0, 1.63 * unit, body, helmet=False)


def wheel(canvas: Canvas, plane: Plane, l: float, radius: float, thing: int, solid: bool, squeeze: float = 1.0):
    """The label of a wheel is its whole disc, as in the public data sets: so a disc is painted, not what is behind."""
    canvas.disc(plane, l, radius, radius * squeeze, radius, TYRE, thing)
    if squeeze == 1.0:
        canvas.disc(plane, l, radius, radius * 0.82, radius * 0.82, (96, 98, 100) if solid else (134, 134, 132))
        canvas.disc(plane, l, radius, radius * 0.14, radius * 0.14, (40, 40, 42))


def two_wheeler(
    canvas: Canvas,
    rng: np.random.Generator,
    kind: str,
    x: float,
    z: float,
    sideways: bool,
    ridden: bool,
    oncoming: bool,
):
    """A bicycle or a motorcycle, with or without its rider, from the side or from an end."""
    plane, paint = Plane(x, z), pick(rng, PAINTS, 20)
    turn = 1 if rng.random() < 0.5 else -1
    motor = kind == "motorcycle"
    machine = canvas.new(kind, plane)
    canvas.spots.append((x, z, 0.85 if sideways else 0.4, 0.35))
    radius = 0.31 if motor else 0.34

    def part(points, colour, thing=machine):
        canvas.paint(plane, np.asarray(points, np.float32) * (turn, 1), colour, thing)

    if sideways:
        wheel(canvas, plane, -0.62, radius, machine, motor)
        wheel(canvas, plane, 0.62, radius, machine, motor)
        if motor:
            part(
                (
                    (-0.62, 0.3),
                    (0.3, 0.2),
                    (0.45, 0.5),
                    (0.35, 0.86),
                    (0.0, 0.9),
                    (-0.2, 0.74),
                    (-0.85, 0.78),
                    (-0.7, 0.6),
                ),
                paint,
            )
            part(((-0.3, 0.2), (0.25, 0.2), (0.2, 0.48), (-0.25, 0.48)), (60, 60, 64))
            part(((-0.8, 0.74), (-0.1, 0.74), (-0.1, 0.84), (-0.75, 0.86)), (28, 26, 26))
            part(((0.3, 0.9), (0.42, 0.9), (0.66, 0.32), (0.56, 0.3)), STEEL)
            part(((0.15, 1.0), (0.4, 0.96), (0.4, 1.04), (0.15, 1.06)), (30, 30, 32))
        else:
            for a, b in (
                ((-0.62, 0.34), (-0.1, 0.3)),
                ((-0.1, 0.3), (-0.2, 0.85)),
                ((-0.62, 0.34), (-0.18, 0.75)),
                ((-0.18, 0.78), (0.42, 0.82)),
                ((-0.1, 0.3), (0.42, 0.78)),
                ((0.62, 0.34), (0.4, 1.0)),
            ):
                across = np.array((a[1] - b[1], b[0] - a[0]), np.float32)
                across *= 0.032 / np.hypot(*across)
                part(np.array((a - across, b - across, b + across, a + across)), paint)
            part(((-0.34, 0.86), (-0.06, 0.86), (-0.06, 0.93), (-0.34, 0.93)), (30, 26, 24))
            part(((0.24, 1.0), (0.46, 0.98), (0.46, 1.05), (0.24, 1.07)), (34, 34, 36))
    else:
        wheel(canvas, plane, 0.0, radius, machine, motor, 0.26 if motor else 0.14)
        if motor:
            part(((-0.22, 0.35), (0.22, 0.35), (0.26, 0.85), (0.12, 1.0), (-0.12, 1.0), (-0.26, 0.85)), paint)
            part(((-0.4, 0.98), (0.4, 0.98), (0.4, 1.05), (-0.4, 1.05)), (32, 32, 34))
        else:
            part(((-0.04, 0.4), (0.04, 0.4), (0.05, 1.02), (-0.05, 1.02)), paint)
            part(((-0.3, 1.0), (0.3, 1.0), (0.3, 1.06), (-0.3, 1.06)), (36, 36, 38))
        if motor or ridden:
            glow = HEAD if oncoming else TAIL
            lamp = canvas.new(kind, plane, glow)
            canvas.disc(plane, 0, 0.84 if oncoming else 0.7, 0.09, 0.09, glow, lamp)
            if oncoming and motor:
                canvas.beams.append((x, 0.8, z))
    if not ridden:
        return
    rider = canvas.new("rider", plane)
    coat, legs = pick(rng, CLOTHES), pick(rng, TROUSERS)
    if sideways:
        knee = rng.uniform(0.6, 0.75)
        part(((-0.3, 0.98), (-0.12, 0.86), (0.22, knee), (0.2, knee + 0.16)), legs, rider)
        part(((0.08, knee + 0.1), (0.24, knee + 0.1), (0.08, 0.22), (-0.06, 0.22)), shade(legs, 0.85), rider)
        part(((-0.08, 0.2), (0.16, 0.2), (0.14, 0.28), (-0.06, 0.28)), (36, 30, 28), rider)
        part(((-0.36, 0.9), (-0.06, 0.9), (0.26, 1.38), (0.1, 1.5), (-0.1, 1.44)), coat, rider)
        part(((0.12, 1.42), (0.24, 1.34), (0.44, 1.0), (0.36, 0.98)), shade(coat, 0.8), rider)
        head(canvas, rng, plane, turn * 0.24, 1.6, rider, helmet=motor or rng.random() < 0.6)
    else:
        for sign in (-1, 1):
            canvas.paint(
                plane,
                np.array(((0.04, 0.9), (0.2, 0.92), (0.24, 0.55), (0.16, 0.24), (0.07, 0.24), (0.1, 0.55))) * (sign, 1),
                legs,
                rider,
            )
        canvas.paint(
            plane,
            ((-0.19, 0.86), (0.19, 0.86), (0.25, 1.38), (0.1, 1.48), (-0.1, 1.48), (-0.25, 1.38)),
            coat,
            rider,
        )
        for sign in (-1, 1):
            canvas.paint(
                plane,
                np.array(((0.2, 1.4), (0.27, 1.34), (0.38, 1.04), (0.28, 1.02))) * (sign, 1),
                shade(coat, 0.8),
                rider,
            )
        head(canvas, rng, plane, 0, 1.62, rider, helmet=motor or rng.random() < 0.6)
