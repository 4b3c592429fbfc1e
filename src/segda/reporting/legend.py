"""What the colours of a picture mean, as lines of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segda.data.labels.spaces import Space
from segda.reporting.pictures import SCALE

INK, PAPER = (20, 20, 20), (255, 255, 255)
LETTER, LINE, ENTRY, GAP = 13, 18, 230, 8
"""Pixels of a small picture: of a letter, a line, an entry's width, and around them. They grow with the picture."""

Entry = tuple[tuple[int, int, int], str]
"""A colour, and what it means."""


def height(entries: int, width: int, scale: int = 1) -> int:
    """Pixels that entries need in a picture of that width."""
    return -(-entries // across(width, scale)) * LINE * scale


def across(width: int, scale: int = 1) -> int:
    return max(1, (width - 2 * GAP * scale) // (ENTRY * scale))


def draw(picture: Image.Image, entries: Sequence[Entry], top: int, scale: int = 1) -> None:
    """From that row of pixels on, from left to right."""
    pen, letter = ImageDraw.Draw(picture), ImageFont.load_default(LETTER * scale)
    columns = across(picture.width, scale)
    for k, (colour, text) in enumerate(entries):
        left, line = (GAP + k % columns * ENTRY) * scale, top + k // columns * LINE * scale
        box = (left, line + 2 * scale, left + 18 * scale, line + (LINE - 3) * scale)
        pen.rectangle(box, colour, INK)
        pen.text((left + 24 * scale, line), text, INK, letter)


def under(pixels: np.ndarray, entries: Sequence[Entry]) -> np.ndarray:
    """(H, W, 3) RGB -> (H + h, W, 3) with the entries below."""
    tall, wide = pixels.shape[:2]
    scale = max(1, round(wide / 1000))
    picture = Image.new("RGB", (wide, tall + height(len(entries), wide, scale) + 2 * GAP * scale), PAPER)
    picture.paste(Image.fromarray(pixels), (0, 0))
    draw(picture, entries, tall + GAP * scale, scale)
    return np.array(picture)


def of_classes(label: np.ndarray, space: Space) -> list[Entry]:
    """(H, W) train ids -> the classes that are there, with their shares, the largest first."""
    counts = np.bincount(label.ravel(), minlength=256)[: len(space.classes)]
    order = sorted(zip(space.colours.items(), counts.tolist(), strict=True), key=lambda entry: -entry[1])
    return [(colour, f"{name}  {100 * count / label.size:.1f} %") for (name, colour), count in order if count]


def of_entropy() -> list[Entry]:
    """Five steps of H / ln C."""
    words = {0: "0, certain", 64: "0.25", 128: "0.5", 191: "0.75", 255: "1, all classes equal"}
    return [((int(SCALE[at][0]), int(SCALE[at][1]), int(SCALE[at][2])), word) for at, word in words.items()]
