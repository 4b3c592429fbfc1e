"""Colours of what is drawn, RGB in 0..255, and how they vary from thing to thing."""

from __future__ import annotations

import numpy as np

Colour = tuple[float, float, float]

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
# What shines at night.
TAIL, HEAD, LAMP, WINDOW = (210, 24, 16), (255, 246, 220), (255, 214, 140), (255, 200, 110)


def shade(colour: Colour, factor: float) -> Colour:
    """A colour `factor` times as bright."""
    red, green, blue = (min(255.0, max(0.0, channel * factor)) for channel in colour)
    return red, green, blue


def vary(rng: np.random.Generator, colour: Colour, spread: float = 20) -> Colour:
    """A colour near `colour`: a common and a separate change of each channel."""
    common, *own = rng.uniform(-spread, spread, 4).tolist()
    red, green, blue = (
        min(250.0, max(5.0, channel + common + 0.5 * change)) for channel, change in zip(colour, own, strict=True)
    )
    return red, green, blue


def pick(rng: np.random.Generator, colours: tuple[Colour, ...], spread: float = 16) -> Colour:
    """One of the colours, varied."""
    return vary(rng, colours[rng.integers(len(colours))], spread)
