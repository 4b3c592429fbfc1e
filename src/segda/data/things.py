"""What stands in a drawn street: vehicles, people, trees, poles, signs, houses, each a function that paints itself on a Canvas.

Lengths are metres, `plane` passes through the thing's foot (l = 0 is its middle), colours are drawn from `rng`.
"""

from __future__ import annotations

import numpy as np

from segda.data.pinhole import CIRCLE, Canvas, Colour, Plane, pick, shade, vary

PAINTS = (
    (225, 225, 222), (35, 36, 40), (120, 124, 130), (178, 182, 186), (150, 30, 32), (32, 60, 130),
    (40, 92, 66), (206, 168, 44), (190, 176, 148), (90, 140, 180), (110, 60, 40), (200, 96, 30),
)  # fmt: skip
CLOTHES = (
    (40, 44, 60), (150, 40, 46), (44, 84, 140), (205, 200, 190), (84, 96, 60), (190, 150, 60),
    (110, 60, 120), (70, 66, 62), (210, 120, 130), (60, 140, 140), (22, 24, 28), (160, 160, 168),
)  # fmt: skip
TROUSERS = ((36, 42, 66), (30, 30, 34), (96, 86, 70), (70, 90, 120), (120, 116, 110), (60, 40, 36))
SKINS = ((232, 190, 160), (200, 150, 118), (150, 104, 76), (92, 62, 48))
FACADES = (
    (176, 96, 76), (202, 184, 150), (150, 150, 152), (214, 208, 196), (196, 160, 110), (122, 106, 98),
    (160, 176, 184), (206, 156, 132), (140, 78, 62), (184, 190, 160), (100, 112, 124), (222, 196, 140),
)  # fmt: skip
GLASS, TYRE, STEEL = (62, 78, 92), (26, 26, 28), (118, 120, 122)
TAIL, HEAD, LAMP, WINDOW = (210, 24, 16), (255, 246, 220), (255, 214, 140), (255, 200, 110)


# Vehicles: a face towards the camera, the side that can be seen, and what lies on them.

CAR_SIDE = np.array([(0, 0.28), (1, 0.28), (1, 0.62), (0.97, 0.82), (0.74, 0.94), (0.06, 0.98), (0, 0.8)], np.float32)
CAR_CABIN = np.array([(0.06, 0.94), (0.74, 0.92), (0.56, 1.44), (0.17, 1.46)], np.float32)
CAR_REAR_GLASS = np.array([(0.13, 0.97), (0.39, 0.97), (0.39, 1.37), (0.2, 1.37)], np.float32)
CAR_FRONT_GLASS = np.array([(0.42, 0.97), (0.68, 0.97), (0.545, 1.37), (0.42, 1.37)], np.float32)


def car_side(canvas: Canvas, plane: Plane, length: float, scale: float, paint: Colour, thing: int, forward: bool):
    """A car's profile from l = 0 (rear) to l = length; the other way round if not `forward`."""

    def along(shape):
        points = shape * (length, scale)
        return points if forward else points * (-1, 1) + (length, 0)

    canvas.paint(plane, along(CAR_CABIN), shade(paint, 0.9), thing)
    canvas.paint(plane, along(CAR_SIDE), paint, thing)
    canvas.paint(plane, along(CAR_REAR_GLASS), GLASS)
    canvas.paint(plane, along(CAR_FRONT_GLASS), shade(GLASS, 1.15))
    canvas.paint(plane, along(np.array([(0, 0.28), (1, 0.28), (1, 0.4), (0, 0.4)], np.float32)), shade(paint, 0.6))
    for wheel in (0.2, 0.8):
        middle = length * (wheel if forward else 1 - wheel)
        canvas.disc(plane, middle, 0.33, 0.34, 0.34, TYRE, thing)
        canvas.disc(plane, middle, 0.33, 0.18, 0.18, (150, 152, 156))


