"""Fog and rain from depth: each formula against a slow float64 version of it or a value worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segda.data.weather import rain, stereo
from segda.data.weather.fog import GuidedFilter, dark_channel, light_of_air, transmittance, veiled, visibility
from segda.data.weather.stereo import Camera, depth_of, distance_of, filled, matched, stored_disparity

RNG = np.random.default_rng(0)


def window(values: np.ndarray, y: int, x: int, radius: int) -> np.ndarray:
    return values[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]


def guided(guide: np.ndarray, given: np.ndarray, radius: int, mu: float) -> np.ndarray:
    """The guided filter window by window, in float64, as the paper's text has it."""
    guide, given = np.float64(guide), np.float64(given)
    height, width = given.shape
    slope, offset = np.zeros((height, width, 3)), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            colours, values = window(guide, y, x, radius).reshape(-1, 3), window(given, y, x, radius).ravel()
            mean = colours.mean(0)
            covariance = (colours.T @ colours) / len(colours) - np.outer(mean, mean)
            both = (colours * values[:, None]).mean(0) - mean * values.mean()
            slope[y, x] = np.linalg.solve(covariance + mu * np.eye(3), both)
            offset[y, x] = values.mean() - slope[y, x] @ mean
    smooth = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            a = window(slope, y, x, radius).reshape(-1, 3).mean(0)
            smooth[y, x] = a @ guide[y, x] + window(offset, y, x, radius).mean()
    return smooth


