"""Motion and warp on places that are known: planes, a camera that turns, one that sees nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from segda.pseudo_labelling.motion import FAR, Motion, camera, features, matches, motion
from segda.pseudo_labelling.warping import BILINEAR, NONE, seen_from, warp

STILL = np.eye(3)


def moved(depth: np.ndarray, translation: tuple[float, float, float], rotation: np.ndarray = STILL):
    height, width = depth.shape
    return seen_from(depth, camera(width, height), Motion(rotation, np.array(translation)))


def test_a_camera_that_stands_still_sees_the_same():
    depth = np.random.default_rng(0).uniform(2, 50, (12, 16))
    places, before = moved(depth, (0, 0, 0))
    maps = np.random.default_rng(1).uniform(size=(3, 12, 16))
    chosen = warp(places, depth)
    assert (chosen.how[1:-1, 1:-1] == BILINEAR).all()  # at the border, but for rounding
    np.testing.assert_allclose(chosen.apply(maps), maps, atol=1e-9)
    np.testing.assert_allclose(before, depth)


def test_a_wall_moves_by_focal_length_over_depth():
    """A wall 10 m away, the camera 2 pixels' worth to the left: each pixel has what was 2 to its left."""
    depth = np.full((10, 20), 10.0)
    shift = 2 * 10 / camera(20, 10)[0, 0]
    maps = np.random.default_rng(0).uniform(size=(2, 10, 20))
    chosen = warp(moved(depth, (shift, 0, 0))[0], depth)
    ours = chosen.apply(maps)
    np.testing.assert_allclose(ours[:, :, 2:], maps[:, :, :-2], atol=1e-9)
    assert (chosen.how[:, :2] == NONE).all()
    np.testing.assert_array_equal(ours[:, :, :2], maps[:, :, :2])  # what nothing came to keeps what is there


def test_the_nearer_of_two_things_is_seen():
    """A post 2 m away before a wall 40 m away: moved sideways it covers the wall, and what it leaves is wall."""
    depth = np.full((12, 40), 40.0)
    depth[:, 18:22] = 2
    maps = np.zeros((2, 12, 40))
    maps[1, :, 18:22] = 1
    maps[0] = 1 - maps[1]
    shift = 6 * 2 / camera(40, 12)[0, 0]  # the post by 6 pixels, the wall by 0.3
    label = warp(moved(depth, (shift, 0, 0))[0], depth).apply(maps).argmax(0)[1:-1]
    assert (label[:, 24:28] == 1).all() and (label[:, 10:23] == 0).all() and (label[:, 30:] == 0).all()


def test_what_is_behind_the_camera_is_not_seen():
    """The camera drives 5 m on: what stood 3 m away would come out upside down."""
    depth = np.full((8, 8), 20.0)
    depth[:, :4] = 3
    places, _ = moved(depth, (0, 0, -5))
    assert np.isnan(places[:, :4]).all() and np.isfinite(places[:, 4:]).all()
    chosen = warp(places, depth)
    assert set(np.unique(chosen.quad[chosen.how != NONE] % 8)) <= {4, 5, 6}


def slowly_inside(corners: np.ndarray, x: float, y: float) -> bool:
    """By OpenCV, on the border as well."""
    return cv2.pointPolygonTest(corners.astype(np.float32)[:, None], (x, y), False) >= 0


def test_each_pixel_is_in_its_quadrilateral_and_no_other_one_is_better():
    rng = np.random.default_rng(3)
    depth = cv2.resize(rng.uniform(4, 30, (4, 5)), (20, 16), interpolation=cv2.INTER_CUBIC)
    angle = 0.03
    rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    places, _ = moved(depth, (0.6, -0.2, 0.4), rotation)
    chosen = warp(places, depth)
    assert 0.3 < (chosen.how != NONE).mean() < 1
    quads = {
        (r, c): np.array([places[r, c], places[r + 1, c], places[r + 1, c + 1], places[r, c + 1]])
        for r in range(15)
        for c in range(19)
    }
    for y, x in np.ndindex(16, 20):
        around = [at for at, corners in quads.items() if slowly_inside(corners, x + 1, y + 1)]
        if chosen.how[y, x] == NONE:
            assert not around
            continue
        r, c = divmod(int(chosen.quad[y, x]), 20)
        assert (r, c) in around
        if chosen.how[y, x] == BILINEAR:
            corners = quads[r, c]
            np.testing.assert_allclose(chosen.weight[y, x] @ corners, (x + 1, y + 1), atol=1e-6)


