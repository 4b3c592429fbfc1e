"""How far away each pixel is, from the disparity and camera files of Cityscapes.

disparity/SPLIT/CITY/KEY_disparity.png    16-bit greyscale p: disparity (p - 1) / 256 pixels, 0 where it is not known
camera/SPLIT/CITY/KEY_camera.json         intrinsic.fx, u0, v0 in pixels; extrinsic.baseline in metres

Holes are filled as for Foggy Cityscapes (Sakaridis, Dai, Van Gool, IJCV 2018, sec. 3.1), but more simply. There,
superpixels (SLIC) get planes fitted to their depth, and those without enough depth the plane of the superpixel that is
most alike in colour and place. Here the pieces are square cells instead of superpixels, and give their mean disparity
instead of a plane. Disparities that contradict the right image are not sought out: it is not read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from segda.data.files.images import header
from segda.errors import DataError
from segda.ground.paths import regular
from segda.ground.safe_yaml import read_json

SCALE, OFFSET = 256, 1
"""p = 256 d + 1.  README of cityscapesScripts."""

CELLS = 8192
"""Square cells of an image, about: 16 x 16 pixels of 2048 x 1024; ours. The authors' superpixels are 2048."""
SUPERPIXELS, COMPACTNESS = 2048, 10.0
"""Of the authors' segmentation; the second weighs place against colour.  Sakaridis et al. 2018 and their code."""
KNOWN_SHARE = 0.6
"""What share of a cell must be known for others to take from it.  The same, of a superpixel."""
CHUNK = 1 << 24
"""Squared distances that are held at once."""


@dataclass(frozen=True)
class Camera:
    """Focal length and optical centre in pixels, distance of the two cameras in metres.

    Pixel centres have whole numbers: the first one is 0.
    """

    fx: float
    u0: float
    v0: float
    baseline: float