def air_of(image: np.ndarray, side: int, share: float) -> np.ndarray:
    """The light of the air pixel by pixel, in float64."""
    image = np.float64(image)
    height, width = image.shape[:2]
    dark = [window(image, y, x, side // 2).min() for y in range(height) for x in range(width)]
    count = int(share * len(dark))
    count += count % 2 == 0
    brightest = sorted(range(len(dark)), key=lambda k: (-dark[k], k))[:count]
    grey = {k: 0.299 * r + 0.587 * g + 0.114 * b for k, (r, g, b) in enumerate(image.reshape(-1, 3))}
    return image.reshape(-1, 3)[sorted(brightest, key=lambda k: (grey[k], k))[count // 2]]


def test_fog_thins_to_a_twentieth_at_the_visibility():
    # Worked by hand: ln 20 = 2.995732.
    assert [round(visibility(beta)) for beta in (0.005, 0.01, 0.02)] == [599, 300, 150]
    for beta in (0.005, 0.01, 0.02):
        assert transmittance(np.array([visibility(beta), 0, np.inf]), beta) == pytest.approx([0.05, 1, 0])


def test_what_is_far_takes_the_colour_of_the_air():
    clear = np.array([[[0.2, 0.4, 0.6]]])
    # Worked by hand: 0.2 * 0.25 + 0.8 * 0.75 = 0.65, and so on.
    assert veiled(clear, np.array([[[0.25]]]), np.array([0.8, 0.8, 1.0])).ravel() == pytest.approx([0.65, 0.7, 0.9])
    assert np.array_equal(veiled(clear, np.array([[[0.0]]]), np.array([0.8, 0.8, 1.0])).ravel(), [0.8, 0.8, 1.0])


@pytest.mark.parametrize("side", [1, 3, 15])
def test_the_dark_channel_is_the_least_of_a_window(side):
    image = RNG.random((9, 13, 3), np.float32)
    theirs = [[window(image, y, x, side // 2).min() for x in range(13)] for y in range(9)]
    assert np.array_equal(dark_channel(image, side), theirs)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("levels", [4, 1000])  # few levels: many equal pixels
def test_the_light_of_the_air_is_the_median_of_the_brightest(share, levels):
    image = np.float32(RNG.integers(0, levels, (12, 15, 3)) / levels)
    assert np.array_equal(light_of_air(image, 3, share), np.float32(air_of(image, 3, share)))


def test_the_light_of_the_air_is_not_that_of_a_white_car():
    image = np.full((60, 60, 3), 0.2, np.float32)
    image[:20] = 0.7, 0.75, 0.8  # the sky
    image[40:44, 40:44] = 1  # brighter, but smaller than the window
    assert light_of_air(image, 15, 0.01) == pytest.approx([0.7, 0.75, 0.8])


@pytest.mark.parametrize("radius", [1, 3, 20])
@pytest.mark.parametrize("mu", [1e-3, 1e-1])
def test_the_guided_filter_is_that_of_the_paper(radius, mu):
    guide = np.repeat(np.repeat(RNG.random((4, 5, 3)), 4, 0), 3, 1) + 0.05 * RNG.random((16, 15, 3))
    guide[:5, :6] = 0.5  # flat: only mu keeps the matrix regular
    given = RNG.random((16, 15))
    ours = GuidedFilter(guide, radius, mu)(given)
    assert ours.dtype == np.float32
    assert ours == pytest.approx(guided(guide, given, radius, mu), abs=2e-5)


def test_the_guided_filter_keeps_an_edge_of_the_guide_and_removes_noise():
    guide = np.zeros((40, 40, 3))
    guide[:, 20:] = 0.2, 0.9, 0.4
    clean = np.where(np.arange(40) < 20, 0.9, 0.1) * np.ones((40, 1))
    ours = GuidedFilter(guide, 5, 1e-3)(clean + RNG.normal(0, 0.1, clean.shape))
    assert np.abs(ours - clean).mean() < 0.02 and np.abs(ours[:, 19:21] - clean[:, 19:21]).max() < 0.1


def test_disparity_becomes_depth_and_depth_distance():
    # Worked by hand: 0.2 m * 2000 px / 100 px = 4 m; at (3, 4) of a camera of 12 px, sqrt(144 + 9 + 16) / 12 = 13 / 12.
    camera = Camera(2000, 0, 0, 0.2)
    assert np.array_equal(depth_of(np.array([[100, 0.0]], np.float32), camera), [[4, np.inf]])
    assert distance_of(np.full((5, 4), 24.0), Camera(12, 0, 0, 0.2))[4, 3] == pytest.approx(26)
    assert distance_of(np.full((5, 4), 24.0), Camera(12, 3, 4, 0.2))[4, 3] == 24


def test_disparities_are_stored_as_in_cityscapes():
    camera = Camera(2000, 0, 0, 0.2)
    # 4 m: 100 px, 25601; infinite: 1; nearer than what 16 bits hold: the largest.
    assert stored_disparity(np.array([[4, np.inf, 1]]), camera).tolist() == [[25601, 1, 65535]]


@pytest.mark.parametrize(("points", "givers"), [(1, 1), (30, 1), (40, 25), (0, 3)])
def test_matching_spreads_from_the_nearest_as_prims_trees_do(points, givers):
    todo, known = RNG.normal(size=(points, 5)), RNG.normal(size=(givers, 5))
    placed = {("giver", k): (place, k) for k, place in enumerate(known)}
    theirs = np.full(points, -1)
    while (theirs < 0).any():
        _, j, value = min(
            (((todo[j] - place) ** 2).sum(), j, value)
            for j in np.flatnonzero(theirs < 0)
            for place, value in placed.values()
        )
        theirs[j] = value
        placed["point", j] = todo[j], value
    assert matched(todo, known).tolist() == theirs.tolist()


def two_colours(height: int = 64, width: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A red and a blue half, with their disparities."""
    left = np.broadcast_to(np.arange(width) < width // 2, (height, width))
    image = np.where(left[..., None], (200, 30, 30), (30, 30, 200)).astype(np.uint8)
    return image, np.where(left, 12, 3).astype(np.float32)


def test_holes_take_the_disparity_of_their_own_colour():
    image, disparity = two_colours()
    known = np.ones(disparity.shape, bool)
    known[10:30, 40:60] = known[:, 44:48] = False  # over the edge, and a strip of red that touches blue
    assert np.array_equal(filled(np.where(known, disparity, 0), known, image), disparity)


def test_what_is_known_stays_and_nothing_is_filled_where_all_is_known():
    image, _ = two_colours()
    disparity = RNG.random(image.shape[:2], np.float32)
    known = RNG.random(disparity.shape) < 0.7
    assert np.array_equal(filled(disparity, known, image)[known], disparity[known])
    assert filled(disparity, np.ones_like(known), image) is disparity


def test_a_gradual_change_of_colour_does_not_end_a_sky():
    rows = np.linspace(0, 1, 80)[:, None, None]
    image = np.uint8(np.broadcast_to((1 - rows) * (40, 70, 190) + rows * (225, 230, 240), (80, 120, 3)))
    image[:, 90:] = 60, 80, 150  # a wall, of a colour like the top of the sky
    disparity = np.where(np.arange(120) < 90, 0, 40) * np.ones((80, 1), np.float32)
    known = np.ones(disparity.shape, bool)
    known[:60, :90] = False
    assert (filled(np.where(known, disparity, 0), known, image)[:, :84] < 1).all()


def test_a_few_known_pixels_in_a_hole_give_nothing_unless_there_are_no_others(monkeypatch):
    monkeypatch.setattr(stereo, "CELLS", 96)  # of 8 x 8 pixels
    image, disparity = two_colours()
    known = np.ones(disparity.shape, bool)
    known[20:40, 10:30] = False
    known[30, 20] = True
    wrong = disparity.copy()
    wrong[30, 20] = 99
    ours = filled(np.where(known, wrong, 0), known, image)
    assert ours[30, 20] == 99 and (ours[20:40, 10:30] == 12).sum() == 399
    only = np.zeros(disparity.shape, bool)
    only[30, 20] = True
    assert (filled(np.where(only, wrong, 0), only, image) == 99).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (101, 67)])
def test_images_of_any_size_are_filled(size):
    known = RNG.random(size) < 0.3
    known[0, 0] = True
    image = RNG.integers(0, 256, (*size, 3), np.uint8)
    disparity = np.where(known, 1 + RNG.random(size), 0).astype(np.float32)
    ours = filled(disparity, known, image)
    assert ours.shape == size and ours.min() >= 1 and ours.max() <= 2


def test_streaks_are_as_bright_as_at_the_distance_where_a_drop_is_a_pixel():
    # Worked by hand: 2 * 1000 px * 0.01 m = 20 m; exp(-0.2) nearer than that, exp(-0.5) at 50 m.
    ours = rain.streak_strength(np.array([[1, 20, 50, np.inf]]), 0.01, 0.01, 1000)
    assert ours == pytest.approx(np.array([[math.exp(-0.2), math.exp(-0.2), math.exp(-0.5), 0]]))


def test_streaks_and_haze_are_mixed_as_in_the_paper():
    clear, air = np.array([[[0.5, 0.2, 1.0]]]), np.array([0.8, 0.8, 0.9])
    # Worked by hand: 0.5 * (1 - 0.3 - 0.4) + 0.3 + 0.8 * 0.4 = 0.77; 0.2 * 0.3 + 0.62 = 0.68; 1 * 0.3 + 0.66 = 0.96.
    ours = rain.rained(clear, np.array([[[0.3]]]), np.array([[[0.4]]]), air)
    assert ours.ravel() == pytest.approx([0.77, 0.68, 0.96])
    assert rain.rained(clear, np.array([[[0.9]]]), np.array([[[0.9]]]), air).max() == 1


def test_a_pattern_of_streaks_is_a_function_of_its_number():
    patterns = [rain.pattern((96, 192), number) for number in range(1, rain.PATTERNS + 1)]
    assert np.array_equal(patterns[3], rain.pattern((96, 192), 4))
    for number, layer in enumerate(patterns):
        assert layer.shape == (96, 192) and layer.min() >= 0 and layer.max() <= 1
        assert 0.01 < layer.mean() < 0.3
        assert all(not np.array_equal(layer, other) for other in patterns[:number])
        down = np.abs(np.diff(layer, axis=0)).mean()
        assert down < np.abs(np.diff(layer, axis=1)).mean(), "streaks are longer than wide"
