"""Drawn street scenes: pure functions, exact labels, true depth, and weather that does what it says."""

from __future__ import annotations

import numpy as np
import pytest

from segda.data.labels.spaces import space_named
from segda.data.streets import weather
from segda.data.streets.conditions import CONDITIONS, FOG, SPLITS
from segda.data.streets.pinhole import SKY_DEPTH, Canvas, Plane
from segda.data.streets.streets import WEATHERS, draw
from segda.errors import RecipeError

CLASSES = space_named("cityscapes-19").classes
SIZE = (96, 192)
TIMES = ("day", "dusk", "night")


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_scene_is_a_pure_function_of_its_address(condition):
    first, second, other = (draw(5, index, condition, SIZE) for index in (3, 3, 4))
    for name in ("image", "label", "depth"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.label, other.label)
    assert first.image.shape == (*SIZE, 3) and first.image.dtype == np.uint8
    assert first.label.shape == SIZE and first.label.dtype == np.uint8
    assert first.depth.shape == SIZE and first.depth.dtype == np.float32


@pytest.mark.parametrize("condition", CONDITIONS)
def test_weather_changes_neither_labels_nor_depth(condition):
    day, changed = draw(1, 7, "day", SIZE), draw(1, 7, condition, SIZE)
    assert np.array_equal(day.label, changed.label) and np.array_equal(day.depth, changed.depth)
    assert (condition == "day") == np.array_equal(day.image, changed.image)


def test_at_least_fifteen_classes_are_drawn_and_no_pixel_is_left_out():
    counts = np.zeros(256, int)
    for index in range(30):
        counts += np.bincount(draw(1, index, "day", SIZE).label.ravel(), minlength=256)
    assert (counts[:19] > 0).sum() >= 15
    assert counts[19:].sum() == 0


def test_the_same_street_is_drawn_at_any_size():
    small, large = draw(1, 2, "day", (64, 128)), draw(1, 2, "day", (256, 512))
    same = small.label == large.label[2::4, 2::4]
    assert same.mean() > 0.85  # edges and thin poles fall on other pixels


def test_depth_is_far_in_the_sky_and_falls_towards_the_camera_on_the_road():
    sky, road = CLASSES.index("sky"), CLASSES.index("road")
    for index in range(8):
        scene = draw(1, index, "day", SIZE)
        assert (scene.depth > 0).all()
        if (scene.label == sky).any():
            assert scene.depth[scene.label == sky].min() >= scene.depth.max()
        rows = [scene.depth[y][scene.label[y] == road] for y in range(SIZE[0])]
        means = [row.mean() for row in rows if len(row)]
        assert means == sorted(means, reverse=True)


def test_fog_is_the_transmittance_formula_in_float64():
    rng = np.random.default_rng(0)
    clear = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)
    depth = rng.uniform(0, 500, (4, 5)).astype(np.float32)
    air = np.array([200.0, 210.0, 220.0])
    for beta in (0.005, 0.01, 0.02):
        theirs = np.zeros((4, 5, 3))
        for y, x, c in np.ndindex(4, 5, 3):
            through = np.exp(-beta * float(depth[y, x]))
            theirs[y, x, c] = float(clear[y, x, c]) * through + air[c] * (1 - through)
        assert np.abs(weather.fog(clear, depth, beta, air) - theirs).max() <= 0.51
    assert np.array_equal(weather.fog(clear, np.zeros((4, 5)), 0.02, air), clear)


@pytest.mark.parametrize("condition", FOG)
def test_a_foggy_scene_is_the_day_scene_behind_its_fog(condition):
    day, foggy = draw(2, 5, "day", SIZE), draw(2, 5, condition, SIZE)
    through = np.exp(-FOG[condition] * day.depth.astype(np.float64))[..., None]
    theirs = day.image * through + weather.airlight(2, 5).astype(np.float64) * (1 - through)
    assert np.abs(foggy.image - theirs).max() <= 0.51


def test_every_condition_is_either_fog_or_a_weather_of_its_own():
    assert set(CONDITIONS) == set(FOG) | set(WEATHERS) and not set(FOG) & set(WEATHERS)