def car(canvas: Canvas, rng: np.random.Generator, x: float, z: float, slope: float, oncoming: bool, shine: float):
    """A car along the road: its end at z, its visible side behind it."""
    paint, scale = pick(rng, PAINTS), rng.uniform(0.95, 1.22)
    length, half = rng.uniform(3.7, 4.7), rng.uniform(0.84, 0.95)
    canvas.spots.append((x, z + length / 2, half * 1.25, length * 0.56))
    left = x > 0
    edge = -half if left else half
    side = Plane(x + edge, z, slope, 1.0)
    body = canvas.new("car", Plane(x, z))
    if abs(x) > half:
        flank = canvas.new("car", side)
        car_side(
            canvas,
            side,
            length,
            scale,
            shade(paint, shine if left else 1.5 - 0.6 * shine),
            flank,
            not oncoming,
        )
    face = Plane(x, z)
    bonnet, cabin = (0.27, 0.46) if oncoming else (0.05, 0.16)
    near, far = z + bonnet * length, z + cabin * length
    deep = 0.96 * scale
    low, high = Plane(x + slope * bonnet * length, near), Plane(x + slope * cabin * length, far)
    screen = [
        canvas.pixels(low, ((-half * 0.92, deep), (half * 0.92, deep))),
        canvas.pixels(high, ((half * 0.72, 1.46 * scale), (-half * 0.72, 1.46 * scale))),
    ]
    canvas.fill(np.concatenate(screen), shade(paint, 0.95), body)
    pane = [
        canvas.pixels(low, ((-half * 0.82, deep + 0.05), (half * 0.82, deep + 0.05))),
        canvas.pixels(high, ((half * 0.66, 1.4 * scale), (-half * 0.66, 1.4 * scale))),
    ]
    canvas.fill(np.concatenate(pane), shade(GLASS, 1.25 if oncoming else 0.95), body)
    canvas.top(
        ((x - half, z), (x + half, z), (low.x + half * 0.92, near), (low.x - half * 0.92, near)),
        0.94 * scale,
        shade(paint, 1.15),
        body,
    )
    for wheel in (-0.8, 0.8):
        canvas.box(face, (wheel - 0.13) * half, 0.0, (wheel + 0.13) * half, 0.4, TYRE, body)
    outline = np.array([(-0.98, 0.24), (0.98, 0.24), (1, 0.5), (0.97, 0.94), (-0.97, 0.94), (-1, 0.5)], np.float32)
    canvas.paint(face, outline * (half, scale), paint, body)
    canvas.box(face, -half, 0.24 * scale, half, 0.42 * scale, shade(paint, 0.62))
    canvas.box(face, -0.26, 0.46 * scale, 0.26, 0.57 * scale, (225, 222, 205))
    glow = HEAD if oncoming else TAIL
    lamp = canvas.new("car", face, shade(glow, 1.0))
    for sign in (-1, 1):
        inner, outer = sorted((sign * half * 0.62, sign * half * 0.96))
        canvas.box(face, inner, 0.62 * scale, outer, 0.78 * scale, glow if not oncoming else (238, 238, 228), lamp)
    if oncoming:
        canvas.box(face, -half * 0.5, 0.6 * scale, half * 0.5, 0.76 * scale, (40, 40, 44))
        canvas.beams.append((x, 0.7, z))


def crossing_car(canvas: Canvas, rng: np.random.Generator, x: float, z: float):
    """A car seen from the side, on a cross-street."""
    length = rng.uniform(3.8, 4.7)
    plane = Plane(x - length / 2, z)
    canvas.spots.append((x, z, length * 0.55, 0.9))
    body = canvas.new("car", plane)
    forward = rng.random() < 0.5
    car_side(canvas, plane, length, rng.uniform(0.95, 1.2), pick(rng, PAINTS), body, forward)
    front, rear = (length - 0.12, 0.12) if forward else (0.12, length - 0.12)
    for middle, glow in ((front, HEAD), (rear, TAIL)):
        canvas.box(plane, middle - 0.12, 0.66, middle + 0.12, 0.8, glow, canvas.new("car", plane, glow))


