"""Contact sheets: images of a data set beside their labels, to be looked at; below, what the colours mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segda.data.labels.spaces import Space
from segda.data.sets.dataset import DataSet
from segda.data.sets.inspection import DataReport
from segda.reporting import legend as legends
from segda.reporting.legend import GAP, INK, LETTER, LINE, PAPER, Entry
from segda.reporting.pictures import coloured

TILE = 320  # pixels: width of a picture
ACROSS = 2  # images in a row of the sheet
EMPTY = 235
OVERLAY = 0.55  # share of the label's colour
STRIPES = (225, 165)  # grey levels


@dataclass(frozen=True)
class Tile:
    """What stands on the sheet for one image: a line of text, and pixels (h, n TILE, 3), RGB."""

    title: str
    pixels: np.ndarray


def sheet(tiles: Sequence[Tile], title: str, legend: Sequence[Entry]) -> Image.Image:
    """The title, the tiles in rows of ACROSS, the legend."""
    rows = [tiles[k : k + ACROSS] for k in range(0, len(tiles), ACROSS)]
    heights = [LINE + max(tile.pixels.shape[0] for tile in row) + GAP for row in rows]
    wide = tiles[0].pixels.shape[1] + GAP
    width = min(ACROSS, len(tiles)) * wide + GAP
    height = GAP + LINE + sum(heights) + legends.height(len(legend), width) + GAP
    picture = Image.new("RGB", (width, height), PAPER)
    pen, letter = ImageDraw.Draw(picture), ImageFont.load_default(LETTER)
    pen.text((GAP, GAP), title, INK, letter)
    top = GAP + LINE
    for row, tall in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            left = GAP + column * wide
            pen.text((left, top), tile.title, INK, letter)
            picture.paste(Image.fromarray(tile.pixels), (left, top + LINE))
        top += tall
    legends.draw(picture, legend, top)
    return picture


def data_sheet(data: DataSet, chosen: Sequence[int], report: DataReport) -> Image.Image:
    """Each chosen image beside itself with its label laid over it; ignored pixels are striped."""
    total = max(int(report.class_counts.sum()), 1)
    order = sorted(zip(data.space.colours.items(), report.class_counts[:-1], strict=True), key=lambda entry: -entry[1])
    legend = [(colour, f"{name}  {100 * n / total:.2f} %") for (name, colour), n in order if n]
    if ignored := report.class_counts[-1]:
        legend.append((PAPER, f"striped: ignored  {100 * ignored / total:.2f} %"))
    title = f"{report.spec}: {report.images} images, {report.labels} labels"
    return sheet([_with_label(data, i) for i in chosen], title, legend)


def _with_label(data: DataSet, i: int) -> Tile:
    """The image, and the image under its label; no higher than twice its width."""
    scene = data.read(i, label=data.labelled(i))
    pixels = np.ascontiguousarray(scene.image.permute(1, 2, 0).numpy())
    size = (TILE, min(2 * TILE, max(1, round(pixels.shape[0] * TILE / pixels.shape[1]))))
    image = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    if scene.label is None:
        return Tile(data.names[i], np.concatenate([image, np.full_like(image, EMPTY)], 1))
    label = cv2.resize(scene.label.numpy(), size, interpolation=cv2.INTER_NEAREST_EXACT)
    over = OVERLAY * _striped(label, data.space, (255, 0)) + (1 - OVERLAY) * image.mean(2, keepdims=True)
    return Tile(data.names[i], np.concatenate([image, over.round().astype(np.uint8)], 1))


@dataclass(frozen=True)
class Labelled:
    """image (H, W, 3) RGB, predicted and kept (h, w) train ids, of the same shape but not of the same size."""

    name: str
    image: np.ndarray
    predicted: np.ndarray
    kept: np.ndarray


def pseudo_labels_sheet(scenes: Sequence[Labelled], space: Space, title: str, notes: Mapping[str, str]) -> Image.Image:
    """Each scene as image, prediction and what of it was kept; dropped pixels are striped. notes: of each class."""
    legend = [(colour, f"{name}  {notes[name]}") for name, colour in space.colours.items() if name in notes]
    return sheet([_with_kept(scene, space) for scene in scenes], title, legend)


def translations_sheet(pairs: Sequence[tuple[str, np.ndarray, np.ndarray]], title: str) -> Image.Image:
    """Names, images (H, W, 3) RGB and their translations, which may be smaller: each beside the other."""
    tiles = []
    for name, *shown in pairs:
        height = max(1, round(shown[0].shape[0] * TILE / shown[0].shape[1]))
        fitted = [np.array(Image.fromarray(one).resize((TILE, height), Image.Resampling.BOX)) for one in shown]
        tiles.append(Tile(f"{name}: before, after", np.concatenate(fitted, 1)))
    return sheet(tiles, title, [])


def _with_kept(scene: Labelled, space: Space) -> Tile:
    height = max(1, round(scene.image.shape[0] * TILE / scene.image.shape[1]))

    def fitted(pixels: np.ndarray, *, flat: bool) -> np.ndarray:
        """Of labels of any size, the nearest pixels: class colours are never blended."""
        kernel = Image.Resampling.NEAREST if flat else Image.Resampling.BOX
        return np.array(Image.fromarray(pixels).resize((TILE, height), kernel))

    kept = _striped(fitted(scene.kept, flat=True), space, STRIPES).astype(np.uint8)
    predicted = coloured(fitted(scene.predicted, flat=True), space)
    pixels = np.concatenate([fitted(scene.image, flat=False), predicted, kept], 1)
    return Tile(f"{scene.name}: image, prediction, label (striped: none)", pixels)


def _striped(label: np.ndarray, space: Space, greys: tuple[int, int]) -> np.ndarray:
    """(h, w) -> (h, w, 3): class colours, and stripes where no class is: every plain grey is some class's colour."""
    height, width = label.shape
    stripes = np.where(np.add.outer(np.arange(height), np.arange(width)) % 8 < 4, *greys)[..., None]
    return np.where((label < len(space.classes))[..., None], coloured(label, space), stripes)
