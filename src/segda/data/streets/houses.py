"""Houses: fronts with windows, doors and shops, end walls, roofs.

Lengths are metres; `plane` passes through the foot of a thing, l = 0 is its middle; colours are drawn from `rng`.
"""

from __future__ import annotations

import numpy as np

from segda.data.streets.paints import FACADES, PAINTS, WINDOW, Colour, pick, shade, vary
from segda.data.streets.pinhole import Canvas, Plane


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
