"""How a camera moved between two pictures of one place, from the pictures and the depth of one of them.

As MGCDA (Sakaridis et al., PAMI 2020, sec. 3.2): points that look alike, the essential matrix, and the length of the
way by comparing depths. The features are OpenCV's SIFT, the matrix is OpenCV's; the authors took SURF, and a
fundamental matrix of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

FIELD_OF_VIEW = 64.4
"""Degrees across a picture [code of MGCDA, of Dark Zurich's camera]."""

RATIO = 0.7
"""The nearest squared distance must be below this share of the second [code of MGCDA]."""

FARTHEST = 20
"""Times the least of all nearest squared distances that a match may have [code of MGCDA]."""

FEWEST = 14
"""Matches, and inliers, without which nothing is known [code of MGCDA]."""

THRESHOLD = 1.0
"""Pixels from its line that an inlier may lie."""

CONFIDENCE = 0.999

NEAREST, BASE = 0.1, 5.4
FAR = 540.0
"""Metres: of a disparity of 0, and of the sky."""


@dataclass(frozen=True)
class Motion:
    """A point p of the first camera's view is at R p + t in the second's, in metres."""

    rotation: np.ndarray
    translation: np.ndarray


def camera(width: int, height: int) -> np.ndarray:
    """The matrix of a camera whose picture is FIELD_OF_VIEW wide; pixels count from 1, as in the authors' code."""
    focal = width / (2 * math.tan(math.radians(FIELD_OF_VIEW) / 2))
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def depth_of(disparity: np.ndarray) -> np.ndarray:
    """(H, W) uint16 disparity of monodepth2 -> metres: 5.4 / (0.01 + 9.99 v / 65535)  [code of MGCDA]."""
    return BASE / (0.01 + disparity / 65535 * 9.99)


def matches(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, D) and (M, D) float32 descriptors -> (K, 2) numbers of those that belong together.

    Each is the other's nearest, clearly nearer to the second's than the next, and not much farther than the best pair.
    """
    if len(first) < 2 or not len(second):
        return np.zeros((0, 2), np.int64)
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    pairs = matcher.knnMatch(second, first, k=2)
    back = {match.queryIdx: match.trainIdx for (match,) in matcher.knnMatch(first, second, k=1)}
    limit = FARTHEST * min(best.distance**2 for best, _ in pairs)
    kept = [
        (best.trainIdx, best.queryIdx)
        for best, next_best in pairs
        if best.distance**2 < RATIO * next_best.distance**2
        and best.distance**2 <= limit
        and back[best.trainIdx] == best.queryIdx
    ]
    return np.array(kept, np.int64).reshape(-1, 2)


def features(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 RGB -> (N, 2) places x, y counted from 1, and (N, 128) float32 descriptors."""
    points, descriptors = cv2.SIFT.create().detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    if descriptors is None:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    return np.array([point.pt for point in points]) + 1, descriptors


def motion(first: np.ndarray, second: np.ndarray, matrix: np.ndarray, depth: np.ndarray) -> Motion | None:
    """(N, 2) places of matched points in two pictures of one camera, (H, W) depth of the first in metres, NaN or FAR
    where it does not count -> how the camera moved; None where that cannot be told.
    """
    if len(first) < FEWEST:
        return None
    essential, inliers = cv2.findEssentialMat(first, second, matrix, cv2.RANSAC, CONFIDENCE, THRESHOLD)
    if essential is None or essential.shape != (3, 3):  # several solutions, or none
        return None
    count, rotation, direction, inliers, found = cv2.recoverPose(
        essential, first, second, matrix, distanceThresh=np.inf, mask=inliers
    )
    chosen = inliers.ravel() > 0
    if count < FEWEST:
        return None
    z = found[2, chosen] / found[3, chosen]
    columns, rows = np.rint(first[chosen] - 1).astype(int).T
    known = depth[rows.clip(0, depth.shape[0] - 1), columns.clip(0, depth.shape[1] - 1)]
    counts = (z > 0) & (known < FAR)
    if not counts.any():
        return None
    scale = math.exp(np.median(np.log(known[counts]) - np.log(z[counts])))
    return Motion(rotation, scale * direction.ravel())
