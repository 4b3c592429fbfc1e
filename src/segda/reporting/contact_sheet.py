"""A contact sheet of pseudo-labels: image, prediction and what of it was kept, side by side, to be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segda.data.labels.spaces import Space
from segda.reporting.pictures import coloured

TILE, GAP, LINE = 320, 8, 18  # pixels: width of a picture, space between, height of a line of text
ACROSS = 2  # images in a row of the sheet
ENTRY = 230  # pixels: width of an entry of the legend
INK, PAPER = (20, 20, 20), (255, 255, 255)
STRIPES = (225, 165)  # grey levels


@dataclass(frozen=True)
class Labelled:
    """image (H, W, 3) RGB, predicted and kept (h, w) train ids, of the same shape but not of the same size."""

    name: str
    image: np.ndarray
    predicted: np.ndarray
    kept: np.ndarray


def contact_sheet(scenes: Sequence[Labelled], space: Space, title: str, notes: Mapping[str, str]) -> Image.Image:
    """Each scene as three pictures; below, the classes' colours with a note on each. Dropped pixels are striped."""
    rows = [scenes[k : k + ACROSS] for k in range(0, len(scenes), ACROSS)]
    tiles = [[_tile(scene, space) for scene in row] for row in rows]
    heights = [LINE + max(tile.shape[0] for tile in row) + GAP for row in tiles]
    columns = min(ACROSS, len(scenes))
    width = columns * (3 * TILE + GAP) + GAP
    entries = max(1, (width - 2 * GAP) // ENTRY)
    legend = [(colour, f"{name}  {notes[name]}") for name, colour in space.colours.items() if name in notes]
    height = GAP + LINE + sum(heights) + -(-len(legend) // entries) * LINE + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    pen, letter = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    pen.text((GAP, GAP), title, INK, letter)
    top = GAP + LINE
    for row, pictures, tall in zip(rows, tiles, heights, strict=True):
        for column, (scene, picture) in enumerate(zip(row, pictures, strict=True)):
            left = GAP + column * (3 * TILE + GAP)
            pen.text((left, top), f"{scene.name}: image, prediction, label (striped: none)", INK, letter)
            sheet.paste(Image.fromarray(picture), (left, top + LINE))
        top += tall
    for k, (colour, text) in enumerate(legend):
        left, line = GAP + (k % entries) * ENTRY, top + (k // entries) * LINE
        pen.rectangle((left, line + 2, left + 18, line + LINE - 3), colour, INK)
        pen.text((left + 24, line), text, INK, letter)
    return sheet


def _tile(scene: Labelled, space: Space) -> np.ndarray:
    """(h, 3 TILE, 3): the three pictures, each TILE wide."""
    height = max(1, round(scene.image.shape[0] * TILE / scene.image.shape[1]))

    def fitted(pixels: np.ndarray, *, flat: bool) -> np.ndarray:
        """Of labels of any size, the nearest pixels: class colours are never blended."""
        kernel = Image.Resampling.NEAREST if flat else Image.Resampling.BOX
        return np.array(Image.fromarray(pixels).resize((TILE, height), kernel))

    kept = fitted(scene.kept, flat=True)
    stripes = np.where(np.add.outer(np.arange(height), np.arange(TILE)) % 8 < 4, *STRIPES)[..., None]
    shown = np.where((kept < len(space.classes))[..., None], coloured(kept, space), stripes).astype(np.uint8)
    predicted = coloured(fitted(scene.predicted, flat=True), space)
    return np.concatenate([fitted(scene.image, flat=False), predicted, shown], 1)
