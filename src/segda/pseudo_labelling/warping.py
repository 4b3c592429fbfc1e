"""What a prediction of one picture says of another, taken by a camera that stood elsewhere, by the first one's depth.

As MGCDA's code (depth_based_warping and warp_soft_prediction): each pixel's middle is moved to where the other camera
sees it; four neighbours make a quadrilateral, and a pixel of the other picture takes what lies between the corners of
the one that it is in. Points behind the camera are left out, which the authors project as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segda.pseudo_labelling.motion import Motion

NEAREST = 0.1
"""Metres before the camera; what is nearer, or behind it, is not seen [code of MGCDA]."""

TORN = 5
"""The third of a quadrilateral's sides, by length, over the second: more, and it spans two things [code of MGCDA]."""

PAIRS = 1 << 22
"""So many pairs of a pixel and a quadrilateral around it are looked at at once."""

ROUNDING = 1e-6
"""Pixels; whether one is inside is worked out without it."""

NONE, BILINEAR, TORN_APART = 0, 1, 2
"""How a pixel got its value: not at all, between four corners, from some corners of a torn quadrilateral."""


@dataclass(frozen=True)
class Warp:
    """Where each pixel of the other picture lies in the first.

    how: (H, W) of NONE, BILINEAR, TORN_APART. quad: (H, W) the first corner of its quadrilateral, row * W + column.
    weight: (H, W, 4) of the corners at (row, column) + CORNERS.
    """

    how: np.ndarray
    quad: np.ndarray
    weight: np.ndarray

    def apply(self, maps: np.ndarray) -> np.ndarray:
        """(C, H, W) maps of the first picture -> of the other; a pixel in no quadrilateral has what is at its place."""
        classes, _, width = maps.shape
        warped = maps.copy()
        seen = self.how != NONE
        first, weight = self.quad[seen], self.weight[seen].astype(maps.dtype)
        flat = maps.reshape(classes, -1)
        steps = [row * width + column for row, column in CORNERS]
        for c in range(classes):
            warped[c][seen] = sum(flat[c][first + step] * weight[:, k] for k, step in enumerate(steps))
        return warped


CORNERS = ((0, 0), (1, 0), (1, 1), (0, 1))
"""Rows and columns of a quadrilateral's corners, in their order."""


def seen_from(depth: np.ndarray, matrix: np.ndarray, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) metres -> (H, W, 2) places x, y counted from 1 where the moved camera sees each pixel, and (H, W) metres
    before it; NaN where that is less than NEAREST.
    """
    height, width = depth.shape
    x, y = np.meshgrid(np.arange(1.0, width + 1), np.arange(1.0, height + 1))
    rays = np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    points = np.linalg.inv(matrix) @ rays * depth.ravel()
    moved = motion.rotation @ points + motion.translation[:, None]
    moved[:, moved[2] < NEAREST] = np.nan
    projected = matrix @ moved
    return (projected[:2] / projected[2]).T.reshape(height, width, 2), moved[2].reshape(height, width)


def warp(places: np.ndarray, depth: np.ndarray) -> Warp:
    """(H, W, 2) places and (H, W) depth of the first picture's pixels -> which of them each pixel of the other is made
    of. Of several quadrilaterals one that is whole wins, and of these the nearest.
    """
    height, width = depth.shape
    corners = np.stack([places[r : height - 1 + r, c : width - 1 + c] for r, c in CORNERS], 2).reshape(-1, 4, 2)
    depths = np.stack([depth[r : height - 1 + r, c : width - 1 + c] for r, c in CORNERS], 2).reshape(-1, 4)
    first = (np.arange(height - 1)[:, None] * width + np.arange(width - 1)).ravel()
    low = np.ceil(np.nan_to_num(corners.min(1), nan=np.inf)).clip(1, [width + 1, height + 1])
    high = np.floor(np.nan_to_num(corners.max(1), nan=-np.inf)).clip(0, [width, height])
    sides = (high - low + 1).clip(0).astype(np.int64)  # pixels across and down
    counts = sides.prod(1)
    due = np.flatnonzero(counts)
    corners, depths, first, low = corners[due], depths[due], first[due], low[due].astype(np.int64)
    sides, counts = sides[due], counts[due]
    lengths = np.sort(_lengths(corners), 1)
    torn = lengths[:, 2] > TORN * lengths[:, 1]

    how = np.zeros(height * width, np.uint8)
    chosen = np.zeros(height * width, np.int64)
    rank = np.full(height * width, np.inf)
    nearness = depths.mean(1)
    # Whole ones before torn ones, then by depth.
    order = np.empty(len(due), np.float64)
    order[np.lexsort((nearness, torn))] = np.arange(len(due))
    for part in _parts(counts):
        number, row = _counted(np.arange(part.start, part.stop), low[part, 1], sides[part, 1])
        left, right = _across(corners[number], row, width)
        line, column = _counted(np.arange(len(number)), left, (right - left + 1).clip(0))
        number, pixel = number[line], np.stack([column, row[line]], 1)
        inside = _inside(corners[number], pixel.astype(np.float64))
        number, pixel = number[inside], pixel[inside]
        at = (pixel[:, 1] - 1) * width + pixel[:, 0] - 1
        best = np.full(height * width, np.inf)
        np.minimum.at(best, at, order[number])
        wins = (order[number] == best[at]) & (best[at] < rank[at])
        rank[at[wins]], chosen[at[wins]] = best[at[wins]], number[wins]
    seen = np.flatnonzero(np.isfinite(rank))
    number = chosen[seen]
    pixel = np.stack([seen % width + 1, seen // width + 1], 1).astype(np.float64)
    weight = np.zeros((height * width, 4))
    weight[seen] = _between(corners[number], pixel)
    apart = seen[torn[number]]
    weight[apart] = _of_deepest(weight[apart], corners[chosen[apart]], depths[chosen[apart]])
    how[seen] = np.where(torn[number], TORN_APART, BILINEAR)
    quad = np.zeros(height * width, np.int64)
    quad[seen] = first[number]
    return Warp(how.reshape(height, width), quad.reshape(height, width), weight.reshape(height, width, 4))


def _parts(counts: np.ndarray) -> list[slice]:
    """Runs of quadrilaterals with about PAIRS pixels each."""
    ends = np.searchsorted(np.cumsum(counts), np.arange(PAIRS, counts.sum() + PAIRS, PAIRS), side="left") + 1
    ends = np.unique(np.minimum(ends, len(counts)))
    return [slice(begin, end) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def _counted(things: np.ndarray, first: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each thing `counts` times, and beside it the numbers from `first` on."""
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(things, counts), np.repeat(first, counts) + place


