"""The parts of MGCDA's refinement (sakaridis/MGCDA, run in Octave) against recorded values, see golden/classics.

Where the recorded code divides by zero, and where ours leaves out what is behind the camera, ours differs on purpose
(docs/FIDELITY.md).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from golden import Golden
from segda.evaluation.metrics import Confusion, Recognised
from segda.pseudo_labelling.cross_bilateral import cross_bilateral, jointly_enlarged, unit_lab
from segda.pseudo_labelling.fusion import fused
from segda.pseudo_labelling.motion import FAR, Motion, camera, depth_of, matches, motion
from segda.pseudo_labelling.warping import BILINEAR, CORNERS, NONE, seen_from, warp

GOLDEN = Golden("classics")

SINGLE = 1e-6
"""Relative, of values of a single pass; of maps 1e-5 absolute [the set's README]."""

MAPS = 1e-5

ROUNDING = 10
"""Times the recorded distance of a second implementation in double precision."""

FIRST_THING = 11


@pytest.fixture(scope="module")
def theirs():
    return GOLDEN.json("mgcda.json"), GOLDEN.npz("mgcda.npz")


def channels_first(maps: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(maps).permute(2, 0, 1)


def soft_map(name: str) -> torch.Tensor:
    """(19, 24, 32) float64 probabilities."""
    logits = 1.7 * GOLDEN.normal(name, (24, 32, 19)).astype(np.float64)
    return channels_first(logits).softmax(0)


@pytest.mark.parametrize(("name", "low"), [("fused", 0.6), ("fused_dynamic", 0.3)])
def test_fusion_is_the_authors(theirs, name, low):
    ours = fused(
        soft_map("mgcda.orig"), soft_map("mgcda.extra"), weight=0.6, low=low, doubt=0.2,
        things=torch.arange(19) >= FIRST_THING,
    )  # fmt: skip
    expected = channels_first(theirs[1][name])
    np.testing.assert_allclose(ours, expected, rtol=0, atol=ROUNDING * theirs[0]["own_port_minus_octave"][name])
    assert torch.equal(ours.argmax(0), expected.argmax(0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_filter_is_the_authors(theirs, dtype):
    values = theirs[1]
    ours = cross_bilateral(
        channels_first(values["bilateral_input"]).to(dtype), torch.from_numpy(values["bilateral_reference"]),
        space=16, space_cell=4, colour=0.1, colour_cell=0.1,
    )  # fmt: skip
    assert ours.dtype == dtype
    exact = ROUNDING * theirs[0]["own_port_minus_octave"]["bilateral_raw"]
    np.testing.assert_allclose(
        ours, channels_first(values["bilateral"]), rtol=0, atol=exact if dtype is torch.float64 else MAPS
    )


def test_the_guides_colours_are_theirs_but_for_opencvs_table(theirs):
    ours = unit_lab(np.rint(255 * theirs[1]["rgb"]).astype(np.uint8))
    table = theirs[0]["own_port_minus_octave"]["lab_opencv"] / 100
    np.testing.assert_allclose(ours, theirs[1]["lab_unit"], rtol=0, atol=2 * table)  # its minimum is shifted, too
    assert ours[..., 1:].min() == 0


def test_joint_enlarging_is_the_authors(theirs):
    ours = jointly_enlarged(theirs[1]["jbu_input"], theirs[1]["jbu_reference"], space=0.5, colour=0.1)
    exact = ROUNDING * theirs[0]["own_port_minus_octave"]["joint_upsampling"]
    np.testing.assert_allclose(ours, theirs[1]["jbu"], rtol=0, atol=exact)


def test_depth_and_camera_are_theirs(theirs):
    recorded = theirs[0]["depth_of_disparity_uint16"]
    disparity = np.array([list(map(int, recorded))], np.uint16)
    np.testing.assert_allclose(depth_of(disparity)[0], list(recorded.values()), rtol=1e-15)
    np.testing.assert_allclose(camera(1920, 1080), theirs[0]["K_1080x1920"], rtol=1e-15)


def test_the_motion_of_exact_points_is_found(theirs):
    values = theirs[1]
    first, second = values["points_1"].T.copy(), values["points_2"].T.copy()
    depth = np.full((1080, 1920), FAR)
    columns, rows = np.rint(first - 1).astype(int).T
    depth[rows, columns] = values["depth_of_points"]
    found = motion(first, second, camera(1920, 1080), depth)
    np.testing.assert_allclose(found.rotation, values["R"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.translation, theirs[0]["motion"]["t_times_scale"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.translation, theirs[0]["motion"]["scale"] * values["t"], rtol=0, atol=1e-9)


def test_descriptors_are_matched_as_theirs(theirs):
    first = theirs[1]["descriptors"].T.astype(np.float32)
    ours = matches(first, first + np.float32(0.01))
    assert np.array_equal(ours[np.argsort(ours[:, 1])].T + 1, theirs[1]["matches"])


@pytest.fixture(scope="module")
def moved(theirs):
    values = theirs[1]
    height, width = values["depth"].shape
    return seen_from(values["depth"], camera(width, height), Motion(values["R_true"], values["t_warp"]))[0]


def test_pixels_are_seen_where_theirs_are(theirs, moved):
    ours = moved.transpose(1, 0, 2).reshape(-1, 2)  # column by column
    exact = ROUNDING * theirs[0]["own_port_minus_octave"]["vertices"]
    np.testing.assert_allclose(ours, theirs[1]["warp_vertices"], rtol=0, atol=exact)


def test_quadrilaterals_are_chosen_as_theirs(theirs, moved):
    values = theirs[1]
    ours = warp(moved, values["depth"])
    assert np.array_equal(ours.how, values["warp_mask"])
    assert {str(way): int((ours.how == way).sum()) for way in range(3)} == theirs[0]["warp_mask_counts"]
    row, column = np.divmod(ours.quad, values["depth"].shape[1])
    number = column * (values["depth"].shape[0] - 1) + row + 1  # column by column, from 1 on
    assert np.array_equal(np.where(ours.how == NONE, 0, number), values["warp_quad"])


def test_warped_maps_are_theirs_but_for_parallelograms(theirs, moved):
    """There they divide by zero, and take one corner for the mean of four."""
    values = theirs[1]
    width = values["depth"].shape[1]
    chosen = warp(moved, values["depth"])
    ours = chosen.apply(np.ascontiguousarray(values["warp_input"].transpose(2, 0, 1))).transpose(1, 2, 0)
    corners = np.stack([moved.reshape(-1, 2)[chosen.quad + row * width + column] for row, column in CORNERS])
    down, twist = corners[1] - corners[0], corners[0] - corners[1] + corners[2] - corners[3]
    square = down[..., 0] * twist[..., 1] - down[..., 1] * twist[..., 0]
    degenerate = (chosen.how == BILINEAR) & (np.abs(square) < 1e-12)
    assert 0 < degenerate.sum() < (chosen.how == BILINEAR).sum() / 2
    np.testing.assert_allclose(ours[~degenerate], values["warped"][~degenerate], rtol=0, atol=MAPS)
    maps = values["warp_input"].reshape(-1, values["warp_input"].shape[2])
    at_corner = maps[(chosen.quad + width)[degenerate]]
    np.testing.assert_allclose(values["warped"][degenerate], at_corner, rtol=0, atol=MAPS)
    where = np.stack([np.argwhere(degenerate)[:, 1] + 1, np.argwhere(degenerate)[:, 0] + 1], 1)
    again = np.einsum("nk,knd->nd", chosen.weight[degenerate], corners[:, degenerate])
    np.testing.assert_allclose(again, where, rtol=0, atol=1e-9)


def test_iou_is_theirs_but_for_absent_classes(theirs):
    confusion = Confusion(19)
    confusion.add(torch.from_numpy(theirs[1]["gt"]), torch.from_numpy(theirs[1]["pred"]))
    counts = confusion.counts()[:19]
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    assert counts.diagonal().tolist() == theirs[0]["intersection"] and union.tolist() == theirs[0]["union"]
    left_out = np.mean(counts.diagonal()[union > 0] / union[union > 0])
    assert left_out == pytest.approx(theirs[0]["mean_iou_absent_left_out"], rel=SINGLE)


def test_counts_of_what_can_be_recognised_are_the_definitions(theirs):
    values = theirs[1]
    prob = channels_first(values["uiou_prob"])
    sure, predicted = prob.max(0)
    for row in theirs[0]["uiou"]:
        ours = Recognised(prob.shape[0], (row["threshold"],))
        ours.add(torch.from_numpy(values["uiou_gt"]), torch.from_numpy(values["uiou_invalid"]), predicted, sure)
        assert ours.counts()[0].T.tolist() == row["TP_TI_FP_FN_FI"]
        assert ours.rates()[0] == pytest.approx(row["mean"], rel=SINGLE)
