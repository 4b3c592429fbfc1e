"""Smoothing a prediction along the edges of another picture: where nobody knows how the reference's camera stood.

GCMA (Sakaridis et al., ICCV 2019, sec. 3.2) filters the class maps of the picture by day with the dark picture as the
guide, on a grid over place and colour (Paris and Durand, ECCV 2006). `jointly_enlarged` is the other use of a guide in
MGCDA: translated pictures, brought to the size of what they were translated from (Kopf et al., SIGGRAPH 2007).
"""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np
import torch
from torch import Tensor

PIXELS = 1 << 18
"""So many are looked up in the grid at once."""

STRIP = 1 << 16
"""So many pixels of a picture are enlarged at once."""

REACH = 2
"""Cells to each side whose mean an enlarged pixel is [code of MGCDA, joint_color_bilateral_upsampling.m]."""


def unit_lab(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 sRGB -> (H, W, 3) float32 CIELAB over 100; a* and b* shifted so that their least is 0."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) / 100
    lab[..., 1:] -= lab[..., 1:].min((0, 1))
    return lab


def cross_bilateral(
    maps: Tensor, guide: Tensor, *, space: float, space_cell: float, colour: float, colour_cell: float
) -> Tensor:
    """(C, H, W) maps, (H, W, 3) guide in `unit_lab` -> (C, H, W), each pixel the mean of those near it in place and
    colour, weighed by a Gaussian; summing to 1 over the classes.

    space, colour: its deviations, in pixels and in units of the guide. Values are added to the nearest cell of a grid
    of `space_cell` and `colour_cell`, the grid is blurred, and read between its cells.
    """
    classes, height, width = maps.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([rows.flatten(), columns.flatten()], 1).to(maps) / space_cell
    colours = guide.reshape(-1, 3).to(maps)
    where = torch.cat([place, (colours - colours.amin(0)) / colour_cell], 1)  # (pixels, 5)
    nearest = (where + 0.5).floor().long()
    # One cell more than is filled: what is read lies between two.
    sides = [int(side) + 2 for side in nearest.amax(0)]
    steps = torch.tensor([math.prod(sides[axis + 1 :]) for axis in range(5)], device=maps.device)
    cells = maps.new_zeros(math.prod(sides), classes + 1)
    counted = torch.cat([maps.flatten(1).T, maps.new_ones(height * width, 1)], 1)
    cells.index_add_(0, (nearest * steps).sum(1), counted)
    grid = cells.view(*sides, classes + 1)
    for axis in range(5):
        deviation, cell = (space, space_cell) if axis < 2 else (colour, colour_cell)
        grid = blurred(grid, axis, deviation / cell)
    cells = grid.view(-1, classes + 1)
    found = [_between(cells, steps, part) for part in where.split(PIXELS)]
    sums, count = torch.cat(found).T.split([classes, 1])
    mean = torch.where(count > 0, sums / count, 0)
    return (mean / mean.sum(0)).view(classes, height, width)


def blurred(grid: Tensor, axis: int, deviation: float) -> Tensor:
    """Along one axis, by a Gaussian cut off at ceil(deviation) cells; outside are zeros."""
    reach = math.ceil(deviation)
    weights = [math.exp(-(step**2) / (2 * deviation**2)) for step in range(reach + 1)]
    whole = 2 * sum(weights) - weights[0]
    side = grid.shape[axis]
    total = grid * (weights[0] / whole)
    for step in range(1, min(reach, side - 1) + 1):
        weight = weights[step] / whole
        total.narrow(axis, step, side - step).add_(grid.narrow(axis, 0, side - step), alpha=weight)
        total.narrow(axis, 0, side - step).add_(grid.narrow(axis, step, side - step), alpha=weight)
    return total


def _between(cells: Tensor, steps: Tensor, where: Tensor) -> Tensor:
    """(cells, D) values at (pixels, 5) places between cells: linear in all five."""
    lower = where.floor()
    upper_share = where - lower
    first = (lower.long() * steps).sum(1)
    total = cells.new_zeros(len(where), cells.shape[1])
    for corner in itertools.product((0, 1), repeat=5):
        share = torch.stack([upper_share[:, a] if up else 1 - upper_share[:, a] for a, up in enumerate(corner)])
        total += cells[first + int((steps * torch.tensor(corner, device=steps.device)).sum())] * share.prod(0)[:, None]
    return total


def jointly_enlarged(small: np.ndarray, guide: np.ndarray, *, space: float, colour: float) -> np.ndarray:
    """(h, w, D) picture, (H, W, 3) guide in `unit_lab` -> (H, W, D) float64: each pixel is the mean of the picture's
    cells around its place, weighed by exp(-d^2 / space^2), d in cells, and exp(-c^2 / colour^2), c how far the guide's
    colour at the cell is from that at the pixel. Corners correspond.
    """
    (height, width), (rows, columns) = small.shape[:2], guide.shape[:2]
    y, x = np.linspace(0, height - 1, rows), np.linspace(0, width - 1, columns)
    at_cells = _read(guide, np.linspace(0, rows - 1, height), np.linspace(0, columns - 1, width))
    # A cell is the mean of 25; of the whole picture at once, what each of them adds would need hundreds of megabytes.
    strips = range(0, rows, max(1, STRIP // columns))
    found = np.empty((rows, columns, small.shape[2]))
    for top, end in itertools.pairwise((*strips, rows)):
        found[top:end] = _strip(small, at_cells, guide[top:end], y[top:end], x, space, colour)
    return found


def _strip(
    small: np.ndarray,
    at_cells: np.ndarray,
    guide: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    space: float,
    colour: float,
) -> np.ndarray:
    """The pixels at rows y and columns x, in cells. at_cells, guide: the guide's colours at cells and at these."""
    height, width = small.shape[:2]
    nearest_y, nearest_x = np.floor(y + 0.5).astype(int), np.floor(x + 0.5).astype(int)
    total, whole = np.zeros((len(y), len(x), small.shape[2])), np.zeros((len(y), len(x), 1))
    for down, right in itertools.product(range(-REACH, REACH + 1), repeat=2):
        cell_y, cell_x = nearest_y + down, nearest_x + right
        inside = ((cell_y >= 0) & (cell_y < height))[:, None] & ((cell_x >= 0) & (cell_x < width))
        cells = np.ix_(cell_y.clip(0, height - 1), cell_x.clip(0, width - 1))
        away = at_cells[cells] - guide
        weight = inside * np.exp(np.einsum("yxc,yxc->yx", away, away) / -(colour**2))
        weight *= np.exp(-(((cell_y - y) / space) ** 2))[:, None] * np.exp(-(((cell_x - x) / space) ** 2))
        total += weight[..., None] * small[cells]
        whole += weight[..., None]
    return total / whole


def _read(picture: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(H, W, D) picture at the crossings of rows y and columns x, between pixels: (len(y), len(x), D), bilinear."""
    top, left = (np.minimum(at.astype(int), side - 2) for at, side in zip((y, x), picture.shape, strict=False))
    down, right = (y - top)[:, None, None], (x - left)[None, :, None]
    upper = picture[np.ix_(top, left)] * (1 - right) + picture[np.ix_(top, left + 1)] * right
    lower = picture[np.ix_(top + 1, left)] * (1 - right) + picture[np.ix_(top + 1, left + 1)] * right
    return upper * (1 - down) + lower * down