def textured(seed: int) -> np.ndarray:
    """A picture that is different everywhere."""
    noise = np.random.default_rng(seed).integers(0, 256, (60, 107)).astype(np.uint8)
    return cv2.resize(noise, (428, 240), interpolation=cv2.INTER_CUBIC)


def test_motion_is_found_from_two_pictures():
    """Two walls at 6 m and 15 m, seen from 0.5 m to the left: OpenCV's warp makes the second picture."""
    size = (240, 428)
    matrix = camera(size[1], size[0])
    depth = np.full(size, 15.0)
    depth[:, 200:] = 6
    picture = np.repeat(textured(0)[..., None], 3, 2)
    second = textured(1)[..., None].repeat(3, 2)
    for where, metres in ((depth == 15, 15.0), (depth == 6, 6.0)):
        shift = matrix[0, 0] * 0.5 / metres
        turn = np.float32([[1, 0, shift], [0, 1, 0]])
        there = cv2.warpAffine(where.astype(np.uint8), turn, size[::-1]) > 0
        second[there] = cv2.warpAffine(picture, turn, size[::-1])[there]
    (first_places, first), (second_places, other) = features(picture), features(second)
    pairs = matches(first, other)
    assert len(pairs) > 100
    found = motion(first_places[pairs[:, 0]], second_places[pairs[:, 1]], matrix, depth)
    assert np.degrees(np.arccos((np.trace(found.rotation) - 1) / 2)) < 0.5
    np.testing.assert_allclose(found.translation, [0.5, 0, 0], atol=0.05)
    again = motion(first_places[pairs[:, 0]], second_places[pairs[:, 1]], matrix, depth)
    np.testing.assert_array_equal(found.rotation, again.rotation)


def test_a_points_distance_is_read_at_its_own_pixel():
    """A depth that is right at the points and 1 m everywhere else; places count from 1."""
    rng, matrix = np.random.default_rng(0), camera(428, 240)
    first = np.stack([rng.permutation(400)[:60] + 10, rng.permutation(200)[:60] + 10], 1)
    depth, metres = np.ones((240, 428)), rng.uniform(5, 30, 60)
    depth[first[:, 1] - 1, first[:, 0] - 1] = metres
    second = first + np.stack([matrix[0, 0] * 0.5 / metres, np.zeros(60)], 1)
    found = motion(first.astype(float), second, matrix, depth)
    np.testing.assert_allclose(found.translation, [0.5, 0, 0], atol=0.01)


@pytest.mark.parametrize("count", [0, 5, 13])
def test_few_matches_tell_no_motion(count):
    points = np.random.default_rng(0).uniform(1, 200, (count, 2))
    assert motion(points, points + 3, camera(428, 240), np.full((240, 428), 10.0)) is None


def test_only_the_sky_tells_no_distance():
    rng = np.random.default_rng(0)
    depth = rng.uniform(5, 30, 60)
    first = rng.uniform([20, 20], [400, 220], (60, 2))
    second = first + np.stack([300 / depth, np.zeros(60)], 1)
    assert motion(first, second, camera(428, 240), np.full((240, 428), FAR)) is None


def test_pictures_without_features_have_no_matches():
    grey = np.full((40, 60, 3), 128, np.uint8)
    places, descriptors = features(grey)
    assert places.shape == (0, 2) and matches(descriptors, descriptors).shape == (0, 2)