def box_side(canvas: Canvas, side: Plane, length: float, height: float, paint: Colour, kind: str, thing: int):
    canvas.box(side, 0, 0.35, length, height, paint, thing)
    if kind in ("bus", "train"):
        canvas.box(side, 0, 0.35, length, 0.9, shade(paint, 0.7))
        count = int(length / 1.6)
        starts = 0.3 + np.arange(count) * (length - 0.4) / count
        wide = (length - 0.4) / count - 0.22
        quad = np.array([(0, 0.42 * height), (1, 0.42 * height), (1, 0.84 * height), (0, 0.84 * height)], np.float32)
        panes = np.stack([quad * (wide, 1) + (start, 0) for start in starts])
        canvas.fill(canvas.pixels(side, panes), GLASS)
        lit = canvas.new(kind, side, (200, 190, 150))
        canvas.fill(canvas.pixels(side, panes), shade(GLASS, 1.1), lit)
        for door in (0.12, 0.62):
            canvas.box(side, door * length, 0.42, door * length + 1.1, 0.84 * height, shade(GLASS, 0.7))
    if kind == "train":
        canvas.box(side, 0, 0.0, length, 0.35, (44, 44, 46), thing)
        canvas.box(side, 0, 0.88 * height, length, 0.93 * height, (230, 230, 226))
    else:
        for wheel in (0.16, 0.8):
            canvas.disc(side, wheel * length, 0.48, 0.5, 0.5, TYRE, thing)
            canvas.disc(side, wheel * length, 0.48, 0.24, 0.24, (140, 142, 146))


def long_vehicle(
    canvas: Canvas,
    rng: np.random.Generator,
    kind: str,
    x: float,
    z: float,
    slope: float,
    oncoming: bool,
    shine: float,
):
    """A bus, a truck or a train (tram): a box with a face, and the side that can be seen."""
    paint = pick(rng, PAINTS, 24)
    length, half, height = {"bus": (11, 1.25, 3.0), "truck": (7.5, 1.2, 3.2), "train": (24, 1.3, 3.5)}[kind]
    height *= rng.uniform(0.92, 1.12)
    canvas.spots.append((x, z + length / 2, half * 1.3, length * 0.53))
    left = x > 0
    edge = -half if left else half
    body = canvas.new(kind, Plane(x, z))
    cab = 0.0
    if kind == "truck" and oncoming:
        cab = 2.0
    if abs(x) > half:
        tint = shade(paint, shine if left else 1.5 - 0.6 * shine)
        side = Plane(x + edge, z, slope, 1.0)
        flank = canvas.new(kind, side)
        if kind == "truck":
            load = pick(rng, PAINTS, 24)
            start, stop = (cab, length) if oncoming else (0.0, length - 2.1)
            canvas.box(side, start, 0.7, stop, height, shade(load, 0.85), flank)
            canvas.box(side, 0, 0.4, length, 0.75, (50, 50, 52), flank)
            first = 0.0 if oncoming else length - 2.0
            canvas.box(side, first, 0.4, first + 2.0, 0.82 * height, tint, flank)
            canvas.box(side, first + 0.4, 1.6, first + 1.5, 0.72 * height, GLASS)
            for wheel in (0.12, 0.62, 0.85):
                canvas.disc(side, wheel * length, 0.48, 0.5, 0.5, TYRE, flank)
                canvas.disc(side, wheel * length, 0.48, 0.22, 0.22, (140, 142, 146))
        else:
            box_side(canvas, side, length, height, tint, kind, flank)
    else:
        load = pick(rng, PAINTS, 24)
    face = Plane(x, z)
    glow = HEAD if oncoming else TAIL
    if kind != "train":
        for wheel in (-0.78, 0.78):
            canvas.box(face, (wheel - 0.14) * half, 0, (wheel + 0.14) * half, 0.5, TYRE, body)
    if kind == "truck" and not oncoming:
        canvas.box(face, -half, 0.7, half, height, load, body)
        canvas.box(face, -half, 0.45, half, 0.75, (52, 52, 54), body)
        canvas.box(face, -0.03, 0.8, 0.03, height - 0.1, shade(load, 0.6))
        for bar in (-0.5, 0.5):
            canvas.box(face, (bar - 0.03) * half, 0.85, (bar + 0.03) * half, height - 0.15, shade(load, 0.75))
        canvas.box(face, -half, 0.72, half, 0.86, (200, 60, 40))
    else:
        if kind == "truck":
            canvas.box(Plane(x, z + cab), -half, 0.7, half, height, shade(load, 0.9), body)
        tall = 0.84 * height if kind == "truck" else height
        canvas.box(face, -half, 0.12 if kind == "train" else 0.35, half, tall, paint, body)
        canvas.box(face, -half, 0.35, half, 0.62, shade(paint, 0.6))
        low = 0.44 if kind != "train" else 0.4
        pane = canvas.new(kind, face, (110, 104, 84) if kind != "truck" else (0, 0, 0))
        canvas.box(face, -half * 0.9, low * height, half * 0.9, 0.8 * tall, shade(GLASS, 1.1), pane)
        if kind != "truck":
            sign = canvas.new(kind, face, (255, 170, 40))
            canvas.box(face, -half * 0.6, 0.85 * tall, half * 0.6, 0.95 * tall, (30, 26, 20))
            canvas.box(face, -half * 0.45, 0.87 * tall, half * 0.45, 0.93 * tall, (240, 160, 40), sign)
        if kind == "train":
            canvas.box(face, -0.04, 0.3, 0.04, 0.8 * tall, shade(paint, 0.7))
            canvas.paint(
                face.beside(0, 4),
                (
                    (-0.7, height),
                    (-0.6, height),
                    (0.0, height + 0.8),
                    (0.6, height),
                    (0.7, height),
                    (0.1, height + 0.9),
                    (-0.1, height + 0.9),
                ),
                (60, 60, 62),
                body,
            )
    lamp = canvas.new(kind, face, glow)
    for sign in (-1, 1):
        inner, outer = sorted((sign * half * 0.66, sign * half * 0.94))
        canvas.box(face, inner, 0.68, outer, 0.9, glow, lamp)
    if oncoming:
        canvas.beams.append((x, 0.8, z))


