"""The grid filter against sums over all pairs of cells, and what it does at an edge of its guide."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch

from segda.pseudo_labelling import cross_bilateral as cross_bilateral_module
from segda.pseudo_labelling.cross_bilateral import cross_bilateral, jointly_enlarged, unit_lab


def kernel(deviation: float) -> dict[int, float]:
    reach = math.ceil(deviation)
    weight = {k: math.exp(-(k**2) / (2 * deviation**2)) for k in range(-reach, reach + 1)}
    return {k: one / sum(weight.values()) for k, one in weight.items()}


def slowly(maps: np.ndarray, guide: np.ndarray, space: float, space_cell: float, colour: float, colour_cell: float):
    """The filter's words, with dictionaries: (C, H, W), (H, W, 3) -> (C, H, W)."""
    _, height, width = maps.shape
    guide = guide - guide.min((0, 1))
    where = {
        (y, x): (y / space_cell, x / space_cell, *(guide[y, x] / colour_cell))
        for y in range(height)
        for x in range(width)
    }
    cells: dict[tuple[int, ...], np.ndarray] = {}
    for (y, x), place in where.items():
        cell = tuple(math.floor(p + 0.5) for p in place)
        cells[cell] = cells.get(cell, 0) + np.append(maps[:, y, x], 1)
    weights = [kernel(space / space_cell)] * 2 + [kernel(colour / colour_cell)] * 3

    def at(cell: tuple[int, ...]) -> np.ndarray:
        total = np.zeros(len(maps) + 1)
        for other, value in cells.items():
            share = [weights[a].get(cell[a] - other[a], 0.0) for a in range(5)]
            total += math.prod(share) * value
        return total

    result = np.zeros_like(maps)
    for (y, x), place in where.items():
        total = np.zeros(len(maps) + 1)
        for corner in itertools.product((0, 1), repeat=5):
            low = [math.floor(p) for p in place]
            share = math.prod(p - l if up else 1 - (p - l) for p, l, up in zip(place, low, corner, strict=True))
            if share:
                total += share * at(tuple(l + up for l, up in zip(low, corner, strict=True)))
        result[:, y, x] = total[:-1] / total[-1]
    return result / result.sum(0)


def test_the_grid_is_the_sum_over_all_cells():
    rng = np.random.default_rng(0)
    maps, guide = rng.dirichlet(np.ones(3), (5, 6)).transpose(2, 0, 1), rng.uniform(0, 0.5, (5, 6, 3))
    numbers = {"space": 3.0, "space_cell": 2.0, "colour": 0.1, "colour_cell": 0.1}
    ours = cross_bilateral(torch.from_numpy(maps.copy()), torch.from_numpy(guide), **numbers)
    np.testing.assert_allclose(ours, slowly(maps, guide, **numbers), rtol=0, atol=1e-12)


def test_labels_do_not_cross_an_edge_of_the_guide():
    """Left half dark, right half bright; the maps' edge is two pixels off, and moves to the guide's."""
    guide = np.zeros((16, 24, 3))
    guide[:, 12:] = 0.8
    right = np.zeros((16, 24))
    right[:, 14:] = 1
    numbers = {"space": 8.0, "space_cell": 2.0, "colour": 0.1, "colour_cell": 0.1}
    ours = cross_bilateral(torch.from_numpy(np.stack([1 - right, right])), torch.from_numpy(guide), **numbers)
    assert (ours.argmax(0)[:, :12] == 0).all() and (ours.argmax(0)[:, 12:] == 1).all()
    torch.testing.assert_close(ours.sum(0), torch.ones(16, 24, dtype=torch.float64))


def test_unit_lab_of_known_colours():
    """White is L* 100; of black and pure red, from the tables of CIE: L* 53.24, a* 80.09, b* 67.20."""
    image = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0]]], np.uint8)
    ours = unit_lab(image)
    np.testing.assert_allclose(ours[0, :, 0], [1, 0, 0.5324], atol=3e-3)
    np.testing.assert_allclose(ours[0, 2, 1:] - ours[0, 1, 1:], [0.8009, 0.6720], atol=3e-3)
    assert ours[..., 1:].min() == 0


def test_a_picture_enlarged_with_an_even_guide_is_a_weighed_mean_of_its_cells():
    small = np.random.default_rng(0).uniform(size=(3, 4, 2))
    ours = jointly_enlarged(small, np.zeros((5, 7, 3)), space=0.5, colour=0.1)
    weight = {
        (r, c): math.exp(-((r - 2 * 2 / 4) ** 2 + (c - 3 * 3 / 6) ** 2) / 0.25)
        for r in range(3)
        for c in range(4)
        if abs(r - 1) <= 2 and abs(c - 2) <= 2
    }
    theirs = sum(w * small[at] for at, w in weight.items()) / sum(weight.values())
    np.testing.assert_allclose(ours[2, 3], theirs, rtol=1e-12)


def test_a_picture_is_enlarged_the_same_in_strips(monkeypatch):
    rng = np.random.default_rng(3)
    small, guide = rng.random((4, 6, 3)), rng.random((13, 20, 3))
    whole = jointly_enlarged(small, guide, space=0.5, colour=0.4)
    for strip in (1, 40, 100, 260):  # one row, two, five, all
        monkeypatch.setattr(cross_bilateral_module, "STRIP", strip)
        assert np.array_equal(jointly_enlarged(small, guide, space=0.5, colour=0.4), whole)