def test_depth_of_ground_and_planes_is_where_a_ray_meets_them():
    size, focal, centre, horizon, height = (60, 120), 0.9, 0.48, 0.4, 1.5
    canvas = Canvas(size, focal, centre, horizon, height)
    flat, wall = canvas.new("road", Plane(0, 1)), Plane(2.0, 4.0, 0.1, 1.0)
    canvas.ids[:] = canvas.new("sky", Plane(0, SKY_DEPTH))
    canvas.top(((-50, 1), (50, 1), (50, 400), (-50, 400)), 0, (90, 90, 90), flat)
    side = canvas.new("building", wall)
    canvas.box(wall, 0, 0, 20, 6, (200, 0, 0), side)
    face = canvas.new("car", Plane(-2.0, 8.0))
    canvas.box(Plane(-2.0, 8.0), -1, 0, 1, 1.5, (0, 0, 200), face)
    ours, seen = canvas.depth(1), set()
    for v, u in np.ndindex(*size):
        ray = np.array([(u + 0.5 - centre * 120) / (focal * 120), -(v + 0.5 - horizon * 60) / (focal * 120), 1.0])
        thing = canvas.ids[v, u]
        if thing == flat and ray[1] < -0.02:  # point = ray * depth, its y = -height
            theirs = -height / ray[1]
        elif thing == side:  # (2, 4) + t (0.1, 1) = depth (ray_x, 1)
            theirs = np.linalg.solve([[ray[0], -0.1], [1.0, -1.0]], [2.0, 4.0])[0]
        elif thing == face:
            theirs = 8.0
        else:
            continue
        seen.add(int(thing))
        assert ours[v, u] == pytest.approx(theirs, rel=1e-4)
    assert seen == {flat, side, face}


def test_a_label_is_where_its_colour_is_to_a_pixel():
    canvas = Canvas((80, 160), 0.9, 0.5, 0.4, 1.5)
    canvas.new("road", Plane(0, 1))
    plane = Plane(0.3, 6.0)
    thing = canvas.new("car", plane)
    canvas.disc(plane, 0.1, 1.0, 0.9, 0.7, (255, 255, 255), thing)
    coloured, labelled = canvas.image[..., 0] > 127, canvas.ids == thing
    grown = np.zeros_like(labelled)
    for dv, du in np.ndindex(3, 3):
        grown |= np.roll(labelled, (dv - 1, du - 1), (0, 1))
    shrunk = np.ones_like(labelled)
    for dv, du in np.ndindex(3, 3):
        shrunk &= np.roll(labelled, (dv - 1, du - 1), (0, 1))
    assert labelled.sum() > 200
    assert not (coloured & ~grown).any() and not (shrunk & ~coloured).any()


def test_fog_thickens_with_beta_and_night_is_dark_and_snow_bright():
    def contrast(condition: str) -> float:
        return np.mean([draw(1, index, condition, SIZE).image.std() for index in range(4)])

    def brightness(condition: str) -> float:
        return np.mean([draw(1, index, condition, SIZE).image.mean() for index in range(4)])

    assert contrast("day") > contrast("fog-0.005") > contrast("fog-0.01") > contrast("fog-0.02")
    assert brightness("snow") > brightness("day") > brightness("rain") and brightness("day") > brightness("night")
    day, night = draw(1, 1, "day", SIZE), draw(1, 1, "night", SIZE)
    sky = day.label == CLASSES.index("sky")
    assert night.image[sky].mean() < 0.4 * day.image[sky].mean()


def test_dusk_lies_between_day_and_night():
    scenes = {condition: [draw(1, index, condition, SIZE) for index in range(8)] for condition in TIMES}

    def brightness(condition: str, name: str) -> float:
        ids = CLASSES.index(name)
        return np.concatenate([scene.image[scene.label == ids] for scene in scenes[condition]]).mean()

    for name in ("sky", "vegetation", "building"):  # lamps and headlights light the road up
        day, dusk, night = (brightness(condition, name) for condition in TIMES)
        assert 0.95 * day > dusk > 1.05 * night, name
    for dusk in scenes["dusk"]:
        sky = dusk.image[dusk.label == CLASSES.index("sky")].astype(float)
        assert len(sky) < 100 or sky[-50:, 0].mean() > sky[:50, 0].mean(), "no afterglow above the horizon"


def test_splits_show_different_streets():
    seeds = {seed for seed, _ in SPLITS.values()}
    assert len(seeds) == len(SPLITS)
    labels = [draw(seed, 0, "day", SIZE).label for seed in seeds]
    assert not np.array_equal(labels[0], labels[1])


def test_an_unknown_condition_is_explained():
    with pytest.raises(RecipeError, match="did you mean 'snow'"):
        draw(1, 0, "snows", SIZE)