# People and two-wheelers.


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
    """The label of a wheel is its whole disc, as in the public data sets; so the disc is painted, not the street behind it."""
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


# What stands still.


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


def openings(
    canvas: Canvas,
    rng: np.random.Generator,
    plane: Plane,
    length: float,
    floors: int,
    storey: float,
    first: float,
    colour: Colour,
    lit_share: float,
):
    """Windows in rows and columns, some of them lit at night; one stroke for all frames and one for all panes."""
    pitch, wide, tall = rng.uniform(1.8, 3.2), rng.uniform(0.8, 1.4), rng.uniform(0.5, 0.68) * storey
    columns = max(1, int(length / pitch))
    left = (np.arange(columns) + 0.5) * (length / columns) - wide / 2
    bottom = first + np.arange(floors) * storey + (storey - tall) * 0.55
    corner = np.stack(np.meshgrid(left, bottom), -1).reshape(-1, 1, 2).astype(np.float32)
    lit = rng.random(len(corner)) < lit_share
    frame_colour = vary(rng, (228, 226, 220) if rng.random() < 0.6 else (92, 80, 70), 12)
    glass = vary(rng, (74, 90, 108), 22)
    far = max(plane.z, plane.z + plane.dz * length)
    if canvas.focal / far * wide * max(abs(plane.dx), 4 / far) < 0.8:
        return
    quad = np.array(((0, 0), (1, 0), (1, 1), (0, 1)), np.float32)
    frame = corner + (quad * (wide + 0.24, tall + 0.24) - 0.12)
    pane = corner + quad * (wide, tall)
    canvas.fill(canvas.pixels(plane, frame), frame_colour)
    canvas.fill(canvas.pixels(plane, pane), glass)
    upper = corner + quad * (wide, tall * 0.35) + (0, tall * 0.65)
    canvas.fill(canvas.pixels(plane, upper), shade(glass, 1.35))
    canvas.fill(canvas.pixels(plane, corner + quad * (wide + 0.3, 0.1) + (-0.15, -0.2)), shade(colour, 0.7))
    if lit.any():
        canvas.fill(
            canvas.pixels(plane, pane[lit]),
            shade(glass, 1.1),
            canvas.new("building", plane, shade(vary(rng, WINDOW, 25), rng.uniform(0.55, 0.95))),
        )