def read_camera(path: Path) -> Camera:
    """DataError, naming file and key, for a number that is missing, not positive or not finite."""
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; get camera_trainvaltest.zip of Cityscapes, or write one") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no JSON that can be read ({error}); get it again") from None
    numbers = []
    for group, key in (("intrinsic", "fx"), ("intrinsic", "u0"), ("intrinsic", "v0"), ("extrinsic", "baseline")):
        part = content.get(group) if isinstance(content, dict) else None
        value = part.get(key) if isinstance(part, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise DataError(f"{path}: {group}.{key} is {value!r}, where a positive number is needed; correct the file")
        numbers.append(float(value))
    return Camera(*numbers)


def read_disparity(path: Path, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) float32 pixels, and (H, W) bool where it is known; elsewhere it is 0.

    DataError, naming the file, if it is missing, no 16-bit greyscale PNG, not of `size` (height, width) or empty.
    """
    try:
        content = regular(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; get disparity_trainvaltest.zip of Cityscapes, or write one") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    head = header(content)
    if head is None or not head.whole or head.fault:
        raise DataError(f"{path}: no PNG, damaged, or cut off; copy or download it again")
    if (head.bits, head.kind) != (16, "greyscale"):
        what = f"{path}: {head.kind} with {head.bits} bits, where a disparity is greyscale with 16"
        raise DataError(f"{what} (256 d + 1, 0 where it is not known); it is not the picture for looking at")
    if (head.height, head.width) != size:
        what = f"{path} is {head.width}x{head.height} but its image is {size[1]}x{size[0]}"
        raise DataError(f"{what}; use the disparity that belongs to this image")
    stored = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise DataError(f"{path}: damaged, it cannot be decoded; copy or download it again")
    known = stored > 0
    if not known.any():
        raise DataError(f"{path}: no pixel has a disparity; copy or download it again")
    return np.maximum(stored.astype(np.float32) - OFFSET, 0) / SCALE, known


def stored_disparity(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """(H, W) metres -> (H, W) uint16 as in the files, at most 65535; infinite depth is 1, disparity 0."""
    disparity = camera.baseline * camera.fx / depth
    return np.rint(np.minimum(disparity * SCALE + OFFSET, 65535)).astype(np.uint16)


def depth_of(disparity: np.ndarray, camera: Camera) -> np.ndarray:
    """z = baseline fx / d: (H, W) pixels -> (H, W) metres along the optical axis, infinite where d = 0."""
    with np.errstate(divide="ignore"):
        return np.float32(camera.baseline * camera.fx) / disparity


def distance_of(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """l = z sqrt(1 + ((x - u0) / fx)^2 + ((y - v0) / fx)^2): along the optical axis -> along each pixel's own ray.

    (H, W) metres -> (H, W) metres. With fx for both axes, as the authors' code.
    """
    height, width = depth.shape
    across = (np.arange(width, dtype=np.float32) - camera.u0) / camera.fx
    down = (np.arange(height, dtype=np.float32) - camera.v0) / camera.fx
    return depth * np.sqrt(1 + across**2 + down[:, None] ** 2).astype(np.float32)


def filled(disparity: np.ndarray, known: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The disparity (H, W), and where it is not known that of the piece of the image that is most alike.

    The unknown pixels of a cell take the mean disparity of the known ones of that cell j for which
    |Lab_i - Lab_j|^2 + (m / S)^2 |place_i - place_j|^2 is least, with the means of these pixels' colours (CIELAB) and
    places, m = 10 and S the distance of superpixels: what the authors match superpixels by. As there, the best match
    comes first, and what has got its disparity then gives it on. Cells of which enough is known give theirs, or all if
    there are none. image (H, W, 3) uint8 RGB.
    """
    if known.all():
        return disparity
    height, width = known.shape
    edge = max(1, round(math.sqrt(height * width / CELLS)))
    rows, columns = np.divmod(np.arange(height * width), width)
    across = -(-width // edge)
    cell = (rows // edge) * across + columns // edge
    count = across * -(-height // edge)
    part = cell + count * known.ravel()  # first the unknown parts of the cells, then the known ones
    pixels = np.bincount(part, minlength=2 * count)
    step = math.sqrt(height * width / SUPERPIXELS)
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    features = (*lab.T, columns * (COMPACTNESS / step), rows * (COMPACTNESS / step), disparity.ravel())
    with np.errstate(invalid="ignore"):
        means = np.stack([np.bincount(part, values, 2 * count) / pixels for values in features], 1)
    holes = np.flatnonzero(pixels[:count])
    there = pixels[count:]
    serves = there >= KNOWN_SHARE * (there + pixels[:count])
    if not (serves & (there > 0)).any():
        serves = there > 0
    givers = count + np.flatnonzero(serves & (there > 0))
    value = np.zeros(count)
    value[holes] = means[givers[matched(means[holes, :5], means[givers, :5])], 5]
    return np.where(known, disparity, value[cell].reshape(height, width)).astype(np.float32)


def matched(points: np.ndarray, givers: np.ndarray) -> np.ndarray:
    """For each point the giver whose value reaches it: (N, D), (M, D) -> (N,) indices of givers.

    The point nearest to a giver, or to a point that has its value, is next to get that value, until all have one.
    """
    length, own = (givers**2).sum(1), (points**2).sum(1)
    nearest, least = np.empty(len(points), np.int64), np.empty(len(points))
    step = max(1, CHUNK // len(givers))
    for k in range(0, len(points), step):
        away = length - 2 * points[k : k + step] @ givers.T
        nearest[k : k + step] = away.argmin(1)
        least[k : k + step] = away.min(1) + own[k : k + step]
    source = np.empty(len(points), np.int64)
    numbers, places = np.arange(len(points)), np.ascontiguousarray(points.T)  # of the points that have no value yet
    for left in reversed(range(len(points))):
        first = least[: left + 1].argmin()
        chosen, value = places[:, first].copy(), nearest[first]
        source[numbers[first]] = value
        for rows in (numbers, least, nearest, own, places.T):  # the last takes the place of the one that is done
            rows[first] = rows[left]
        away = own[:left] - 2 * (chosen @ places[:, :left]) + chosen @ chosen
        closer = away < least[:left]
        least[:left][closer] = away[closer]
        nearest[:left][closer] = value
    return source
