"""Cars, trucks, buses and trams: a face towards the camera and the side that can be seen.

Lengths are metres; `plane` passes through the foot of a thing, l = 0 is its middle; colours are drawn from `rng`.
"""

from __future__ import annotations

import numpy as np

from segda.data.streets.paints import GLASS, HEAD, PAINTS, TAIL, TYRE, Colour, pick, shade
from segda.data.streets.pinhole import Canvas, Plane

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