def building(
    canvas: Canvas,
    rng: np.random.Generator,
    front: Plane,
    length: float,
    floors: int,
    outward: int,
    sun: float,
    gable: float,
):
    """A house: the front along the street, the end wall towards the camera, a roof; `outward` is -1 on the left."""
    colour, storey = pick(rng, FACADES, 18), rng.uniform(2.8, 3.4)
    ground = rng.uniform(3.0, 3.8)
    tall = ground + (floors - 1) * storey + 0.3
    wide = rng.uniform(8, 12)
    end = Plane(front.x, front.z)
    thing, end_thing = canvas.new("building", front), canvas.new("building", end)
    roof = pick(rng, ((120, 62, 48), (86, 82, 84), (104, 92, 80), (70, 62, 60)), 12)
    pitched = floors <= 3 and rng.random() < 0.75
    end_colour, front_colour = shade(colour, gable), shade(colour, sun)
    if pitched:
        rise = rng.uniform(1.8, 3.4)
        ridge = front.x + outward * wide / 2
        back = Plane(ridge + front.dx * length, front.z + front.dz * length)
        slope = np.concatenate(
            [
                canvas.pixels(front, ((0, tall), (length, tall))),
                canvas.pixels(back, ((0, tall + rise),)),
                canvas.pixels(Plane(ridge, front.z), ((0, tall + rise),)),
            ]
        )
        canvas.fill(slope, shade(roof, sun * 1.05), thing)
        canvas.paint(end, ((0, tall), (outward * wide, tall), (outward * wide / 2, tall + rise)), end_colour, end_thing)
        if rng.random() < 0.5:
            chimney = Plane(ridge, front.z + 0.35 * length)
            canvas.box(
                chimney,
                -0.45,
                tall + rise - 0.7,
                0.45,
                tall + rise + 0.9,
                shade(colour, 0.7),
                canvas.new("building", chimney),
            )
    canvas.box(end, 0, 0, outward * wide, tall, end_colour, end_thing)
    canvas.box(front, 0, 0, length, tall, front_colour, thing)
    canvas.box(front, 0, tall - 0.35, length, tall, shade(front_colour, 0.78 if rng.random() < 0.5 else 1.2))
    canvas.box(front, 0, 0, length, 0.5, shade(front_colour, 0.72))
    lit_share = rng.uniform(0.15, 0.5)
    start = ground - 0.2
    shop = rng.random() < 0.45
    if floors > 1:
        openings(canvas, rng, front, length, floors - 1, storey, start, front_colour, lit_share)
    if shop:
        canvas.box(
            front,
            0.4,
            0.5,
            length - 0.4,
            ground - 0.9,
            (50, 58, 66),
            canvas.new("building", front, shade(WINDOW, rng.uniform(0.2, 0.8))),
        )
        canvas.box(front, 0.2, ground - 0.85, length - 0.2, ground - 0.25, pick(rng, PAINTS, 20))
        for bar in np.linspace(0.4, length - 0.4, max(2, int(length / 2.5))):
            canvas.box(front, bar - 0.08, 0.4, bar + 0.08, ground - 0.8, shade(front_colour, 0.8))
    else:
        openings(canvas, rng, front, length, 1, ground * 0.85, 0.35, front_colour, lit_share)
    door = rng.uniform(0.15, 0.8) * length
    canvas.box(front, door - 0.65, 0, door + 0.65, 2.35, shade(front_colour, 1.25))
    canvas.box(
        front,
        door - 0.5,
        0,
        door + 0.5,
        2.2,
        pick(rng, ((84, 52, 36), (50, 66, 60), (60, 64, 84), (120, 40, 36)), 12),
    )
    if floors > 1 and canvas.pixel_size(end) > 5:
        openings(
            canvas,
            rng,
            Plane(end.x, end.z, float(outward), 0.0),
            wide,
            floors - 1,
            storey,
            start,
            end_colour,
            lit_share,
        )