def _across(corners: np.ndarray, row: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4, 2), (N,) -> the first and the last column that the quadrilateral can have pixels of in that row."""
    left, right = np.full(len(row), np.inf), np.full(len(row), -np.inf)
    for k in range(4):
        (a_x, a_y), (b_x, b_y) = corners[:, k].T, corners[:, (k + 1) % 4].T
        meets = (np.minimum(a_y, b_y) <= row) & (row <= np.maximum(a_y, b_y))
        with np.errstate(divide="ignore", invalid="ignore"):
            x = a_x + (row - a_y) / (b_y - a_y) * (b_x - a_x)
        # A side along the row meets it from end to end.
        level = a_y == b_y
        left = np.where(meets, np.minimum(left, np.where(level, np.minimum(a_x, b_x), x)), left)
        right = np.where(meets, np.maximum(right, np.where(level, np.maximum(a_x, b_x), x)), right)
    return (
        np.ceil(left - ROUNDING).clip(1, width + 1).astype(np.int64),
        np.floor(right + ROUNDING).clip(0, width).astype(np.int64),
    )


def _lengths(corners: np.ndarray) -> np.ndarray:
    """(N, 4, 2) -> (N, 4) lengths of the sides; the k-th goes from corner k to the next."""
    return np.hypot(*np.moveaxis(np.roll(corners, -1, 1) - corners, 2, 0))


def _cross(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]


def _inside(corners: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """(N, 4, 2), (N, 2) -> whether the pixel is in the quadrilateral or on its border; where the border crosses itself,
    what it runs around twice is outside.
    """
    inside, border = np.zeros(len(pixel), bool), np.zeros(len(pixel), bool)
    for k in range(4):
        a, b = corners[:, k], corners[:, (k + 1) % 4]
        turn = _cross(b - a, pixel - a)
        above_a, above_b = a[:, 1] > pixel[:, 1], b[:, 1] > pixel[:, 1]
        # A ray to the right crosses the side: the pixel is left of it, seen upwards or downwards.
        inside ^= (above_a != above_b) & ((turn > 0) == above_b)
        within = ((np.minimum(a, b) <= pixel) & (pixel <= np.maximum(a, b))).all(1)
        border |= (turn == 0) & within
    return inside | border


def _between(corners: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """(N, 4, 2), (N, 2) -> (N, 4) weights of the corners whose bilinear mean is the pixel; within [0, 1]."""
    a, b, c, d = np.moveaxis(corners, 1, 0)
    right, down, twist, to = d - a, b - a, a - b + c - d, pixel - a
    # to = l right + m down + l m twist; without l it is a square equation of m.
    square = _cross(down, twist)
    linear = _cross(down, right) - _cross(to, twist)
    constant = -_cross(to, right)
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(np.maximum(linear**2 - 4 * square * constant, 0))
        # Without cancellation, and right where the square term vanishes.
        q = -(linear + np.where(linear < 0, -root, root)) / 2
        solutions = []
        for m in (q / square, constant / q):
            across = right + m[:, None] * twist
            along = to - m[:, None] * down
            wide = np.abs(across[:, 0]) > np.abs(across[:, 1])
            l = np.where(wide, along[:, 0] / across[:, 0], along[:, 1] / across[:, 1])
            excess = np.maximum(np.abs(l - 0.5), np.abs(m - 0.5))
            solutions.append((np.where(np.isfinite(excess), excess, np.inf), l, m))
    second = solutions[1][0] < solutions[0][0]
    l, m = (np.where(second, solutions[1][k], solutions[0][k]) for k in (1, 2))
    l, m = (np.nan_to_num(one, nan=0.5).clip(0, 1) for one in (l, m))
    return np.stack([(1 - l) * (1 - m), (1 - l) * m, l * m, l * (1 - m)], 1)


def _of_deepest(weight: np.ndarray, corners: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """(N, 4) weights, of the deepest corner and those that sides shorter than the two long ones tie to it; the others
    are 0. What comes to light between two things belongs to the farther.
    """
    lengths = _lengths(corners)
    short = lengths < np.sort(lengths, 1)[:, 2:3]
    kept = np.zeros(weight.shape, bool)
    kept[np.arange(len(kept)), depths.argmax(1)] = True
    for _ in range(2):
        kept |= (np.roll(kept, 1, 1) & np.roll(short, 1, 1)) | (np.roll(kept, -1, 1) & short)
    own = weight * kept
    whole = own.sum(1, keepdims=True)
    return np.where(whole > 0, own / np.where(whole > 0, whole, 1), kept / kept.sum(1, keepdims=True))
